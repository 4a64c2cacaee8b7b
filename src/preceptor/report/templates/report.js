"use strict";
// The page is complete without this: it adds the filters and the sorting.
for (const section of document.querySelectorAll(".filtered")) {
  const panels = [...section.querySelectorAll(".panel")];
  const bar = section.querySelector(".filters");
  bar.hidden = false;
  const choices = [...bar.querySelectorAll("select")];
  const fits = {
    source: (panel, value) => panel.dataset.source === value,
    outcome: (panel, value) => panel.dataset.outcome === value,
    agreement: (panel, value) => {
      const found = panel.dataset.agreement;
      if (value === "none") return found === "";
      return found !== "" && (value === "high" ? Number(found) >= 0.5 : Number(found) < 0.5);
    },
  };
  const filter = () => {
    for (const panel of panels) {
      panel.hidden = choices.some((one) => one.value && !fits[one.name](panel, one.value));
    }
    const left = panels.filter((panel) => !panel.hidden).length;
    bar.querySelector(".count").textContent = `${left} of ${panels.length} images`;
  };
  for (const one of choices) one.addEventListener("change", filter);
  filter();
}

let folded = [];
addEventListener("beforeprint", () => {
  folded = [...document.querySelectorAll("details:not([open])")];
  for (const one of folded) one.open = true;
});
addEventListener("afterprint", () => {
  for (const one of folded) one.open = false;
});

for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const falling = head.getAttribute("aria-sort") !== "descending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", falling ? "descending" : "ascending");
      const text = (row) => row.cells[column].textContent.replace("▲", "").replace("−", "-").trim();
      const number = (row) => Number.parseFloat(text(row).replace(/(\d),(?=\d{3})/g, "$1"));
      const sign = falling ? -1 : 1;
      const byName = (a, b) => sign * text(a).localeCompare(text(b), "en", { numeric: true });
      const byNumber = (a, b) => {
        const [one, other] = [number(a), number(b)];
        if (Number.isNaN(one) || Number.isNaN(other)) return Number.isNaN(one) - Number.isNaN(other);
        return sign * (one - other); // what has no number stays below
      };
      const rows = [...table.tBodies[0].rows];
      table.tBodies[0].append(...rows.sort(column ? byNumber : byName));
    });
  });
}
