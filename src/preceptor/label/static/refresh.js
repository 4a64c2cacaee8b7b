// The panels as the state of the page has them.

import { cursor, stage } from "./canvas.js";
import { fits } from "./fit.js";
import { allowed, draft, page } from "./page.js";
import { showImage, showSettings } from "./panel.js";
import { showOffer } from "./proposal.js";
import { settings } from "./settings.js";

export function showPanel() {
  showSettings(settings, { shown: page.shown, cursor: cursor.on });
  showImage(page.entry, draft(), page.state ?? { labels: [] }, {
    allowed: allowed(), isFit: page.entry !== null && fits(page.entry),
  });
  showOffer();
  stage.classList.toggle("locked", page.entry !== null && !allowed());
}
