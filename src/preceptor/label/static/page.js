// The state of the page: the person, the image at hand, and what is in the way of work.

export const page = {
  state: null, // of the server: person, classes, labels, ...
  entry: null, // the image at hand
  outbox: null,
  drafts: null,
  work: null, // the images of the person; null while a person is being asked for
  shown: true, // whether the mark is shown
  clock: null, // since when the image is looked at, or null while it is not
  moving: false, // whether another image is being fetched
  lost: [], // changes that the server has refused for good: {name, reason}
  wrong: { elsewhere: false, session: null, unreached: null },
};

// Whether the image at hand may be marked.
export function allowed() {
  return page.entry !== null && !page.entry.problem && !page.wrong.elsewhere && !page.wrong.session;
}

// What is chosen and counted for the image at hand: since its answer, else in its answer.
export function draft() {
  const own = page.entry === null ? {} : page.drafts.get(page.entry.id);
  const given = page.entry?.answer ?? {};
  const chosen = (name) => (own[name] === undefined ? given[name] : own[name]) ?? null;
  return {
    label: chosen("label"),
    certainty: chosen("certainty"),
    // Another browser may have counted more.
    seconds: Math.max(own.seconds ?? 0, given.seconds ?? 0),
  };
}
