// The time for which the image at hand is looked at.

import { draft, page } from "./page.js";
import { save } from "./saving.js";

// Seconds for which the image at hand was looked at, added to its draft; the clock is monotonic.
export function keepTime() {
  if (page.entry === null || page.clock === null) return;
  const now = performance.now();
  const own = draft();
  const seconds = own.seconds + (now - page.clock.counted) / 1000;
  page.drafts.set(page.entry.id, { ...own, seconds });
  page.clock.counted = now;
}

export function look() {
  if (page.clock === null && page.entry !== null && document.visibilityState === "visible") {
    page.clock = { from: Date.now(), counted: performance.now() };
  }
}

export function lookAway() {
  if (page.entry === null || page.clock === null) return;
  keepTime();
  const body = {
    from: new Date(page.clock.from).toISOString(),
    until: new Date().toISOString(),
    proposal: page.entry.seen ?? null,
  };
  page.clock = null;
  save("seen", body);
}
