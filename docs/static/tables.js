/* Tables that are wider than the page scroll, and only these are stops of the keyboard. */
document.addEventListener("DOMContentLoaded", () => {
  const seen = new ResizeObserver((entries) => {
    for (const { target } of entries)
      if (target.scrollWidth > target.clientWidth) target.tabIndex = 0;
      else target.removeAttribute("tabindex");
  });
  for (const one of document.querySelectorAll(".table-wrapper")) seen.observe(one);
});
