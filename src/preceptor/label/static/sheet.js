// A sheet over the page.

import { $, element } from "./panel.js";

let end = null; // closes the sheet while it is open

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
  const box = $("sheet");
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
