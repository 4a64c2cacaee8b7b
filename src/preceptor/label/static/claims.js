// The claim on the image at hand, and what is in the way of work on it.

import { post } from "./api.js";
import { draw, view } from "./canvas.js";
import { lostWords, page } from "./page.js";
import { showSaved, trouble } from "./panel.js";
import { renewTotals, showPanel } from "./refresh.js";

export function showTrouble() {
  const reasons = [];
  if (page.wrong.session) {
    const text = `${page.wrong.session} What you have drawn is kept in this browser.`;
    reasons.push({ text, words: "Load again", action: () => location.reload() });
  }
  if (page.wrong.unreached) {
    const text = page.wrong.unreached;
    reasons.push({ text, words: "Try again", action: () => page.outbox.wake() });
  }
  const lost = lostWords();
  if (lost !== null) {
    const action = () => {
      page.lost = [];
      showTrouble();
    };
    reasons.push({ text: lost, words: "Hide", action });
  }
  trouble([...reasons, ...page.waiting]);
}

export function toldByOutbox(told) {
  showSaved(told);
  const { kind, count, reason, durable } = told;
  page.wrong.unreached = null;
  if (kind === "waiting") {
    const what = count === 1 ? "One change is" : `${count} changes are`;
    const kept = durable
      ? "kept in this browser and saved as soon as that is possible. You can go on."
      : "kept in this page alone: do not close it.";
    page.wrong.unreached = `Not saved: ${reason}. ${what} ${kept}`;
  }
  showTrouble();
  renewTotals();
}

export async function claim() {
  const own = page.entry;
  if (own === null) return;
  try {
    const { work } = page;
    const line = work.line.slice(0, 24).map(({ id }) => id); // as many as the server takes
    const told = await post(`/api/images/${own.id}/open`, { tab: page.outbox.tab, line });
    if (page.work === work) work.keep(line, told.line);
    if (page.entry !== own) return;
    if (!own.fresh) await page.work.refresh(own); // loaded ahead: marks may be old
    own.fresh = true;
  } catch {
    // Without the server, the outbox says so.
  }
  showTrouble();
  showPanel();
  if (!draw.busy) view.redrawMarks();
}
