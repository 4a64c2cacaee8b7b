// Sign-in by name: a person picks a name that is there, or writes a new one.

import { get, post } from "./api.js";
import { element } from "./panel.js";

// Fills a card with the names, and calls `chosen` after the server has accepted one.
export function askName(box, people, chosen) {
  const form = element("form");
  const problem = element("p", "", { class: "problem", role: "alert" });
  const take = async (name) => {
    try {
      await post("/api/person", { name });
      chosen(await get("/api/state"));
    } catch (failure) {
      problem.textContent = failure.message;
    }
  };
  const title = element("h2", "Who is marking?");
  const lines = element("p", "Marks are kept apart by name. Nobody sees those of another person.");
  form.append(title, lines);
  if (people.length > 0) {
    const list = element("div", "", { class: "names", role: "group", "aria-label": "Names" });
    for (const name of people) {
      const button = element("button", name, { type: "button" });
      button.addEventListener("click", () => take(name));
      list.append(button);
    }
    form.append(list);
  }
  const field = element("p", "", { class: "field" });
  const label = people.length > 0 ? "Another name" : "Your name";
  const input = element("input", "", {
    id: "person", name: "person", maxlength: "60", required: "", autocomplete: "name",
  });
  field.append(element("label", label, { for: "person" }), input);
  field.append(element("button", "Begin", { type: "submit", class: "main" }));
  form.append(field, problem);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const name = input.value.trim();
    if (name !== "") take(name);
  });
  box.replaceChildren(form);
  box.hidden = false;
  input.focus();
}
