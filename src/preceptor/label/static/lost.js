// Changes that the server has refused for good.

import { page } from "./page.js";

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
