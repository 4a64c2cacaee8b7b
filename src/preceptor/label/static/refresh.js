// The panels as the state of the page has them.

import { get } from "./api.js";
import { cursor, pointer, stage } from "./canvas.js";
import { allowed, draft, fits, page } from "./page.js";
import { showImage, showProgress, showSettings } from "./panel.js";

export function showPanel() {
  const stretch = page.entry?.picture?.stretch;
  showSettings({ shown: page.shown, cursor: cursor.on, window: pointer.window, stretch });
  showImage(page.entry, draft(), page.state ?? { labels: [] }, {
    allowed: allowed(), isFit: page.entry !== null && fits(page.entry),
  });
  stage.classList.toggle("locked", page.entry !== null && !allowed());
}

export function showTotals() {
  const { mine_done: done, mine_open: open } = page.state.totals;
  page.state.mine ??= done + open;
  showProgress(done, Math.max(page.state.mine, done));
}

// Asks for the totals again, once all that they miss is saved.
export async function renewTotals() {
  const { state, outbox } = page;
  if (!page.stale || outbox.entries.length > 0) return;
  const { last } = outbox;
  const fresh = await get("/api/state").catch(() => null);
  // With another change, or as another person, they would be wrong again.
  if (page.state !== state || outbox.last !== last || fresh?.person?.id !== state.person.id) return;
  page.stale = false;
  state.totals = fresh.totals;
  delete state.mine;
  showTotals();
}

// Counts whether an image has an answer that counts, which was otherwise before.
export function count(image, before, after) {
  page.work.counted.set(image, after);
  page.state.totals.mine_done += after - before;
  showTotals();
}

export function recount(image, after) {
  const before = page.work.counted.get(image);
  if (before !== undefined) count(image, before, after);
}
