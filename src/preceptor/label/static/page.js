// The state of the page: the person, the image at hand, and what is in the way of work.

export const page = {
  state: null, // of the server: person, classes, labels, ...
  entry: null, // the image at hand
  outbox: null,
  drafts: null,
  work: null,
  shown: true, // whether the mark is shown
  clock: null, // since when the image is looked at, or null while it is not
  moving: false, // whether another image is being fetched
  wrong: { elsewhere: false, session: null, unreached: null },
  knowsOfChange: false, // whether the person has read that the manifest has changed
};

// Whether the image at hand may be marked.
export function allowed() {
  return page.entry !== null && !page.entry.problem && !page.wrong.elsewhere && !page.wrong.session;
}

// What is chosen for the image at hand and is part of no answer yet.
export function draft() {
  if (page.entry === null) return { label: null, certainty: null, seconds: 0 };
  return page.drafts.get(page.entry.id);
}
