// The page of whoever leads, on a sheet: progress, times, agreement, names, damaged images.

import { get, post } from "./api.js";
import { page } from "./page.js";
import { $, element } from "./panel.js";

const RENEW = 15_000; // milliseconds between two looks

let end = null; // closes the page while it is open

function number(value, digits = 2) {
  return typeof value === "number" ? value.toFixed(digits) : "–";
}

function table(caption, heads, rows, kind = "") {
  const box = element("div", "", {
    class: `scroll ${kind}`, tabindex: "0", role: "region", "aria-label": caption,
  });
  const made = element("table");
  const head = element("tr");
  head.append(...heads.map((text) => element("th", text, { scope: "col" })));
  const top = element("thead");
  top.append(head);
  const body = element("tbody");
  for (const [name, ...cells] of rows) {
    const row = element("tr");
    row.append(element("th", name, { scope: "row" }), ...cells.map((text) => element("td", text)));
    body.append(row);
  }
  made.append(top, body);
  box.append(made);
  return [element("h3", caption), box];
}

function tiles(pairs) {
  const list = element("dl", "", { class: "figures" });
  for (const [name, value] of pairs) {
    const one = element("div");
    one.append(element("dt", name), element("dd", value));
    list.append(one);
  }
  return list;
}

function content({ images, done, people, sources, pairs, problems, damaged }) {
  const some = (given, ...parts) => (given ? table(...parts) : []);
  const agreement = "Agreement of two people";
  const none = element("p", "No image has been answered by two people.", { class: "none" });
  return [
    tiles([
      ["Images", String(images)], ["Finished", String(done)],
      ["People", String(people.length)], ["Damaged", String(damaged)],
    ]),
    ...table(
      "People",
      ["Name", "Answered", "Marked", "Nothing", "Cannot judge", "Skipped", "Minutes per image"],
      people.map((one) => [
        one.name, one.done, one.marked, one.nothing, one.cannot_judge, one.skipped,
        number(one.minutes),
      ]),
    ),
    ...some(
      sources.length > 1 || sources.some(({ source }) => source !== ""), "Sources",
      ["Source", "Images", "Finished", "Minutes per image"],
      sources.map((one) => [one.source || "not named", one.images, one.done, number(one.minutes)]),
    ),
    ...(pairs.length > 0 ? [] : [element("h3", agreement), none]),
    ...some(
      pairs.length > 0, agreement,
      ["People", "Images of both", "Dice", "IoU", "Both marked nothing"],
      pairs.map((one) => [
        `${one.a} and ${one.b}`, one.images, number(one.dice), number(one.iou), one.empty,
      ]),
    ),
    ...some(
      problems.length > 0, "Images that cannot be shown", ["Image", "Reason"],
      problems.map((one) => [one.name, one.problem]), "words",
    ),
  ];
}

// Shows new content. A table that is there stays, with the focus and how far it is scrolled; only its
// rows are new.
function renewContent(rest, made) {
  const named = (one) => one.getAttribute("aria-label");
  const tables = [...rest.querySelectorAll(".scroll")];
  const kept = made.map((one) => tables.find((box) => named(box) === named(one)) ?? one);
  for (const old of [...rest.children]) if (!kept.includes(old)) old.remove();
  let at = rest.firstChild;
  for (const [place, one] of kept.entries()) {
    if (one !== made[place]) one.replaceChildren(...made[place].childNodes);
    if (one === at) at = at.nextSibling;
    else rest.insertBefore(one, at);
  }
}

// Keeps what the page covers from keys and assistive technology, or gives it back.
function cover(box, covered) {
  const outside = document.querySelectorAll(".jump, #tools, aside");
  for (const one of [...outside, ...box.parentElement.children]) {
    if (one !== box) one.inert = covered;
  }
}

export function closeSheet() {
  end?.();
}

// Opens a sheet over the page, in place of another one: {problem, rest} for what it shows.
// `closed` is called at its end.
export function openSheet(title, closed = () => {}) {
  closeSheet();
  const box = $("lead");
  const top = element("div", "", { class: "top" });
  const close = element("button", "Back to the image", { type: "button" });
  top.append(element("h2", title), close);
  const problem = element("p", "", { role: "status" });
  const rest = element("div");
  box.replaceChildren(top, problem, rest);
  box.setAttribute("aria-label", title);
  box.hidden = false;
  cover(box, true);
  end = () => {
    end = null;
    closed();
    box.hidden = true;
    box.replaceChildren();
    cover(box, false);
    $("stage").focus();
  };
  close.addEventListener("click", closeSheet);
  box.onkeydown = (event) => {
    if (event.key === "Escape") closeSheet();
  };
  close.focus();
  return { problem, rest };
}

// A form that renames a person; `renew` shows what has become of it.
function renaming(renew) {
  const form = element("form", "", { class: "row", "aria-label": "Rename" });
  const who = element("select", "", { "aria-label": "Person" });
  const name = element("input", "", { "aria-label": "New name", placeholder: "New name", maxlength: "60" });
  const button = element("button", "Rename", { type: "submit" });
  const said = element("p", "", { role: "alert" });
  form.append(who, name, button, said);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    said.textContent = "";
    try {
      const tab = page.outbox.tab;
      await post("/api/people", { tab, person: Number(who.value), name: name.value });
      name.value = "";
    } catch (failure) {
      said.textContent = `${failure.message}.`;
    }
    await renew();
  });
  const fill = (people) => {
    const chosen = who.value;
    who.replaceChildren(...people.map((one) => element("option", one.name, { value: one.id })));
    if (people.some((one) => String(one.id) === chosen)) who.value = chosen;
  };
  return { form, fill };
}

export async function showLead() {
  let shown = "";
  const { problem, rest } = openSheet("Progress", () => clearInterval(timer));
  const renew = async () => {
    try {
      const told = await get("/api/lead");
      const text = JSON.stringify(told);
      if (text !== shown) {
        renewContent(rest, content(told));
        fill(told.people);
      }
      shown = text;
      problem.textContent = "";
    } catch (failure) {
      problem.textContent = `The current figures could not be loaded: ${failure.message}.`;
    }
  };
  const { form, fill } = renaming(renew);
  rest.after(element("h3", "Rename a person"), form);
  const timer = setInterval(renew, RENEW);
  await renew();
}
