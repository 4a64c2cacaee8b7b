// What keys and buttons do.

import { cursor, draw, finish, guide, pointer, stage, view } from "./canvas.js";
import { showGrid } from "./grid.js";
import { showRing } from "./guide.js";
import { previous } from "./images.js";
import { draft, page } from "./page.js";
import { $, fill } from "./panel.js";
import { showPanel } from "./refresh.js";
import { change, settings, stepped } from "./settings.js";
import { answer, choose, edit, history } from "./strokes.js";

const STEP = 1.25; // of a zoom by key

export function resize(direction) {
  if (settings.tool === "wand") {
    const step = Math.max(1, Math.round(settings.tolerance / 10));
    tolerate(settings.tolerance + direction * step);
    return;
  }
  change({ brush: stepped(settings.brush, direction) });
  showRing(view, settings, null);
  guide();
  showPanel();
}

export function tolerate(tolerance) {
  change({ tolerance: Math.min(128, Math.max(0, tolerance)) });
  draw.recast();
  showPanel();
}

// Brightness and contrast by a drag: to the right for a wider window, up for a brighter picture.
export function level(dx, dy) {
  const moved = (value, way) => Math.min(500, Math.max(20, Math.round(value * Math.exp(way / 200))));
  change({ contrast: moved(settings.contrast, -dx), brightness: moved(settings.brightness, -dy) });
  showPanel();
}

function hold(window) {
  pointer.window = window;
  showRing(view, settings, null);
  showPanel();
}

function take(tool, erase) {
  if (!finish()) return;
  pointer.window = false;
  change({ tool, erase });
  showRing(view, settings, null);
  guide();
  showPanel();
}

export function toggleMark() {
  page.shown = !page.shown;
  view.redrawMarks();
  showPanel();
  return page.shown;
}

function zoom(factor) {
  if (!cursor.on) {
    view.zoom(factor, ...view.middle());
    return;
  }
  const { left, top } = stage.getBoundingClientRect();
  const [x, y] = view.toStage(...cursor.place);
  view.zoom(factor, x + left, y + top);
}

const ACTIONS = {
  brush: () => take("brush", false),
  eraser: () => take("brush", true),
  polygon: () => take("polygon", settings.erase && settings.tool !== "brush"),
  box: () => take("box", settings.erase && settings.tool !== "brush"),
  wand: () => take("wand", settings.erase && settings.tool !== "brush"),
  invert: () => take(settings.tool, !settings.erase),
  smaller: () => resize(-1),
  larger: () => resize(1),
  undo: () => history("undo"),
  redo: () => history("redo"),
  next: () => answer("marked"),
  nothing: () => answer("nothing"),
  cannot: () => answer("cannot_judge"),
  several: () => {
    page.several = !page.several;
    $("several").setAttribute("aria-pressed", String(page.several));
  },
  previous,
  label: (number) => {
    const label = page.state.labels[number];
    if (label === undefined || page.state.labels.length < 2) return;
    choose({ label: draft().label === label ? null : label });
  },
  closer: () => zoom(STEP),
  farther: () => zoom(1 / STEP),
  fit: () => view.fit(),
  mark: toggleMark,
  light: () => {
    change({ light: !settings.light });
    showPanel();
    if (settings.light) {
      $("light").scrollIntoView({ block: "nearest" });
      $("opacity").focus();
    }
    else stage.focus();
  },
  fill: () => edit("fill"),
  smooth: () => edit("smooth"),
  grow: () => edit("grow"),
  shrink: () => edit("shrink"),
  auto: () => {
    change({ auto: !settings.auto });
    showPanel();
  },
  window: () => finish() && hold(!pointer.window),
  color: (color) => {
    change({ color });
    fill(page.state);
    view.redrawMarks();
    showPanel();
  },
  plain: () => {
    change({ opacity: 40, brightness: 100, contrast: 100, color: 0, auto: true });
    fill(page.state);
    view.opacity = 0.4;
    view.redrawMarks();
    showPanel();
  },
  letters: () => {
    change({ keys: !settings.keys });
    showPanel();
  },
  theme: () => {
    const order = ["system", "light", "dark"];
    change({ theme: order[(order.indexOf(settings.theme) + 1) % 3] });
    showPanel();
  },
  cursor: () => {
    cursor.toggle();
    if (cursor.on) stage.focus();
  },
  grid: showGrid,
  help: () => ($("help").open ? $("help").close() : $("help").showModal()),
  cancel: () => {
    if (draw.cancel()) return;
    if (pointer.window) hold(false);
    else if (cursor.on) cursor.toggle();
  },
};

export function run(action, value) {
  ACTIONS[action]?.(value);
}
