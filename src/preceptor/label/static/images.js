// The image at hand: the next one, the one before, and what is shown where there is none.

import { post } from "./api.js";
import { cursor, draw, finish, stage, view } from "./canvas.js";
import { claim, showTrouble } from "./claims.js";
import { isDone, page } from "./page.js";
import { card, hush, say } from "./panel.js";
import { showPanel, showTotals } from "./refresh.js";
import { look, lookAway } from "./seen.js";

export function inAddress() {
  return Number(/^#(\d+)$/.exec(window.location.hash)?.[1] ?? 0);
}

export function setAddress(id) {
  window.history.replaceState(null, "", id === null ? "#" : `#${id}`);
}

// Shows the image of a link that was opened on the page. Where that cannot be, the address names the
// image at hand again.
export async function follow() {
  if (page.work === null) return; // it is the first image of the person who is being asked for
  const id = inAddress();
  const isOther = id > 0 && id !== page.entry?.id;
  if (isOther && page.moving) say("Another image is on its way: open the link again.");
  else if (isOther && finish()) await show(id);
  setAddress(page.entry?.id ?? null);
}

export async function show(id, { back = false } = {}) {
  const { work } = page;
  if (page.moving || work === null) return;
  page.moving = true;
  stage.setAttribute("aria-busy", "true");
  try {
    const next = id === null ? null : await work.load(id);
    if (page.work !== work) return; // another person is being asked for
    leave(back);
    page.entry = next;
    card(null);
    setAddress(id);
    document.body.dataset.image = id ?? "";
    if (page.entry === null) showEnd();
    else if (page.entry.problem) showDamaged();
    else view.show(page.entry.picture);
    if (next) Object.assign(next, { fresh: false, kept: false }); // it was loaded ahead
  } catch (failure) {
    say(`The image is not here: ${failure.message}.`);
  } finally {
    page.moving = false;
    stage.removeAttribute("aria-busy");
  }
  showTrouble();
  showPanel();
  look();
  const { entry } = page;
  if (entry !== null && !entry.problem) {
    claim().then(() => page.entry === entry && entry.problem && showDamaged());
  }
  if (entry !== null) page.work.ahead(entry.id);
}

// Tells the server that this tab is left: what it keeps for the person may be handed out to others.
export async function giveBack() {
  if (page.entry === null || page.wrong.session) return;
  const body = { tab: page.outbox.tab, close: true };
  await post(`/api/images/${page.entry.id}/open`, body, { keepalive: true }).catch(() => {});
}

export function leave(back) {
  draw.cancel();
  hush();
  lookAway();
  if (cursor.on) cursor.toggle();
  if (page.entry !== null && !back) page.work.past.push(page.entry.id);
}

async function showEnd() {
  view.show(null);
  let title = "That was the last image.";
  const buttons = [["Previous image", previous]];
  card(title, [], buttons);
  const nothing = { hidden: 0, problems: [], reserved: 0 };
  const { work } = page;
  const { hidden, problems, reserved } = await work.rest().catch(() => nothing);
  if (page.entry !== null || page.work !== work) return;
  const lines = [];
  if (reserved > 0) {
    title = "There is no image for you now.";
    const what = reserved === 1 ? "1 image is" : `${reserved} images are`;
    lines.push(`${what} reserved for other people. Look again in some minutes.`);
    buttons.unshift(["Look again", goOn]);
  }
  if (hidden > 0) {
    const what = hidden === 1 ? "1 image" : `${hidden} images`;
    lines.push(`${what} cannot be shown: the file is missing or damaged.`);
    lines.push(...problems.map(({ name, problem }) => `${name}: ${problem}`));
    if (hidden > problems.length) lines.push(`And ${hidden - problems.length} more.`);
  }
  if (hidden > 0 && reserved === 0) {
    title = "There is no further image.";
  }
  if (lines.length === 0) {
    lines.push("There is nothing left to mark for you now. Thank you.");
    page.state.mine = page.state.totals.mine_done; // others have answered the rest
    showTotals();
  }
  card(title, lines, buttons);
}

function showDamaged() {
  view.show(null);
  const { id, info, problem, passing } = page.entry;
  const again = ["Try again", () => show(id, { back: true })];
  card(`This image cannot be shown${passing ? " now" : ""}.`, [`${info.name}: ${problem}`], [
    ...(passing ? [again] : []),
    ["Next image", () => page.moving || goOn()],
  ]);
}

export async function goOn() {
  const own = page.entry;
  try {
    const id = await page.work.next(own?.id ?? null);
    if (page.entry === own) await show(id); // else a link was opened meanwhile
  } catch (failure) {
    say(`The next image could not be loaded: ${failure.message}.`);
  }
}

export async function previous() {
  const { entry: own, work } = page;
  if (work === null || page.moving || !finish()) return;
  try {
    const id = await work.previous(own?.id ?? null);
    if (page.entry !== own) return;
    if (id === null) {
      say("There is no image before this one.");
      return;
    }
    await show(id, { back: true });
    if (own !== null && page.entry !== own && !own.problem && !isDone(own)) work.putFirst(own.id);
  } catch (failure) {
    say(`The image is not here: ${failure.message}.`);
  }
}
