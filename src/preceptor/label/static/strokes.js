// Strokes on the image at hand, new, undone and done again, and answers about it.

import { identifier } from "./api.js";
import { draw, finish, pointer, view } from "./canvas.js";
import { edited } from "./edit.js";
import { goOn } from "./images.js";
import { Mask } from "./mask.js";
import { allowed, draft, isDone, page } from "./page.js";
import { hush, say } from "./panel.js";
import { count, showPanel } from "./refresh.js";
import { toBase64 } from "./runs.js";
import { save } from "./saving.js";
import { keepTime } from "./seen.js";

// Changes the marks of the image at hand, and says what becomes of its answer.
function changeMarks(change) {
  const { entry, work } = page;
  hush();
  const before = isDone(entry);
  const stroke = change(entry.marks);
  const after = isDone(entry);
  if (before === after) return stroke;
  if (after) {
    work.answered.add(entry.id);
  } else {
    work.answered.delete(entry.id);
    say("The answer does not fit the marks any more, and does not count. Answer again.");
  }
  count(entry.id, before, after);
  return stroke;
}

// Undoes the points of the image at hand.
function clearPoints() {
  for (;;) {
    const stroke = page.entry.marks.toUndo();
    if (stroke?.tool !== "point") break;
    changeMarks((marks) => marks.undo());
    save("undo", { uuid: stroke.uuid });
    view.redrawMarks(stroke);
  }
  hush();
}

// One click on the evidence answers; with Shift or Several, the image stays for another one.
function answerPoint() {
  page.entry.kept = true;
  if (!isOneOfSeveral()) answer("marked");
}

function isOneOfSeveral() {
  return pointer.shift || page.several;
}

export function addStroke(stroke) {
  // A click on an image that was answered before begins anew; one of several is added.
  const { entry } = page;
  const isAnew = stroke.tool === "point" && isDone(entry) && !entry.kept && !isOneOfSeveral();
  if (isAnew) clearPoints();
  const { bytes, ...rest } = stroke;
  if (stroke.erase && !touches(page.entry.marks.mask, stroke)) {
    view.redrawMarks(stroke);
    return; // an eraser that met nothing leaves no stroke to undo
  }
  const body = {
    ...rest, uuid: identifier(), runs: toBase64(bytes),
    width: page.entry.marks.width, height: page.entry.marks.height,
  };
  const made = changeMarks((marks) =>
    marks.add({ ...body, bytes, undone: false, redoable: false }));
  save("stroke", body);
  keepTime();
  view.redrawMarks(made);
  showPanel();
  if (stroke.tool === "point") answerPoint();
}

function touches(mask, stroke) {
  const other = new Mask(mask.width, mask.height);
  other.apply({ ...stroke, erase: false });
  return other.tiles.some(
    (tile, at) =>
      tile !== null && mask.tiles[at] !== null && tile.some((one, i) => one && mask.tiles[at][i]),
  );
}

export function history(kind) {
  if (!allowed() || draw.cancel()) return;
  const stroke = changeMarks((marks) => marks[kind]());
  if (stroke === null) {
    say(kind === "undo" ? "There is nothing to undo." : "There is nothing to redo.");
    return;
  }
  save(kind, { uuid: stroke.uuid });
  view.redrawMarks(stroke);
  showPanel();
  // What smoothing has added and taken away is one change.
  const next = page.entry.marks[kind === "undo" ? "toUndo" : "toRedo"]();
  if (stroke.tool === "smooth" && next?.started === stroke.started) history(kind);
}

// Fills the holes of the mark of the chosen class, smooths, grows or shrinks it.
export function edit(kind) {
  hush();
  if (!allowed() || !finish()) return;
  const radius = Math.max(1, Math.round(view.ratio / view.scale));
  const parts = edited(page.entry.marks.mask, kind, kind === "smooth" ? 2 * radius : radius);
  const started = new Date().toISOString();
  const strokes = (parts ?? []).map((part, at) => ({ stroke: part.stroke(), erase: at === 1 }));
  for (const { stroke, erase } of strokes) {
    if (stroke !== null) addStroke({ ...stroke, tool: kind, erase, started, seconds: 0 });
  }
  if (strokes.some(({ stroke }) => stroke !== null)) return;
  const large = parts === null && !page.entry.marks.mask.isEmpty();
  say(large ? "The mark is too large for this." : "There is nothing to change.");
}

function needsLabel(state) {
  const judged = state === "marked" || state === "nothing";
  return judged && page.state.labels.length > 0 && !page.entry.info.label;
}

export function answer(kind) {
  if (page.entry === null || page.moving || page.leaving || page.wrong.session) return;
  if (page.entry.problem) {
    goOn();
    return;
  }
  if (!finish()) return;
  if (page.state.quick && kind === "nothing") clearPoints();
  const empty = page.entry.marks.isEmpty();
  if (kind === "marked" && empty) {
    if (page.entry.answer && page.entry.answer.state !== "marked") goOn();
    else if (page.state.quick) say("Click the evidence, or press N if there is nothing to mark.");
    else say("Nothing is marked yet. Press 0 if there is nothing to mark, or C if you cannot judge.");
    return;
  }
  if (kind === "nothing" && !empty) {
    say("Something is marked. Undo or erase it first, or press N.");
    return;
  }
  if (needsLabel(kind) && draft().label === null) {
    const [label, ...others] = page.state.labels;
    if (others.length > 0) {
      say("Choose a label first: the keys 1 to 9.");
      return;
    }
    page.drafts.change(page.entry.id, { label });
  }
  store(kind);
  page.work.answered.add(page.entry.id);
  if (page.state.quick) goOnSaved();
  else goOn();
}

// Shows the next image once the server has what was done to this one.
async function goOnSaved() {
  const { entry } = page;
  page.stale = true; // the number of examined images is the server's
  page.leaving = true;
  await page.outbox.emptied();
  page.leaving = false;
  if (page.entry === entry) await goOn();
}

function store(state) {
  keepTime();
  const { entry } = page;
  const before = isDone(entry);
  const { label, seconds } = draft();
  const body = {
    state, label, seconds: Math.round(seconds * 1000) / 1000,
  };
  save("answer", body);
  entry.answer = body;
  page.drafts.change(entry.id, { label: undefined });
  count(entry.id, before, isDone(entry));
}

// Chooses a label; an answer that counts already is saved with it at once.
export function choose(values) {
  const { entry } = page;
  if (entry === null || page.moving || entry.problem || page.wrong.session) return;
  const done = isDone(entry);
  if (done && values.label === null && needsLabel(entry.answer.state)) {
    say("This answer needs a label: choose another one.");
    return;
  }
  hush();
  page.drafts.change(entry.id, values);
  if (done) store(entry.answer.state);
  showPanel();
}
