// The panels beside the image: what they show follows from the state.

import { COLORS } from "./overlay.js";
import { placeOf, settings } from "./settings.js";

const NAMES = { brush: "Brush", eraser: "Eraser", polygon: "Polygon", box: "Box", wand: "Wand" };
const TIPS = {
  brush: "Drag to paint.",
  eraser: "Drag to erase.",
  polygon: "Click to set points, or drag a line around. Enter closes it.",
  box: "Drag from corner to corner.",
  wand: "Click a region of one color. Hold and drag sideways for the tolerance.",
};
export const STATES = {
  marked: "Marked", nothing: "Nothing to mark", cannot_judge: "Cannot judge",
};

/** @type {(id: string) => any} */
export const $ = (id) => document.getElementById(id);

export function element(name, text = "", attributes = {}) {
  const made = document.createElement(name);
  made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function colorOf(at) {
  return `rgb(${COLORS[at % COLORS.length].join(" ")})`;
}

export function fill({ labels }) {
  $("colors").replaceChildren(
    ...COLORS.map((_, at) => {
      const words = { "aria-label": `Color ${at + 1}`, title: `Color ${at + 1}` };
      const button = element("button", "", { type: "button", "data-color": at, ...words });
      button.style.background = colorOf(at);
      return button;
    }),
  );
  $("labels-part").hidden = labels.length < 2;
  $("labels").replaceChildren(
    ...labels.map((name, at) => {
      const button = element("button", "", { type: "button", "data-label": at });
      button.append(element("span", name));
      if (at < 9) button.append(element("kbd", String(at + 1)));
      return button;
    }),
  );
}

function press(selector, pressed) {
  for (const button of document.querySelectorAll(selector)) {
    button.setAttribute("aria-pressed", String(pressed(button)));
  }
}

export function showSettings({ shown, cursor, window = false, stretch = "" }) {
  const { tool, erase } = settings;
  const name = tool === "brush" && erase ? "eraser" : tool;
  press("#tools [data-do]", ({ dataset }) => dataset.do === name);
  for (const plain of ["undo", "redo", "closer", "farther", "fit"]) {
    document.querySelector(`#tools [data-do=${plain}]`).removeAttribute("aria-pressed");
  }
  press("#tools [data-do=mark]", () => shown);
  press("#tools [data-do=cursor]", () => cursor);
  $("stage").dataset.tool = name;
  $("stage").classList.toggle("erase", erase);
  const mode = erase && tool !== "brush" ? `${NAMES[name]}, erases` : NAMES[name];
  $("tool-title").textContent = mode;
  $("tip").textContent = window
    ? "Drag on the image: sideways for contrast, up and down for brightness."
    : cursor
    ? "Arrow keys move the cursor. Space sets the tool down or lifts it."
    : TIPS[name];
  $("size-part").hidden = tool !== "brush";
  $("tolerance-part").hidden = tool !== "wand";
  slider("size", placeOf(settings.brush), `${settings.brush} px`);
  slider("tolerance", settings.tolerance, String(settings.tolerance));
  for (const one of ["opacity", "brightness", "contrast"]) {
    slider(one, settings[one], `${settings[one]} %`);
  }
  const { brightness, contrast } = settings;
  const own = `brightness(${brightness / 100}) contrast(${contrast / 100})`;
  const filters = [settings.auto ? stretch : "", brightness === 100 && contrast === 100 ? "" : own];
  $("picture").style.filter = filters.filter(Boolean).join(" ");
  press("[data-do=auto]", () => settings.auto);
  press("[data-do=window]", () => window);
  press("[data-color]", ({ dataset }) => Number(dataset.color) === settings.color);
  $("stage").classList.toggle("window", window);
  $("light").open = settings.light;
  $("letters").textContent = `Keys: ${settings.keys ? "on" : "off"}`;
  $("theme").textContent = `Theme: ${settings.theme}`;
  if (settings.theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = settings.theme;
}

function slider(id, value, words) {
  const input = $(id);
  if (Number(input.value) !== value) input.value = value;
  input.setAttribute("aria-valuetext", words);
  $(`${id}-value`).textContent = words;
}

// Shows the image at hand: its name, answer and label, and what can be undone; `isFit` is
// whether the answer fits the marks.
export function showImage(entry, draft, state, { allowed, isFit }) {
  document.body.classList.toggle("empty", entry === null);
  $("name").textContent = entry === null ? "" : entry.info.name;
  $("name").title = $("name").textContent;
  document.title = entry === null ? "preceptor label" : `${entry.info.name} – preceptor label`;
  const given = entry?.info.label;
  $("given").hidden = !given;
  $("given").textContent = given ?? "";
  const answer = entry?.answer;
  $("answered").hidden = !answer;
  $("answered").textContent = answer ? (isFit ? STATES[answer.state] : "Answer again") : "";
  const label = draft.label;
  press("[data-label]", ({ dataset }) => state.labels[Number(dataset.label)] === label);
  const able = {
    undo: allowed && entry?.marks.toUndo(),
    redo: allowed && entry?.marks.toRedo(),
  };
  for (const [name, possible] of Object.entries(able)) {
    $("tools").querySelector(`[data-do=${name}]`).disabled = !possible;
  }
  for (const button of $("answers").querySelectorAll("button")) {
    button.disabled = entry === null && button.dataset.do !== "previous";
  }
}

// Shows what one click an image needs, with its keys.
export function showQuick() {
  document.body.classList.add("quick");
  for (const [name, words, key] of [
    ["next", "Next", "Enter"], ["nothing", "Nothing to mark", "N"], ["cannot", "Unsure", "U"],
    ["previous", "Back", "⌫"],
  ]) {
    const [text, cap] = $("answers").querySelector(`[data-do=${name}]`).children;
    [text.textContent, cap.textContent] = [words, key];
  }
}

export function showProgress(done, images) {
  $("done").max = Math.max(1, images);
  $("done").value = done;
  $("count").textContent = `${done} of ${images}`;
}

export function showSaved({ kind, count, reason, durable }) {
  const what = count === 1 ? "1 change" : `${count} changes`;
  const words = {
    saved: "Saved",
    saving: "Saving …",
    waiting: `${what} not saved`,
  };
  const box = $("save");
  box.dataset.kind = kind;
  box.title = reason ?? "";
  if ($("save-words").textContent !== words[kind]) $("save-words").textContent = words[kind];
  box.dataset.durable = String(durable);
}

let fading = 0;

// A line that goes by itself.
export function say(text) {
  const toast = $("toast");
  toast.textContent = text;
  toast.classList.add("on");
  clearTimeout(fading);
  fading = setTimeout(() => toast.classList.remove("on"), 3200);
}

// Takes back what was said, which may hold no longer.
export function hush() {
  $("toast").classList.remove("on");
}

export function card(title, lines = [], buttons = []) {
  const box = $("card");
  if (title === null) {
    box.hidden = true;
    box.replaceChildren();
    return;
  }
  const row = element("p", "", { class: "row" });
  for (const [words, action] of buttons) {
    const button = element("button", words, { type: "button" });
    button.addEventListener("click", action);
    row.append(button);
  }
  box.replaceChildren(element("h2", title), ...lines.map((line) => element("p", line)));
  if (buttons.length > 0) box.append(row);
  box.hidden = false;
}

// The banner: what is wrong, and what to do; the first reason that holds is shown.
export function trouble(reasons) {
  const box = $("trouble");
  const [reason] = reasons;
  box.hidden = reason === undefined;
  if (reason === undefined) return;
  const [text, button] = box.children;
  if (text.textContent !== reason.text) text.textContent = reason.text;
  button.textContent = reason.words;
  button.onclick = reason.action;
}
