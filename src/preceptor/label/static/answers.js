// Answers about the image at hand.

import { draw } from "./canvas.js";
import { isDone } from "./fit.js";
import { goOn } from "./images.js";
import { draft, page } from "./page.js";
import { say } from "./panel.js";
import { showPanel, showTotals } from "./refresh.js";
import { save } from "./saving.js";
import { keepTime } from "./seen.js";

export function answer(kind) {
  if (page.entry === null || page.moving) return;
  if (page.entry.problem || page.wrong.elsewhere) {
    goOn();
    return;
  }
  const judged = kind === "marked" || kind === "nothing";
  if (judged && draw.points.length > 2) {
    say("The polygon is open. Enter closes it, Esc cancels it.");
    return;
  }
  draw.cancel();
  const own = draft();
  const label = own.label ?? page.entry.answer?.label ?? null;
  const empty = page.entry.marks.isEmpty();
  if (kind === "marked" && empty) {
    if (page.entry.answer && page.entry.answer.state !== "marked") goOn();
    else say("Nothing is marked yet. Press 0 if there is nothing to mark, or S to skip.");
    return;
  }
  if (kind === "nothing" && !empty) {
    say("Something is marked. Undo or erase it first, or press N.");
    return;
  }
  if (judged && page.state.labels.length > 0 && !page.entry.info.label && label === null) {
    say("Choose a label first: the keys 1 to 9.");
    return;
  }
  keepTime();
  const before = isDone(page.entry);
  const body = {
    state: kind,
    label,
    certainty: own.certainty ?? page.entry.answer?.certainty ?? null,
    seconds: Math.round(draft().seconds * 1000) / 1000,
    proposal: page.entry.seen ?? null,
  };
  save("answer", body);
  page.entry.answer = body;
  page.work.answered.add(page.entry.id);
  page.state.totals.mine_done += isDone(page.entry) - before;
  showTotals();
  goOn();
}

export function mayAnswer(values) {
  if (page.entry === null || page.entry.problem) return;
  page.drafts.set(page.entry.id, { ...draft(), ...values });
  showPanel();
}
