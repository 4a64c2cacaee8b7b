"use strict";
// The page is complete without this: it adds the slider over the maps, the filters and the sorting.
for (const section of document.querySelectorAll(".looks")) {
  const panels = [...section.querySelectorAll(".panel")];
  const names = [...panels[0].querySelectorAll(".tile")].map((tile) => tile.dataset.name);

  const show = (panel, place) => {
    panel.querySelectorAll(".tile").forEach((tile, index) => {
      if (index) tile.style.opacity = Math.max(0, 1 - Math.abs(place - index));
    });
    const [low, high] = [Math.floor(place), Math.ceil(place)];
    const words = low === high ? names[low] : `${names[low]} to ${names[high]}`;
    panel.querySelector("output").textContent = words;
    const slider = panel.querySelector("input");
    slider.value = place;
    slider.setAttribute("aria-valuetext", words);
  };
  for (const panel of panels) {
    panel.classList.add("live");
    const slider = panel.querySelector("input");
    slider.addEventListener("input", () => show(panel, Number(slider.value)));
  }

  const bar = section.querySelector(".filters");
  bar.hidden = false;
  const together = bar.querySelector("input[type=range]");
  const all = () => {
    for (const panel of panels) show(panel, Number(together.value));
    together.setAttribute("aria-valuetext", panels[0].querySelector("output").textContent);
  };
  together.addEventListener("input", all);
  all();
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
