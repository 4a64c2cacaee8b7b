// The proposal for the image at hand.

import { Mask } from "./mask.js";
import { allowed, page } from "./page.js";
import { $ } from "./panel.js";
import { fromBase64 } from "./runs.js";

export function proposalNow() {
  const given = page.entry?.info.proposal;
  if (!given || page.entry.declined === given.id) return null;
  if (page.entry.marks.strokes.some((one) => one.proposal === given.id && !one.undone)) return null;
  if (page.entry.proposal?.id !== given.id) {
    const mask = new Mask(page.entry.info.width, page.entry.info.height);
    const bytes = fromBase64(given.runs);
    mask.apply({ ...given, bytes, erase: false });
    page.entry.proposal = { id: given.id, mask, bytes };
    page.entry.seen = given.id;
  }
  return page.entry.proposal;
}

export function showOffer() {
  $("offer").hidden = !page.shown || !allowed() || proposalNow() === null;
}
