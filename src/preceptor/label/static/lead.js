// The page of whoever leads: progress, times, agreement, honeypots, damaged images.

import { get } from "./api.js";
import { element } from "./panel.js";

const RENEW = 15_000; // milliseconds between two looks

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

function knownOf({ honeypots, honeypots_found, honeypots_iou }) {
  return [honeypots ? `${honeypots_found} of ${honeypots}` : "–", number(honeypots_iou)];
}

function content(told) {
  const { images, done, people, sources, pairs, problems } = told;
  const known = people.some((one) => one.honeypots > 0);
  const found = [
    tiles([
      ["Images", String(images)],
      ["Finished", String(done)],
      ["People", String(people.length)],
      ["Damaged", String(problems.length)],
    ]),
    ...table(
      "People",
      ["Name", "Answered", "Marked", "Nothing", "Cannot judge", "Skipped", "Minutes an image", ...(known ? ["Known marks found", "IoU with them"] : [])],
      people.map((one) => [
        one.name, one.done, one.marked, one.nothing, one.cannot_judge, one.skipped,
        number(one.minutes), ...(known ? knownOf(one) : []),
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

// Shows the page in place of the image until it is closed.
export async function showLead(box, closed) {
  const top = element("div", "", { class: "top" });
  const close = element("button", "Back to the image", { type: "button" });
  top.append(element("h2", "Progress"), close);
  const rest = element("div");
  box.replaceChildren(top, rest);
  box.hidden = false;
  const renew = async () => {
    try {
      rest.replaceChildren(...content(await get("/api/lead")));
    } catch (failure) {
      rest.replaceChildren(element("p", `The figures are not here: ${failure.message}.`));
    }
  };
  const timer = setInterval(renew, RENEW);
  const end = () => {
    clearInterval(timer);
    box.hidden = true;
    box.replaceChildren();
    closed();
  };
  close.addEventListener("click", end);
  box.onkeydown = (event) => {
    if (event.key === "Escape") end();
  };
  close.focus();
  await renew();
}
