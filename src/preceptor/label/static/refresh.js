// The panels as the state of the page has them.

import { get } from "./api.js";
import { cursor, pointer, stage } from "./canvas.js";
import { allowed, draft, fits, page } from "./page.js";
import { $, showImage, showProgress, showSettings } from "./panel.js";

// Numbers of examined images that are enough, and for what.
const NEEDED = [{ count: 20, what: "an audit (20 images)" }, { count: 60, what: "a Teacher (60 images)" }];

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
  const { examined } = page.state.totals;
  const next = NEEDED.find(({ count }) => examined < count);
  $("needed").textContent = next === undefined
    ? `${examined} images are examined: enough for an audit and a Teacher.`
    : `${next.count - examined} more for ${next.what}`;
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
