// The images with their marks, on a sheet: filters, search, and people's marks side by side for
// whoever leads, who settles what they disagree about.

import { get, post } from "./api.js";
import { closeSheet, openSheet } from "./lead.js";
import { levelsOf } from "./levels.js";
import { Mask } from "./mask.js";
import { paint } from "./overlay.js";
import { page } from "./page.js";
import { $, STATES, element } from "./panel.js";
import { fromBase64 } from "./runs.js";
import { settings } from "./settings.js";

const FILTERS = {
  "": "All", open: "Open", one: "Answered by one", low: "Low agreement", unsure: "Unsure",
  noted: "Noted", changed: "Changed",
};
const SURE = [null, "unsure", "fairly sure", "sure"];
const LARGE = 1024; // pixels of a side where marks are compared
const asked = { filter: "", search: "" }; // kept while the page is open

// A small picture with the marks of some people; where there are several, each has a color.
function thumbnail(cell, people, side) {
  const box = element("span", "", { class: "thumb" });
  if (cell.problem) {
    box.append(element("span", cell.problem, { class: "none" }));
    return box;
  }
  const source = `/api/images/${cell.id}/small?side=${side}&version=${cell.version}`;
  const picture = element("img", "", { alt: "", loading: "lazy", src: source });
  const canvas = element("canvas", "", { "aria-hidden": "true" });
  box.append(picture, canvas);
  picture.addEventListener("load", () => {
    if (settings.auto) picture.style.filter = levelsOf(picture);
    const { naturalWidth: width, naturalHeight: height } = picture;
    const scale = Math.max(1, Math.ceil(side / Math.max(width, height)));
    [canvas.width, canvas.height] = [width * scale, height * scale];
    const layers = people.flatMap(({ frame: [wide, high], marks }, at) =>
      marks.map((mark) => {
        const mask = new Mask(wide, high);
        mask.apply({ ...mark, bytes: fromBase64(mark.runs), erase: false });
        const color = settings.color + (people.length > 1 ? at : page.state.classes.indexOf(mark.class));
        return { mask, live: null, erase: false, color };
      }),
    );
    if (layers.length === 0) return;
    const view = { scale: canvas.width / layers[0].mask.width, x: 0, y: 0 };
    const all = { x: 0, y: 0, w: canvas.width, h: canvas.height };
    paint(canvas.getContext("2d"), view, layers, all, settings.opacity / 100);
  });
  return box;
}

function answerWords({ state, fits, certainty, label }) {
  if (state === null) return "Not answered";
  const words = [fits ? STATES[state] : "Answer again", label, SURE[certainty ?? 0]];
  return words.filter(Boolean).join(", ");
}

function chips(cell) {
  const list = [];
  const judged = cell.people.filter((one) => one.state !== null);
  if (judged.length === 1) list.push(answerWords(judged[0]));
  if (judged.length > 1) list.push(`${judged.length} people`);
  if (cell.agreement !== null && cell.agreement !== undefined) {
    list.push(`Dice ${cell.agreement.toFixed(2)}`);
  }
  const chosen = cell.people.find(({ id }) => id === cell.settled);
  if (chosen !== undefined) list.push(`${chosen.name} chosen`);
  const notes = cell.people.filter(({ note }) => note).map(({ note }) => `“${note}”`);
  return [...list, ...new Set(notes)];
}

function jump(id) {
  closeSheet();
  if (page.entry?.id !== id) window.location.hash = `#${id}`;
}

export async function showGrid() {
  if (page.work === null) return;
  const { problem, rest } = openSheet("Images", () => (open = false));
  let [open, call, cells, total] = [true, 0, [], 0];
  const bar = element("div", "", { class: "row bar", role: "group", "aria-label": "Filter" });
  const search = element("input", "", {
    type: "search", placeholder: "Search by name", "aria-label": "Search by name",
  });
  const count = element("p", "", { class: "none", role: "status" });
  const grid = element("div", "", { class: "grid" });
  const more = element("button", "Show more", { type: "button" });
  search.value = asked.search;
  for (const [filter, words] of Object.entries(FILTERS)) {
    const button = element("button", words, { type: "button", "data-filter": filter });
    button.addEventListener("click", () => {
      asked.filter = filter;
      renew();
    });
    bar.append(button);
  }
  bar.append(search);

  async function ask(after) {
    call += 1;
    const own = call;
    const query = new URLSearchParams({ ...asked, after });
    try {
      const told = await get(`/api/grid?${query}`);
      if (!open || own !== call) return;
      problem.textContent = "";
      cells = [...cells.slice(0, after), ...told.images];
      total = told.total;
      if (!told.everybody) {
        bar.querySelector("[data-filter=low]").hidden = true;
        bar.querySelector("[data-filter=one]").textContent = "Answered";
      }
      const made = told.images.map((cell, at) => cellOf(cell, after + at));
      if (after === 0) grid.replaceChildren(...made);
      else grid.append(...made);
      count.textContent = total === 1 ? "1 image" : `${total} images`;
      more.hidden = cells.length >= total;
    } catch (failure) {
      if (open) problem.textContent = `The images could not be loaded: ${failure.message}.`;
    }
  }

  function cellOf(cell, at) {
    const button = element("button", "", { type: "button", class: "cell" });
    button.append(thumbnail(cell, cell.people, 256), element("strong", cell.name));
    const words = element("span", "", { class: "chips" });
    words.append(...chips(cell).map((text) => element("span", text, { class: "chip" })));
    button.append(words);
    button.setAttribute("aria-current", String(cell.id === page.entry?.id));
    const several = cell.people.filter(({ state }) => state === "marked" || state === "nothing");
    button.addEventListener("click", () => (several.length > 1 ? compare(at) : jump(cell.id)));
    return button;
  }

  function renew() {
    for (const button of bar.querySelectorAll("button")) {
      button.setAttribute("aria-pressed", String(button.dataset.filter === asked.filter));
    }
    return ask(0);
  }

  // Shows what people have marked on an image side by side.
  async function compare(at) {
    const { id } = cells[at];
    call += 1; // ends what is under way
    const own = call;
    let cell;
    try {
      ({ images: [cell] } = await get(`/api/grid?image=${id}&side=${LARGE}`));
    } catch (failure) {
      problem.textContent = `The image is not here: ${failure.message}.`;
      return;
    }
    if (!open || own !== call || cell === undefined) return;
    const box = element("div", "", { class: "sides" });
    const settle = async (person) => {
      try {
        await post(`/api/images/${id}/settle`, { tab: page.outbox.tab, person });
        if (own === call) await compare(at);
      } catch (failure) {
        problem.textContent = `This is not saved: ${failure.message}.`;
      }
    };
    cell.people.forEach((one, place) => {
      const side = element("figure");
      const words = element("figcaption");
      const minutes = one.seconds === null ? "" : `${(one.seconds / 60).toFixed(1)} min`;
      const said = [answerWords(one), minutes, one.note && `“${one.note}”`].filter(Boolean);
      words.append(element("strong", one.name), element("span", said.join(" · ")));
      side.append(words, thumbnail(cell, [one], LARGE));
      if (one.state === "marked" || one.state === "nothing") {
        const chosen = cell.settled === one.id;
        const button = element("button", chosen ? "Chosen for export " : "Choose for export ", {
          type: "button", "data-settle": place, "aria-pressed": String(chosen),
        });
        button.append(element("kbd", String(place + 1)));
        button.addEventListener("click", () => settle(chosen ? null : one.id));
        side.append(button);
      }
      box.append(side);
    });
    const row = element("div", "", { class: "row bar" });
    const named = (words, action, off = false) => {
      const button = element("button", words, { type: "button" });
      button.addEventListener("click", action);
      button.disabled = off;
      row.append(button);
      return button;
    };
    const back = named("All images", leave);
    named("Previous", () => step(-1), at === 0);
    named("Next", () => step(1), at === cells.length - 1);
    named("Open to mark", () => jump(id));
    const dice = cell.agreement === null ? [] : [`Dice ${cell.agreement.toFixed(2)}`];
    row.append(element("strong", [cell.name, ...dice].join(" · ")));
    const step = (way) => cells[at + way] !== undefined && compare(at + way);
    rest.replaceChildren(row, box);
    rest.onkeydown = (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
      if (event.key === "Escape") leave();
      else if (event.key === "ArrowLeft") step(-1);
      else if (event.key === "ArrowRight") step(1);
      else box.querySelector(`[data-settle="${Number(event.key) - 1}"]`)?.click();
      event.stopPropagation();
    };
    back.focus();
  }

  async function leave() {
    begin();
    await ask(0);
    search.focus();
  }

  function begin() {
    rest.replaceChildren(bar, count, grid, more);
    rest.onkeydown = (event) => {
      const way = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      const at = [...grid.children].indexOf(document.activeElement);
      if (way !== undefined && at >= 0) grid.children[at + way]?.focus();
    };
  }

  more.hidden = true;
  more.addEventListener("click", () => ask(cells.length));
  search.addEventListener("input", () => {
    asked.search = search.value.trim();
    renew();
  });
  begin();
  await renew();
  if (open) ($("lead").querySelector("[aria-current=true]") ?? search).focus();
}
