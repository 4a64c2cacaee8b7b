// The stage with the image, its marks and the tools that draw on it.

import { Cursor } from "./cursor.js";
import { Draw } from "./draw.js";
import { drawGuide, showRing } from "./guide.js";
import { allowed, page } from "./page.js";
import { $, say } from "./panel.js";
import { Pointer } from "./pointer.js";
import { settings } from "./settings.js";
import { View } from "./view.js";

const handlers = {};

// Sets what follows: `commit(stroke)` of a finished stroke, `changed()` of the cursor,
// `resize(direction)` of the tool, `toggleMark()` of a hidden mark that is drawn on,
// `tolerate(value)` of the wand, and `level(dx, dy)` of a drag of the window.
export function connect(given) {
  Object.assign(handlers, given);
}

function layers() {
  if (page.entry === null || !page.shown) return [];
  const { mask } = page.entry.marks;
  const live = draw.live?.mask ?? null;
  return [{ mask, live, erase: draw.live?.erase ?? false, color: settings.color }];
}

export const stage = $("stage");
export const view = new View(stage, $("picture"), $("marks"), {
  layers,
  moved: () => {
    guide();
    showRing(view, settings, null);
  },
});
view.opacity = settings.opacity / 100;

export const draw = new Draw({
  view, settings, guide, say,
  tool: () => (page.state.quick ? "point" : settings.tool),
  marks: () => page.entry.marks,
  allowed: () => allowed() && (page.shown || handlers.toggleMark()),
  commit: (stroke) => handlers.commit(stroke),
  tolerate: (value) => handlers.tolerate(value),
  redraw: (area) => view.redrawMarks(area),
});

export const cursor = new Cursor(view, draw, {
  settings,
  erasing: () => settings.erase,
  changed: () => {
    guide();
    handlers.changed();
  },
  say: (text) => ($("where").textContent = text),
});

export const pointer = new Pointer(stage, view, draw, {
  settings,
  erasing: () => settings.erase,
  resize: (direction) => handlers.resize(direction),
  level: (dx, dy) => handlers.level(dx, dy),
  ring: (event) => showRing(view, settings, cursor.on ? null : event),
});

export function guide() {
  drawGuide($("guide"), view, draw, cursor, settings);
}

// Ends a stroke that is being drawn, and says what must be ended first; whether nothing is lost then.
export function finish() {
  draw.settle();
  if (draw.points.length > 2) {
    say("The polygon is open. Enter closes it, Esc cancels it.");
    return false;
  }
  if (draw.live?.tool === "wand") {
    say("The wand is still working. Esc cancels it.");
    return false;
  }
  draw.cancel();
  return true;
}
