// The time for which the image at hand is looked at: while its tab is visible and neither the help
// nor the list of images is open; of a time without input, at most PAUSE.

import { draft, page } from "./page.js";
import { $ } from "./panel.js";

const PAUSE = 60_000; // milliseconds
let latest = performance.now(); // time of the last input, also while nothing is looked at
const INPUTS = ["pointerdown", "pointermove", "wheel", "keydown", "click"];

// Seconds for which the image at hand was looked at, added to its draft; the clock is monotonic.
export function keepTime() {
  if (page.entry === null || page.clock === null) return;
  const now = Math.min(performance.now(), page.clock.input + PAUSE);
  const seconds = draft().seconds + (now - page.clock.counted) / 1000;
  page.drafts.change(page.entry.id, { seconds });
  page.clock.counted = now;
}

function isSeen() {
  return document.visibilityState === "visible" && !$("help").open && $("sheet").hidden;
}

// Starts the clock, which is an input: somebody has come to see the image.
export function look() {
  if (page.clock !== null || page.entry === null || !isSeen()) return;
  const now = performance.now();
  page.clock = { counted: now, input: now, inputAt: Date.now() };
}

export function lookAway() {
  keepTime();
  page.clock = null;
}

export function idleTime() {
  return performance.now() - latest;
}

// After a long time without input, the image is looked at anew.
function noteInput() {
  latest = performance.now();
  if (page.clock === null) return;
  const now = performance.now();
  // The monotonic clock may stand while the machine sleeps.
  const pause = Math.max(now - page.clock.input, Date.now() - page.clock.inputAt);
  if (pause > PAUSE) {
    lookAway();
    look();
  } else {
    page.clock.input = now;
    page.clock.inputAt = Date.now();
  }
}

export function keepClock() {
  const changed = () => (isSeen() ? look() : lookAway());
  document.addEventListener("visibilitychange", changed);
  const observer = new MutationObserver(changed);
  observer.observe($("help"), { attributeFilter: ["open"] });
  observer.observe($("sheet"), { attributeFilter: ["hidden"] });
  // Before those who listen on the page, as the input may be an answer.
  for (const kind of INPUTS) {
    window.addEventListener(kind, noteInput, { capture: true, passive: true });
  }
}
