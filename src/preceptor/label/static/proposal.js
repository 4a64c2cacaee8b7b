// The proposal for the image at hand: a given map, cut at a level that the person chooses.

import { get } from "./api.js";
import { Mask } from "./mask.js";
import { allowed, page } from "./page.js";
import { $ } from "./panel.js";
import { fromBase64 } from "./runs.js";
import { change, settings } from "./settings.js";

export function proposalNow() {
  const { entry } = page;
  const given = entry?.info.proposal;
  if (!given || entry.declined) return null;
  if (entry.marks.strokes.some((one) => one.proposal !== null && !one.undone)) return null;
  if (entry.proposal?.id !== given.id) {
    const mask = new Mask(entry.info.width, entry.info.height);
    const bytes = fromBase64(given.runs);
    if (given.w > 0) mask.apply({ ...given, bytes, erase: false });
    entry.proposal = { id: given.id, mask, bytes };
    if (given.w > 0) entry.seen = given.id;
  }
  return entry.proposal;
}

export function showOffer() {
  const given = page.shown && allowed() ? proposalNow() : null;
  $("offer").hidden = given === null;
  if (given === null) return;
  const { level, w } = page.entry.info.proposal;
  $("offer-words").textContent = w > 0 ? "Dashed: a proposal." : "Nothing is proposed at this level.";
  $("offer").querySelector("[data-do=adopt]").disabled = w === 0;
  if (document.activeElement !== $("level")) $("level").value = settings.level;
  $("level-value").textContent = `${level} %`;
}

// Asks for the proposal at another level; of several levels in a row, the last one is shown.
export async function cut(level, show) {
  change({ level });
  const { entry } = page;
  if (!entry?.info.proposal) return;
  const { proposal } = await get(`/api/images/${entry.id}?level=${level}`).catch(() => ({}));
  if (!proposal || page.entry !== entry || settings.level !== level) return;
  entry.info.proposal = proposal;
  show();
}
