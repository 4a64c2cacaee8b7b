// Answers about the image at hand.

import { finish } from "./canvas.js";
import { goOn } from "./images.js";
import { draft, isDone, page } from "./page.js";
import { say } from "./panel.js";
import { count, showPanel } from "./refresh.js";
import { save } from "./saving.js";
import { keepTime } from "./seen.js";

// Whether an answer to the image at hand needs a label.
function needsLabel(state) {
  const judged = state === "marked" || state === "nothing";
  return judged && page.state.labels.length > 0 && !page.entry.info.label;
}

export function answer(kind) {
  if (page.entry === null || page.moving) return;
  if (page.entry.problem || page.wrong.elsewhere) {
    goOn();
    return;
  }
  if (!finish()) return;
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
  if (needsLabel(kind) && draft().label === null) {
    say("Choose a label first: the keys 1 to 9.");
    return;
  }
  store(kind);
  page.work.answered.add(page.entry.id);
  goOn();
}

// Saves the answer, which has what is chosen, in place of an earlier one.
function store(state) {
  keepTime();
  const { entry } = page;
  const before = isDone(entry);
  const { label, certainty, seconds } = draft();
  const body = {
    state,
    label,
    certainty,
    seconds: Math.round(seconds * 1000) / 1000,
    proposal: entry.seen ?? entry.answer?.proposal ?? null,
    version: entry.info.version,
  };
  save("answer", body);
  entry.answer = body;
  page.drafts.change(entry.id, { label: undefined, certainty: undefined });
  count(entry.id, before, isDone(entry));
}

// Chooses a label or a certainty; an answer that counts already is saved with it at once.
export function choose(values) {
  const { entry } = page;
  if (entry === null || page.moving || entry.problem || page.wrong.elsewhere) return;
  const done = isDone(entry);
  if (done && values.label === null && needsLabel(entry.answer.state)) {
    say("This answer needs a label: choose another one.");
    return;
  }
  page.drafts.change(entry.id, values);
  if (done) store(entry.answer.state);
  showPanel();
}
