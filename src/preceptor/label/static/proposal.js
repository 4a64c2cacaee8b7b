// The proposal of a Teacher for the image at hand.

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
  const proposal = page.shown && allowed() ? proposalNow() : null;
  $("offer").hidden = proposal === null;
  if (proposal === null) return;
  const { images, agreement } = page.entry.info.proposal;
  const made = images === 0 ? "" : ` of a Teacher trained on ${images} images`;
  const agrees =
    typeof agreement === "number" ? `; agreement with people ${agreement.toFixed(2)}` : "";
  $("offer").firstElementChild.textContent = `Dashed: a proposal${made}${agrees}.`;
}

export function noProposal() {
  const { teacher, proposals, least_overlap: least } = page.state;
  const agreement = teacher?.agreement;
  if (proposals === "never" || typeof agreement !== "number" || agreement >= least) {
    return "There is no proposal here.";
  }
  return `There is no proposal here: the Teacher's agreement with people, ${agreement.toFixed(2)}, is below ${least.toFixed(2)}.`;
}
