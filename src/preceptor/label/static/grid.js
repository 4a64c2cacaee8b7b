// The images with the person's own marks, on a sheet.

import { get } from "./api.js";
import { levelsOf } from "./levels.js";
import { Mask } from "./mask.js";
import { paint } from "./overlay.js";
import { page } from "./page.js";
import { $, STATES, element } from "./panel.js";
import { fromBase64 } from "./runs.js";
import { settings } from "./settings.js";
import { closeSheet, openSheet } from "./sheet.js";

const FILTERS = { "": "All", open: "Open", answered: "Answered" };
const SIDE = 256; // pixels of the longer side of a small picture

// A small picture with the mark.
function thumbnail({ id, version, problem, frame, mark }) {
  const box = element("span", "", { class: "thumb" });
  if (problem) {
    box.append(element("span", problem, { class: "none" }));
    return box;
  }
  const source = `/api/images/${id}/small?version=${version}`;
  const picture = element("img", "", { alt: "", loading: "lazy", src: source });
  const canvas = element("canvas", "", { "aria-hidden": "true" });
  box.append(picture, canvas);
  picture.addEventListener("load", () => {
    if (settings.auto) picture.style.filter = levelsOf(picture);
    const { naturalWidth: width, naturalHeight: height } = picture;
    const scale = Math.max(1, Math.ceil(SIDE / Math.max(width, height)));
    [canvas.width, canvas.height] = [width * scale, height * scale];
    if (mark === null) return;
    const mask = new Mask(frame[0], frame[1]);
    mask.apply({ ...mark, bytes: fromBase64(mark.runs), erase: false });
    const layers = [{ mask, live: null, erase: false, color: settings.color }];
    const view = { scale: canvas.width / frame[0], x: 0, y: 0 };
    const all = { x: 0, y: 0, w: canvas.width, h: canvas.height };
    paint(canvas.getContext("2d"), view, layers, all, settings.opacity / 100);
  });
  return box;
}

function cellOf(cell) {
  const button = element("button", "", { type: "button", class: "cell" });
  button.append(thumbnail(cell), element("strong", cell.name));
  if (cell.state !== null) {
    const words = cell.fits ? STATES[cell.state] : "Answer again";
    button.append(element("span", words, { class: "chip" }));
  }
  button.setAttribute("aria-current", String(cell.id === page.entry?.id));
  button.addEventListener("click", () => {
    closeSheet();
    if (page.entry?.id !== cell.id) window.location.hash = `#${cell.id}`;
  });
  return button;
}

export async function showGrid() {
  if (page.work === null) return;
  const { problem, rest } = openSheet("Images", () => (open = false));
  let [open, filter, call, shown] = [true, "", 0, 0];
  const bar = element("div", "", { class: "row bar", role: "group", "aria-label": "Filter" });
  const count = element("p", "", { class: "none", role: "status" });
  const grid = element("div", "", { class: "grid" });
  const more = element("button", "Show more", { type: "button" });

  async function ask(after) {
    call += 1;
    const own = call;
    for (const button of bar.querySelectorAll("button")) {
      button.setAttribute("aria-pressed", String(button.dataset.filter === filter));
    }
    try {
      const { total, images } = await get(`/api/grid?filter=${filter}&after=${after}`);
      if (!open || own !== call) return;
      problem.textContent = "";
      shown = after + images.length;
      if (after === 0) grid.replaceChildren();
      grid.append(...images.map(cellOf));
      count.textContent = total === 1 ? "1 image" : `${total} images`;
      more.hidden = shown >= total;
    } catch (failure) {
      if (open) problem.textContent = `The images could not be loaded: ${failure.message}.`;
    }
  }

  for (const [name, words] of Object.entries(FILTERS)) {
    const button = element("button", words, { type: "button", "data-filter": name });
    button.addEventListener("click", () => {
      filter = name;
      ask(0);
    });
    bar.append(button);
  }
  more.addEventListener("click", () => ask(shown));
  rest.replaceChildren(bar, count, grid, more);
  await ask(0);
  if (open) ($("sheet").querySelector("[aria-current=true]") ?? bar.firstChild).focus();
}
