/* Choice of the version in the sidebar, and a note on pages of an older one. The list siteVersions is
   written beside the versions by docs/site_versions.py; without it nothing is shown. */
(() => {
  const { root, version, page } = document.currentScript.dataset;
  const versions = window.siteVersions ?? [];
  if (!versions.some(({ name }) => name === version)) return;

  const address = ({ name, pages }) =>
    `${root}${name}/${pages.includes(page) ? page : "index"}.html`;
  const box = document.querySelector(".versions");
  const select = box.querySelector("select");
  for (const one of versions)
    select.add(new Option(one.name, address(one), false, one.name === version));
  select.addEventListener("change", () => location.assign(select.value));
  box.hidden = versions.length < 2;

  const [newest] = versions;
  if (newest.name === version) return;
  const note = document.createElement("p");
  note.className = "older-version";
  note.append(`This page is about version ${version}. `);
  const link = document.createElement("a");
  link.href = address(newest);
  link.textContent = `The newest is ${newest.name}.`;
  note.append(link);
  addEventListener("DOMContentLoaded", () => document.querySelector("article").prepend(note));
})();
