// The state of the page: the person, the image at hand, and what is in the way of work.

export const page = {
  state: null, // of the server: person, labels, ...
  entry: null, // the image at hand
  outbox: null,
  drafts: null,
  work: null, // the images of the person; null while a person is being asked for
  shown: true, // whether the mark is shown
  clock: null, // since when the image is looked at, or null while it is not
  moving: false, // whether another image is being fetched
  leaving: false, // whether the next image waits until the answer is saved
  several: false, // whether a click leaves the image there for another one
  stale: false, // whether the server may not have counted all answers when it told the totals
  waiting: [], // what other people have left in this browser: {text, words, action}
  lost: [], // changes that the server has refused for good: {name, reason}
  wrong: { session: null, unreached: null },
};

export function allowed() {
  return page.entry !== null && !page.entry.problem && !page.wrong.session && !page.leaving;
}

// What is chosen and counted for the image at hand: since its answer, else in its answer.
export function draft() {
  const own = page.entry === null ? {} : page.drafts.get(page.entry.id);
  const given = page.entry?.answer ?? {};
  const chosen = (name) => (own[name] === undefined ? given[name] : own[name]) ?? null;
  return {
    label: chosen("label"),
    // Another browser may have counted more.
    seconds: Math.max(own.seconds ?? 0, given.seconds ?? 0),
  };
}

export function fits({ answer, marks, problem }) {
  if (problem) return true; // without the image, its marks are not known
  if (answer?.state === "marked") return !marks.isEmpty();
  return answer?.state !== "nothing" || marks.isEmpty();
}

// Whether the image has an answer that counts.
export function isDone(entry) {
  return Boolean(entry.answer) && fits(entry);
}

// Changes that the server has refused for good.
export function lose({ kind, image, name }, reason) {
  page.lost.push({ name, reason });
  if (kind === "answer") page.work.answered.delete(image); // it is to be answered again
}

// What is lost, in words; null: nothing.
export function lostWords() {
  const latest = page.lost.at(-1);
  if (latest === undefined) return null;
  const names = [...new Set(page.lost.map(({ name }) => name))].join(", ");
  return `The server has refused a change, which is lost: ${latest.reason}. Look again at ${names}.`;
}

// What is chosen and counted for images and is part of no answer yet, kept over a reload: {label,
// seconds}, each where there is one.
const KEPT = 50;

export class Drafts {
  // `database` is that of the server.
  constructor(database, person) {
    this.key = `preceptor-label-drafts-${database}-${person}`;
    try {
      this.all = new Map(JSON.parse(localStorage.getItem(this.key) ?? "[]"));
    } catch {
      this.all = new Map();
    }
  }

  get(image) {
    return this.all.get(image) ?? {};
  }

  change(image, values) {
    const draft = { ...this.get(image), ...values };
    this.all.delete(image);
    this.all.set(image, draft);
    for (const old of this.all.keys()) {
      if (this.all.size <= KEPT) break;
      this.all.delete(old);
    }
    try {
      localStorage.setItem(this.key, JSON.stringify([...this.all]));
    } catch {
      // A full storage costs a draft, not a mark.
    }
  }
}
