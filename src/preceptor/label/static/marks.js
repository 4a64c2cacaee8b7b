// The marks of one person on one image: a list of strokes, and the mask as their fold.

import { Mask } from "./mask.js";
import { page } from "./page.js";
import { line } from "./shapes.js";

function meet(one, other) {
  return (
    one.x < other.x + other.w && other.x < one.x + one.w &&
    one.y < other.y + other.h && other.y < one.y + one.h
  );
}

// Strokes that are undone stay so for good.
export function forget(strokes) {
  for (const stroke of strokes) stroke.redoable = false;
}

// What a stroke covers: a point is one pixel for the server, and stands for a disc.
function drawn(stroke, width, height) {
  if (stroke.tool !== "point") return stroke;
  const mask = new Mask(width, height);
  const r = page.state.radius * Math.min(width, height);
  const center = { x: stroke.x + 0.5, y: stroke.y + 0.5, r };
  line(mask, center, center);
  return { ...stroke, ...mask.stroke() };
}

export class Marks {
  constructor(width, height, strokes = []) {
    this.width = width;
    this.height = height;
    this.strokes = strokes.map((stroke) => drawn(stroke, width, height));
    this.mask = new Mask(width, height);
    for (const stroke of this.strokes) if (!stroke.undone) this.mask.apply(stroke);
  }

  // A new stroke; what is undone before it cannot come back, here as on the server.
  add(given) {
    const stroke = drawn(given, this.width, this.height);
    forget(this.strokes);
    this.strokes.push(stroke);
    this.mask.apply(stroke);
    return stroke;
  }

  toUndo() {
    return this.strokes.findLast((stroke) => !stroke.undone) ?? null;
  }

  toRedo() {
    return this.strokes.find((stroke) => stroke.undone && stroke.redoable) ?? null;
  }

  undo() {
    const stroke = this.toUndo();
    if (stroke === null) return null;
    stroke.undone = true;
    stroke.redoable = true;
    // Only the rectangle of the stroke is folded again, from the strokes that reach into it.
    this.mask.clear(stroke);
    for (const one of this.strokes) {
      if (!one.undone && meet(one, stroke)) this.mask.apply(one, stroke);
    }
    return stroke;
  }

  redo() {
    const stroke = this.toRedo();
    if (stroke === null) return null;
    stroke.undone = false;
    stroke.redoable = false;
    this.mask.apply(stroke);
    return stroke;
  }

  isEmpty() {
    return this.mask.isEmpty();
  }
}
