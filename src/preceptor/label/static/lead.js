// The page of whoever leads: progress, times, agreement, damaged images.

import { get } from "./api.js";
import { element } from "./panel.js";

const RENEW = 15_000; // milliseconds between two looks

let end = null; // closes the page while it is open

function number(value, digits = 2) {
  return typeof value === "number" ? value.toFixed(digits) : "–";
}

// A table with a caption, heads and rows of text; the first cell of a row names it.
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

function content(told) {
  const { images, done, people, sources, pairs, problems } = told;
  const found = [
    tiles([
      ["Images", String(images)],
      ["Finished", String(done)],
      ["People", String(people.length)],
      ["Damaged", String(problems.length)],
    ]),
    ...table(
      "People",
      ["Name", "Answered", "Marked", "Nothing", "Cannot judge", "Skipped", "Minutes an image"],
      people.map((one) => [
        one.name, one.done, one.marked, one.nothing, one.cannot_judge, one.skipped,
        number(one.minutes),
      ]),
    ),
  ];
  if (sources.length > 1 || sources.some(({ source }) => source !== "")) {
    found.push(
      ...table(
        "Sources",
        ["Source", "Images", "Finished", "Minutes an image"],
        sources.map((one) => [one.source || "not named", one.images, one.done, number(one.minutes)]),
      ),
    );
  }
  if (pairs.length > 0) {
    found.push(
      ...table(
        "Agreement of two people",
        ["People", "Images of both", "Dice", "IoU", "Both marked nothing"],
        pairs.map((one) => [
          `${one.a} and ${one.b}`, one.images, number(one.dice), number(one.iou), one.empty,
        ]),
      ),
    );
  } else {
    found.push(
      element("h3", "Agreement of two people"),
      element("p", "No image has been answered by two people.", { class: "none" }),
    );
  }
  if (problems.length > 0) {
    found.push(
      ...table(
        "Images that cannot be shown", ["Image", "Reason"],
        problems.map((one) => [one.name, one.problem]), "words",
      ),
    );
  }
  return found;
}

// Shows new content. A table that is there stays, with the focus and how far it is scrolled; only its
// rows are new.
function renewContent(rest, made) {
  const named = (one) => one.getAttribute("aria-label");
  const tables = [...rest.querySelectorAll(".scroll")];
  let at = rest.firstChild;
  for (const one of made) {
    const there = tables.find((box) => named(box) === named(one));
    if (there === undefined) {
      rest.insertBefore(one, at);
      continue;
    }
    while (at !== there) {
      const old = at;
      at = at.nextSibling;
      old.remove();
    }
    there.replaceChildren(...one.childNodes);
    at = there.nextSibling;
  }
  while (at !== null) {
    const old = at;
    at = at.nextSibling;
    old.remove();
  }
}

// Keeps what the page covers from keys and assistive technology, or gives it back.
function cover(box, covered) {
  const outside = document.querySelectorAll(".jump, #tools, aside");
  for (const one of [...outside, ...box.parentElement.children]) {
    if (one !== box) one.inert = covered;
  }
}

// Closes the page, if it is open.
export function closeLead() {
  end?.();
}

// Shows the page in place of the image until it is closed.
export async function showLead(box, closed) {
  const top = element("div", "", { class: "top" });
  const close = element("button", "Back to the image", { type: "button" });
  top.append(element("h2", "Progress"), close);
  const problem = element("p", "", { role: "status" });
  const rest = element("div");
  box.replaceChildren(top, problem, rest);
  box.hidden = false;
  cover(box, true);
  let shown = "";
  const renew = async () => {
    try {
      const told = await get("/api/lead");
      const text = JSON.stringify(told);
      if (text !== shown) renewContent(rest, content(told));
      shown = text;
      problem.textContent = "";
    } catch (failure) {
      problem.textContent = `The present figures are not here: ${failure.message}.`;
    }
  };
  const timer = setInterval(renew, RENEW);
  end = () => {
    end = null;
    clearInterval(timer);
    box.hidden = true;
    box.replaceChildren();
    cover(box, false);
    closed();
  };
  close.addEventListener("click", closeLead);
  box.onkeydown = (event) => {
    if (event.key === "Escape") closeLead();
  };
  close.focus();
  await renew();
}
