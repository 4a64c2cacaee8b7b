// The panels as the state of the page has them.

import { cursor, stage } from "./canvas.js";
import { fits } from "./fit.js";
import { allowed, draft, page } from "./page.js";
import { showImage, showProgress, showSettings } from "./panel.js";
import { showOffer } from "./proposal.js";
import { settings } from "./settings.js";

export function showPanel() {
  showSettings(settings, { shown: page.shown, cursor: cursor.on });
  const own = draft();
  const given = page.entry?.answer;
  const said = {
    label: own.label ?? given?.label,
    certainty: own.certainty ?? given?.certainty,
  };
  showImage(page.entry, said, page.state ?? { labels: [] }, {
    allowed: allowed(), isFit: page.entry !== null && fits(page.entry),
  });
  showOffer();
  stage.classList.toggle("locked", page.entry !== null && !allowed());
}

export function showTotals() {
  const { mine_done: done, mine_open: open } = page.state.totals;
  page.state.mine ??= done + open;
  // Images that were handed to others may come back, and count then.
  showProgress(done, Math.max(page.state.mine, done));
}
