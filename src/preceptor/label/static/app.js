// The page of `preceptor label`: start, the image at hand, and what keys and buttons do.

import { Failure, get, identifier, post, setCsrf } from "./api.js";
import { Cursor } from "./cursor.js";
import { Drafts } from "./drafts.js";
import { Draw } from "./draw.js";
import { drawGuide, showRing } from "./guide.js";
import { actionOf, listKeys } from "./keys.js";
import { showLead } from "./lead.js";
import { Mask } from "./mask.js";
import { Outbox } from "./outbox.js";
import { $, card, fill, say, showImage, showProgress, showSaved, showSettings, trouble } from "./panel.js";
import { askName } from "./people.js";
import { Pointer } from "./pointer.js";
import { fromBase64, toBase64 } from "./runs.js";
import { change, settings, sizeOf, stepped } from "./settings.js";
import { meetTabs } from "./tabs.js";
import { View } from "./view.js";
import { Work } from "./work.js";

const RENEW = 10_000; // milliseconds between two signs of life to the server
const STEP = 1.25; // of a zoom by key

let state = null; // of the server: person, classes, labels, ...
let entry = null; // the image at hand
let outbox = null;
let drafts = null;
let work = null;
let shown = true; // whether the mark is shown
let clock = null; // since when the image is looked at, or null while it is not
let moving = false; // whether another image is being fetched
const wrong = { elsewhere: false, session: null, unreached: null };

// ---------------------------------------------------------------- what is drawn

function layers() {
  if (entry === null || !shown) return [];
  const found = [];
  const proposal = proposalNow();
  if (proposal !== null) {
    found.push({ mask: proposal.mask, live: null, erase: false, color: 0, proposal: true });
  }
  state.classes.forEach((name, at) => {
    const own = at === settings.class;
    const live = own && draw.live !== null ? draw.live.mask : null;
    const mask = entry.marks.masks.get(name);
    if (mask === undefined && live === null) return;
    const layer = { mask: mask ?? entry.marks.mask(name), live, color: at, proposal: false };
    layer.erase = live !== null && draw.live.erase;
    if (own) found.push(layer);
    else found.splice(found.filter((one) => one.proposal).length, 0, layer);
  });
  return found;
}

// The proposal that is shown: one that is neither adopted nor hidden.
function proposalNow() {
  const given = entry?.info.proposal;
  if (!given || entry.declined === given.id) return null;
  if (entry.marks.strokes.some((one) => one.proposal === given.id && !one.undone)) return null;
  if (entry.proposal?.id !== given.id) {
    const mask = new Mask(entry.info.width, entry.info.height);
    const bytes = fromBase64(given.runs);
    mask.apply({ ...given, bytes, erase: false });
    entry.proposal = { id: given.id, mask, bytes };
    entry.seen = given.id;
  }
  return entry.proposal;
}

const stage = $("stage");
const view = new View(stage, $("picture"), $("marks"), {
  layers,
  moved: () => {
    guide();
    showRing(view, settings, null);
  },
});
view.opacity = settings.opacity / 100;

const draw = new Draw({
  view,
  settings,
  marks: () => entry.marks,
  allowed: () => allowed() && (shown || toggleMark()),
  commit: addStroke,
  redraw: (area) => view.redrawMarks(area),
  guide,
  say,
});

const cursor = new Cursor(view, draw, {
  settings,
  erasing: () => settings.erase,
  changed: () => {
    guide();
    showPanel();
  },
  say: (text) => {
    $("where").textContent = text;
  },
});

const pointer = new Pointer(stage, view, draw, {
  settings,
  erasing: () => settings.erase,
  resize: (direction) => resize(direction),
  ring: (event) => showRing(view, settings, cursor.on ? null : event),
});

function guide() {
  drawGuide($("guide"), view, draw, cursor, settings);
}

// ---------------------------------------------------------------- panels

function allowed() {
  return entry !== null && !entry.problem && !wrong.elsewhere && !wrong.session;
}

function draft() {
  return entry === null ? { label: null, certainty: null, seconds: 0 } : drafts.get(entry.id);
}

function showPanel() {
  showSettings(settings, { shown, cursor: cursor.on });
  const own = draft();
  const said = { label: own.label ?? entry?.answer?.label, certainty: own.certainty ?? entry?.answer?.certainty };
  showImage(entry, said, state ?? { labels: [] }, allowed());
  showOffer();
  stage.classList.toggle("locked", entry !== null && !allowed());
}

function showOffer() {
  const proposal = shown && allowed() ? proposalNow() : null;
  $("offer").hidden = proposal === null;
  if (proposal === null) return;
  const { images, agreement } = state.teacher ?? {};
  const made = images === undefined ? "" : ` of a Teacher trained on ${images} images`;
  const agrees =
    typeof agreement === "number" ? `; agreement with people ${agreement.toFixed(2)}` : "";
  $("offer").firstElementChild.textContent = `Dashed: a proposal${made}${agrees}.`;
}

function showTrouble() {
  const reasons = [];
  if (wrong.elsewhere) {
    reasons.push({
      text: "This image is open in another tab of yours.",
      words: "Work on it here",
      action: () => claim(true),
    });
  }
  if (wrong.session) {
    reasons.push({
      text: `${wrong.session} What you have drawn is kept in this browser.`,
      words: "Load again",
      action: () => location.reload(),
    });
  }
  if (wrong.unreached) {
    reasons.push({ text: wrong.unreached, words: "Try again", action: () => outbox.wake() });
  }
  trouble(reasons);
}

function toldByOutbox(told) {
  showSaved(told);
  const { kind, count, reason, durable } = told;
  wrong.unreached = null;
  if (kind === "waiting") {
    const what = count === 1 ? "One change is" : `${count} changes are`;
    const kept = durable
      ? "kept in this browser and saved as soon as that is possible. You can go on."
      : "kept in this page alone: do not close it.";
    wrong.unreached = `Not saved: ${reason}. ${what} ${kept}`;
  }
  showTrouble();
}

// ---------------------------------------------------------------- saving

function save(kind, body) {
  const path = { stroke: "strokes", undo: "undo", redo: "redo", answer: "answer", seen: "seen" };
  outbox.add({ kind, image: entry.id, path: `/api/images/${entry.id}/${path[kind]}`, body });
}

function addStroke(stroke) {
  const name = state.classes[settings.class] ?? state.classes[0];
  const { bytes, ...rest } = stroke;
  if (stroke.erase && !touches(entry.marks.mask(name), stroke)) {
    view.redrawMarks(stroke);
    return; // an eraser that met nothing leaves no stroke to undo
  }
  const body = {
    ...rest, uuid: identifier(), class: name, runs: toBase64(bytes),
    proposal: stroke.proposal ?? null,
  };
  entry.marks.add({ ...body, bytes, undone: false, redoable: false });
  save("stroke", body);
  keepTime();
  view.redrawMarks(stroke);
  showPanel();
}

// Whether a stroke covers a pixel that is set.
function touches(mask, stroke) {
  const other = new Mask(mask.width, mask.height);
  other.apply({ ...stroke, erase: false });
  return other.tiles.some(
    (tile, at) =>
      tile !== null && mask.tiles[at] !== null && tile.some((one, i) => one && mask.tiles[at][i]),
  );
}

function history(kind) {
  if (!allowed() || draw.cancel()) return;
  const stroke = entry.marks[kind]();
  if (stroke === null) {
    say(kind === "undo" ? "There is nothing to undo." : "There is nothing to redo.");
    return;
  }
  save(kind, { uuid: stroke.uuid });
  view.redrawMarks(stroke);
  if (stroke.proposal !== null) view.redrawMarks();
  showPanel();
}

async function send(entryToSend) {
  return post(entryToSend.path, { ...entryToSend.body, tab: outbox.tab });
}

// What becomes of a change that the server does not accept.
async function refused(sent, failure) {
  if (failure.status === 403) {
    try {
      const fresh = await get("/api/state");
      if (fresh.person?.id === state.person.id) {
        setCsrf(fresh.csrf);
        wrong.session = null;
        showTrouble();
        return "again";
      }
      // The token stays the old one: with the new one, marks would be saved as another's.
      wrong.session = "Somebody else has signed in in this browser.";
    } catch (error) {
      if (!(error instanceof Failure) || error.status !== 403) return "wait";
      wrong.session = "The session has ended: open the link of the server again.";
    }
    showTrouble();
    return "wait";
  }
  if (failure.status === 409) {
    // The server has forgotten that this tab has the image, or another tab has it.
    try {
      await post(`/api/images/${sent.image}/open`, { tab: outbox.tab });
      if (!sent.asked) {
        sent.asked = true;
        return "again";
      }
    } catch (error) {
      if (!(error instanceof Failure) || error.status !== 409) return "wait";
      if (entry?.id === sent.image) {
        wrong.elsewhere = true;
        showTrouble();
        showPanel();
        return "wait";
      }
    }
  }
  if (sent.kind !== "seen") say(`One change could not be saved: ${failure.message}.`);
  const image = sent.image;
  queueMicrotask(() => setTimeout(() => reload(image), 0)); // after the outbox has let it go
  return "drop";
}

function saved(sent, answer) {
  if (sent.kind === "stroke" && entry?.id === sent.image) {
    // With `proposals: after`, the server has one to show from the first own stroke on.
    if (state.proposals === "after" && !entry.info.proposal && !entry.asked) {
      entry.asked = true;
      reload(sent.image);
    }
  }
  return answer;
}

// Takes the state of the server for an image, if it is another one.
async function reload(image) {
  if (entry?.id !== image) {
    work.images.delete(image);
    return;
  }
  try {
    const own = entry;
    await work.refresh(own);
    if (entry !== own || draw.busy) return;
    view.redrawMarks();
    showPanel();
  } catch {
    // The outbox says that the server is not reached.
  }
}

// ---------------------------------------------------------------- images

async function claim(take = false) {
  const own = entry;
  if (own === null) return;
  try {
    await post(`/api/images/${own.id}/open`, { tab: outbox.tab, take });
    if (entry !== own) return;
    const was = wrong.elsewhere;
    wrong.elsewhere = false;
    if (take || was) await work.refresh(own);
    if (was) outbox.wake();
  } catch (failure) {
    if (entry !== own) return;
    if (failure.status === 409) {
      wrong.elsewhere = true;
      draw.cancel();
    }
  }
  showTrouble();
  showPanel();
  if (!draw.busy) view.redrawMarks();
}

// Seconds for which the image at hand was looked at, added to its draft.
function keepTime() {
  if (entry === null || clock === null) return;
  const now = Date.now();
  const own = draft();
  drafts.set(entry.id, { ...own, seconds: own.seconds + (now - clock.counted) / 1000 });
  clock.counted = now;
}

function look() {
  if (clock === null && entry !== null && document.visibilityState === "visible") {
    clock = { from: Date.now(), counted: Date.now() };
  }
}

function lookAway() {
  if (entry === null || clock === null) return;
  keepTime();
  const body = { from: new Date(clock.from).toISOString(), until: new Date().toISOString() };
  clock = null;
  save("seen", body);
}

async function show(id, { back = false } = {}) {
  if (moving) return;
  moving = true;
  stage.setAttribute("aria-busy", "true");
  try {
    const next = id === null ? null : await work.load(id);
    leave(back);
    entry = next;
    wrong.elsewhere = false;
    card(null);
    window.history.replaceState(null, "", id === null ? "#" : `#${id}`);
    document.body.dataset.image = id ?? "";
    if (entry === null) showEnd();
    else if (entry.problem) showDamaged();
    else begin();
  } catch (failure) {
    say(`The image is not here: ${failure.message}.`);
  } finally {
    moving = false;
    stage.removeAttribute("aria-busy");
  }
  showTrouble();
  showPanel();
  look();
  if (entry !== null && !entry.problem) claim();
  if (entry !== null) work.ahead(entry.id);
}

function leave(back) {
  draw.cancel();
  lookAway();
  if (cursor.on) cursor.toggle();
  if (entry !== null && !back) work.past.push(entry.id);
}

function begin() {
  if (settings.size === 0) {
    const longer = Math.max(entry.info.width, entry.info.height);
    change({ size: Math.max(2, Math.round(longer / 24)) });
  }
  view.show(entry.picture);
}

async function showEnd() {
  view.show(null);
  const title = "That was the last image.";
  const back = ["Previous image", () => run("previous")];
  card(title, ["There is nothing left to mark for you now. Thank you."], [back]);
  const skipped = await work.skipped().catch(() => []);
  if (skipped.length === 0 || entry !== null) return;
  card(title, ["There are images that you have skipped."], [
    ["Look at them again", () => {
      work.takeUp(skipped);
      goOn();
    }],
    back,
  ]);
}

function showDamaged() {
  view.show(null);
  card("This image cannot be shown.", [`${entry.info.name}: ${entry.problem}`], [
    ["Next image", () => run("next")],
  ]);
}

async function goOn() {
  try {
    await show(await work.next(entry?.id ?? null));
  } catch (failure) {
    say(`The next image is not here: ${failure.message}.`);
  }
}

function answer(kind) {
  if (entry === null || moving) return;
  if (entry.problem || wrong.elsewhere) {
    goOn();
    return;
  }
  draw.cancel();
  const own = draft();
  const label = own.label ?? entry.answer?.label ?? null;
  const empty = entry.marks.isEmpty();
  if (kind === "marked" && empty) {
    if (entry.answer) goOn();
    else say("Nothing is marked yet. Press 0 if there is nothing to mark, or S to skip.");
    return;
  }
  if (kind === "nothing" && !empty) {
    say("Something is marked. Undo or erase it first, or press N.");
    return;
  }
  const judged = kind === "marked" || kind === "nothing";
  if (judged && state.labels.length > 0 && !entry.info.label && label === null) {
    say("Choose a label first: the keys 1 to 9.");
    return;
  }
  keepTime();
  const first = !entry.answer || entry.answer.state === "skipped";
  const body = {
    state: kind, label, certainty: own.certainty ?? entry.answer?.certainty ?? null,
    seconds: Math.round(drafts.get(entry.id).seconds * 10) / 10, proposal: entry.seen ?? null,
  };
  save("answer", body);
  entry.answer = body;
  work.answered.add(entry.id);
  if (first && kind !== "skipped") state.totals.mine_done += 1;
  showTotals();
  goOn();
}

function showTotals() {
  const { mine_done: done, mine_open: open } = state.totals;
  state.mine ??= done + open;
  // Images that were handed to others may come back, and count then.
  showProgress(done, Math.max(state.mine, done));
}

// ---------------------------------------------------------------- actions

function resize(direction) {
  if (settings.tool === "wand") {
    const tolerance = settings.tolerance + direction * Math.max(1, Math.round(settings.tolerance / 10));
    change({ tolerance: Math.min(128, Math.max(0, tolerance)) });
  } else {
    change({ size: stepped(settings.size, direction) });
  }
  showRing(view, settings, null);
  guide();
  showPanel();
}

function choose(tool, erase) {
  draw.cancel();
  change({ tool, erase });
  showRing(view, settings, null);
  guide();
  showPanel();
}

function toggleMark() {
  shown = !shown;
  view.redrawMarks();
  showPanel();
  return shown;
}

function adopt() {
  const proposal = allowed() ? proposalNow() : null;
  if (proposal === null) {
    say("There is no proposal here.");
    return;
  }
  draw.cancel();
  const { x, y, w, h } = entry.info.proposal;
  addStroke({
    tool: "proposal", erase: false, started: new Date().toISOString(), seconds: 0,
    x, y, w, h, bytes: proposal.bytes, proposal: proposal.id,
  });
  view.redrawMarks();
}

function mayAnswer(values) {
  if (entry === null || entry.problem) return;
  drafts.set(entry.id, { ...draft(), ...values });
  showPanel();
}

const ACTIONS = {
  brush: () => choose("brush", false),
  eraser: () => choose("brush", true),
  polygon: () => choose("polygon", settings.erase && settings.tool !== "brush"),
  box: () => choose("box", settings.erase && settings.tool !== "brush"),
  wand: () => choose("wand", settings.erase && settings.tool !== "brush"),
  invert: () => choose(settings.tool, !settings.erase),
  smaller: () => resize(-1),
  larger: () => resize(1),
  undo: () => history("undo"),
  redo: () => history("redo"),
  class: () => pickClass((settings.class + 1) % state.classes.length),
  adopt,
  decline: () => {
    entry.declined = entry.info.proposal?.id;
    view.redrawMarks();
    showPanel();
  },
  next: () => answer("marked"),
  nothing: () => answer("nothing"),
  cannot: () => answer("cannot_judge"),
  skip: () => answer("skipped"),
  previous: async () => {
    try {
      const id = await work.previous(entry?.id ?? null);
      if (id === null) say("There is no image before this one.");
      else await show(id, { back: true });
    } catch (failure) {
      say(`The image is not here: ${failure.message}.`);
    }
  },
  label: (number) => {
    const label = state.labels[number];
    if (label === undefined) return;
    mayAnswer({ label: draft().label === label ? null : label });
  },
  certainty: (number) => mayAnswer({ certainty: draft().certainty === number ? null : number }),
  closer: () => zoom(STEP),
  farther: () => zoom(1 / STEP),
  fit: () => view.fit(),
  mark: toggleMark,
  light: () => {
    change({ light: !settings.light });
    showPanel();
    if (settings.light) {
      $("contrast").scrollIntoView({ block: "nearest" });
      $("opacity").focus();
    }
    else stage.focus();
  },
  plain: () => {
    change({ opacity: 40, brightness: 100, contrast: 100 });
    view.opacity = 0.4;
    view.redrawMarks();
    showPanel();
  },
  theme: () => {
    const order = ["system", "light", "dark"];
    change({ theme: order[(order.indexOf(settings.theme) + 1) % 3] });
    showPanel();
  },
  cursor: () => {
    cursor.toggle();
    if (cursor.on) stage.focus();
  },
  help: () => ($("help").open ? $("help").close() : $("help").showModal()),
  cancel: () => {
    if (!draw.cancel() && cursor.on) cursor.toggle();
  },
};

function run(action, value) {
  ACTIONS[action]?.(value);
}

function pickClass(number) {
  draw.cancel();
  change({ class: number });
  view.redrawMarks();
  showPanel();
}

function zoom(factor) {
  const at = cursor.on
    ? view.toStage(...cursor.place).map((one, i) => one + [stage.getBoundingClientRect().left, stage.getBoundingClientRect().top][i])
    : view.middle();
  view.zoom(factor, ...at);
}

// ---------------------------------------------------------------- events of the page

const IDLE = new Set(["mark", "light", "help", "theme", "fit", "closer", "farther", "cancel", "previous"]);

function onKey(event) {
  if ($("help").open) {
    if (event.key === "?") $("help").close();
    return;
  }
  const target = event.target;
  const writes = target.matches?.("input:not([type=range]), select, textarea");
  if (writes || state === null || !$("lead").hidden) return;
  const onStage = target === stage || target === document.body;
  if (onStage && cursor.key(event)) {
    event.preventDefault();
    return;
  }
  if (event.key === " ") {
    // On a button, the space bar presses the button.
    if (onStage) {
      event.preventDefault();
      pointer.hold(true);
    }
    return;
  }
  if (event.key === "Enter" && onStage && draw.points.length > 0) {
    draw.close();
    return;
  }
  if (event.key === "Backspace" && onStage && draw.points.length > 1) {
    draw.points.pop();
    guide();
    return;
  }
  // Arrow keys move a slider that has the focus.
  if (event.key.startsWith("Arrow") && target.matches?.("input[type=range]")) return;
  const found = actionOf(event);
  if (found === null || (entry === null && !IDLE.has(found[0]))) return;
  event.preventDefault();
  if (event.repeat && ["next", "previous", "nothing", "cannot", "skip"].includes(found[0])) return;
  run(...found);
}

function onClick(event) {
  const button = event.target.closest?.("button");
  if (!button || button.disabled) return;
  const { dataset } = button;
  if (dataset.do !== undefined) run(dataset.do);
  else if (dataset.class !== undefined) pickClass(Number(dataset.class));
  else if (dataset.label !== undefined) run("label", Number(dataset.label));
  else if (dataset.certainty !== undefined) run("certainty", Number(dataset.certainty));
  else return;
  // After a click with the mouse, keys are for the image again.
  if (event.detail > 0) stage.focus({ preventScroll: true });
}

function listen() {
  document.addEventListener("keydown", onKey);
  document.addEventListener("keyup", (event) => {
    if (event.key === " ") pointer.hold(false);
  });
  window.addEventListener("blur", () => pointer.hold(false));
  document.addEventListener("click", onClick);
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState === "visible") look();
    else lookAway();
  });
  window.addEventListener("pagehide", () => {
    if (entry === null || entry.problem || wrong.elsewhere) return;
    const body = { tab: outbox.tab, close: true };
    post(`/api/images/${entry.id}/open`, body, { keepalive: true }).catch(() => {});
  });
  window.addEventListener("beforeunload", (event) => {
    keepTime();
    if (outbox !== null && outbox.entries.some(({ kind }) => kind !== "seen")) {
      event.preventDefault();
    }
  });
  const sliders = {
    size: (value) => change({ size: sizeOf(value) }),
    tolerance: (value) => change({ tolerance: value }),
    opacity: (value) => {
      change({ opacity: value });
      view.opacity = value / 100;
      view.redrawMarks();
    },
    brightness: (value) => change({ brightness: value }),
    contrast: (value) => change({ contrast: value }),
  };
  for (const [id, set] of Object.entries(sliders)) {
    $(id).addEventListener("input", () => {
      set(Number($(id).value));
      guide();
      showPanel();
    });
  }
  $("light").addEventListener("toggle", () => {
    if ($("light").open !== settings.light) change({ light: $("light").open });
  });
  $("to-help").addEventListener("click", () => run("help"));
  $("to-lead").addEventListener("click", () => showLead($("lead"), () => stage.focus()));
  $("who").addEventListener("click", () => signIn());
  stage.addEventListener("dblclick", (event) => event.preventDefault());
}

// ---------------------------------------------------------------- start

async function signIn() {
  if (outbox.entries.some(({ kind }) => kind !== "seen")) {
    say("Another person can begin when all is saved.");
    return;
  }
  if (entry !== null) {
    leave(true);
    entry = null;
    view.show(null);
    showPanel();
  }
  const fresh = await get("/api/state");
  setCsrf(fresh.csrf);
  askName($("card"), fresh.people, (chosen) => begun(chosen));
}

async function begun(fresh) {
  state = fresh;
  setCsrf(state.csrf);
  if (state.person === null) {
    showPanel();
    askName($("card"), state.people, (chosen) => begun(chosen));
    return;
  }
  if (settings.class >= state.classes.length) change({ class: 0 });
  fill(state);
  $("who").textContent = state.person.name;
  $("who").disabled = Boolean(state.fixed);
  $("to-lead").hidden = !state.person.lead;
  drafts = new Drafts(state.person.id);
  work = new Work({ pending: (image) => outbox.of(image) });
  await outbox.open(state.person.id, (await tabs).others);
  showTotals();
  card(null);
  const asked = Number(/^#(\d+)$/.exec(location.hash)?.[1] ?? 0);
  if (asked > 0) await show(asked);
  if (entry === null) await goOn();
  stage.focus({ preventScroll: true });
}

const tabs = meetTabs();

async function start() {
  listKeys($("keys"));
  listen();
  showSettings(settings, { shown, cursor: false });
  const { tab } = await tabs;
  outbox = new Outbox({ tab, send, refused, saved, changed: toldByOutbox });
  try {
    await begun(await get("/api/state"));
  } catch (failure) {
    if (!(failure instanceof Failure)) throw failure;
    card("This page cannot begin.", [`${failure.message}.`], [["Try again", () => location.reload()]]);
  }
  setInterval(() => {
    if (document.visibilityState === "visible") claim();
  }, RENEW);
}

start();
