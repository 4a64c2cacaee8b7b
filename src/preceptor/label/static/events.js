// Events of the page: keys, clicks, sliders, and the page that is left.

import { run, tolerate } from "./actions.js";
import { cursor, draw, guide, pointer, stage, view } from "./canvas.js";
import { showGrid } from "./grid.js";
import { follow, giveBack } from "./images.js";
import { actionOf, quickActionOf } from "./keys.js";
import { closeSheet } from "./sheet.js";
import { page } from "./page.js";
import { $ } from "./panel.js";
import { showPanel } from "./refresh.js";
import { keepClock, keepTime } from "./seen.js";
import { change, settings, sizeOf } from "./settings.js";

const IDLE = new Set([
  "mark", "light", "help", "theme", "fit", "closer", "farther", "cancel", "previous", "grid", "auto",
  "window", "letters",
]);

function onKey(event) {
  if ($("help").open) {
    if (event.key === "?") $("help").close();
    return;
  }
  const target = event.target;
  const writes = target.matches?.("input:not([type=range]), select, textarea");
  if (writes || page.state === null || !$("sheet").hidden) return;
  const onStage = target === stage || target === document.body;
  if (onStage && cursor.key(event)) {
    event.preventDefault();
    return;
  }
  if (event.key === " ") {
    // On a button, the space bar presses the button; on a slider, it does nothing.
    if (onStage || target.matches?.("input[type=range]")) {
      event.preventDefault();
      pointer.hold(true);
    }
    return;
  }
  if (event.key === "Enter" && onStage && draw.points.length > 0) {
    draw.close();
    return;
  }
  if (event.key === "Backspace" && onStage && draw.points.length > 1) {
    draw.points.pop();
    guide();
    return;
  }
  // Arrow keys move a slider that has the focus.
  if (event.key.startsWith("Arrow") && target.matches?.("input[type=range]")) return;
  if (!settings.keys && event.key.length === 1 && !event.ctrlKey && !event.metaKey) return;
  if (page.state.quick && event.key === "Enter" && target.matches?.("button, summary")) return;
  const found = page.state.quick ? quickActionOf(event) : actionOf(event);
  if (found === null || (page.entry === null && !IDLE.has(found[0]))) return;
  event.preventDefault();
  if (event.repeat && ["next", "previous", "nothing", "cannot"].includes(found[0])) return;
  run(...found);
}

function onClick(event) {
  const button = event.target.closest?.("button, summary");
  if (!button || button.disabled) return;
  const { dataset } = button;
  if (dataset.do !== undefined) run(dataset.do);
  else if (dataset.color !== undefined) run("color", Number(dataset.color));
  else if (dataset.label !== undefined) run("label", Number(dataset.label));
  else if (button.localName !== "summary") return;
  // After a click with the mouse, keys are for the image again.
  if (event.detail > 0) stage.focus({ preventScroll: true });
}

export function listen({ signIn }) {
  keepClock();
  document.addEventListener("keydown", onKey);
  document.addEventListener("keyup", (event) => {
    if (event.key === " ") pointer.hold(false);
  });
  window.addEventListener("blur", () => pointer.hold(false));
  document.addEventListener("click", onClick);
  window.addEventListener("hashchange", () => {
    closeSheet();
    follow();
  });
  window.addEventListener("pagehide", giveBack);
  window.addEventListener("beforeunload", (event) => {
    keepTime();
    if (page.outbox?.entries.length > 0) {
      event.preventDefault();
    }
  });
  const sliders = {
    size: (value) => change({ brush: sizeOf(value) }),
    tolerance: tolerate,
    opacity: (value) => {
      change({ opacity: value });
      view.opacity = value / 100;
      view.redrawMarks();
    },
    brightness: (value) => change({ brightness: value }),
    contrast: (value) => change({ contrast: value }),
  };
  for (const [id, set] of Object.entries(sliders)) {
    $(id).addEventListener("input", () => {
      set(Number($(id).value));
      guide();
      showPanel();
    });
  }
  $("light").addEventListener("toggle", () => {
    if ($("light").open !== settings.light) change({ light: $("light").open });
  });
  $("to-help").addEventListener("click", () => run("help"));
  $("to-grid").addEventListener("click", showGrid);
  $("who").addEventListener("click", () => {
    closeSheet();
    signIn();
  });
  stage.addEventListener("dblclick", (event) => event.preventDefault());
}
