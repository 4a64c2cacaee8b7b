// How many images the person has answered. A change counts at once, before it is saved.

import { page } from "./page.js";
import { showProgress } from "./panel.js";

export function showTotals() {
  const { mine_done: done, mine_open: open } = page.state.totals;
  page.state.mine ??= done + open;
  // Images that were handed to others may come back, and count then.
  showProgress(done, Math.max(page.state.mine, done));
}

// Counts whether an image has an answer that counts, which was otherwise before.
export function count(image, before, after) {
  page.work.counted.set(image, after);
  page.state.totals.mine_done += after - before;
  showTotals();
}

// The same after the server has refused a change, where the image was counted here.
export function recount(image, after) {
  const before = page.work.counted.get(image);
  if (before !== undefined) count(image, before, after);
}
