// The page of `preceptor label`: its start, and the person who works on it.

import { level, resize, toggleMark, tolerate } from "./actions.js";
import { Failure, get, meetTabs, post, setCsrf } from "./api.js";
import { connect, finish, stage, view } from "./canvas.js";
import { claim, showTrouble, toldByOutbox } from "./claims.js";
import { listen } from "./events.js";
import { giveBack, goOn, inAddress, leave, setAddress, show } from "./images.js";
import { listKeys } from "./keys.js";
import { Outbox } from "./outbox.js";
import { Drafts, page } from "./page.js";
import { $, card, element, fill, say, showQuick, showSettings } from "./panel.js";
import { showPanel, showTotals } from "./refresh.js";
import { refused, send } from "./saving.js";
import { idleTime } from "./seen.js";
import { addStroke } from "./strokes.js";
import { Work } from "./work.js";

const RENEW = 10_000; // milliseconds between two renewals of the claim on an image
const IDLE = 600_000; // milliseconds without input after which it is not renewed

// Fills a card with the names, and calls `chosen` after the server has accepted one.
function askName(box, people, chosen) {
  const form = element("form");
  const problem = element("p", "", { class: "problem", role: "alert" });
  const take = async (name) => {
    try {
      await post("/api/person", { name });
      chosen(await get("/api/state"));
    } catch (failure) {
      problem.textContent = failure.message;
    }
  };
  const title = element("h2", "Who is marking?");
  const lines = element("p", "Marks are kept apart by name. You see your own marks.");
  form.append(title, lines);
  if (people.length > 0) {
    const list = element("div", "", { class: "names", role: "group", "aria-label": "Names" });
    for (const name of people) {
      const button = element("button", name, { type: "button" });
      button.addEventListener("click", () => take(name));
      list.append(button);
    }
    form.append(list);
  }
  const field = element("p", "", { class: "field" });
  const label = people.length > 0 ? "Another name" : "Your name";
  const input = element("input", "", {
    id: "person", name: "person", maxlength: "60", required: "", autocomplete: "name",
  });
  field.append(element("label", label, { for: "person" }), input);
  field.append(element("button", "Begin", { type: "submit", class: "main" }));
  form.append(field, problem);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const name = input.value.trim();
    if (name !== "") take(name);
  });
  box.replaceChildren(form);
  box.hidden = false;
  input.focus();
}

// Takes leave of the person who works here; whether nothing was in the way.
async function takeLeave() {
  if (!finish()) return false;
  if (page.outbox.entries.length > 0) {
    say("Another person can begin when everything is saved.");
    return false;
  }
  const heard = giveBack();
  if (page.entry !== null) {
    leave(true);
    page.entry = null;
    page.lost = [];
    setAddress(null);
    document.body.dataset.image = "";
    view.show(null);
    showPanel();
  }
  page.work = null;
  await heard; // under the next person's name, the server would refuse it
  return true;
}

async function goOnAs(name) {
  const fresh = await reached();
  if (!fresh || !(await takeLeave())) return;
  setCsrf(fresh.csrf);
  try {
    await post("/api/person", { name });
    await begun(await get("/api/state"));
  } catch (failure) {
    card("Nobody has begun.", [`${failure.message}.`], [["Try again", () => location.reload()]]);
  }
}

async function signIn() {
  const fresh = await reached();
  if (!fresh || !(await takeLeave())) return;
  setCsrf(fresh.csrf);
  askName($("card"), fresh.people, (chosen) => begun(chosen));
}

// State of the server; null, which is said, where it is not reached.
async function reached() {
  try {
    return await get("/api/state");
  } catch (failure) {
    say(`Nobody else can begin now: ${failure.message}.`);
    return null;
  }
}

async function begun(fresh) {
  if (page.state !== null && page.state.database !== fresh.database) {
    location.reload(); // another project is served here now
    return;
  }
  page.state = fresh;
  page.wrong.session = null;
  setCsrf(page.state.csrf);
  if (page.state.person === null) {
    showPanel();
    askName($("card"), page.state.people, (chosen) => begun(chosen));
    return;
  }
  fill(page.state);
  if (page.state.quick) showQuick();
  $("who").textContent = page.state.person.name;
  const { database, person } = page.state;
  page.drafts = new Drafts(database, person.id);
  page.work = new Work(page.outbox);
  await page.outbox.open(database, person, (await tabs).others);
  page.work.takeOver(page.outbox.entries);
  page.stale = page.outbox.entries.length > 0;
  page.waiting = Object.entries(page.outbox.waiting).map(([who, count]) => {
    const text = count === 1 ? `1 change of ${who} waits here` : `${count} changes of ${who} wait here`;
    return { text: `${text}.`, words: `Go on as ${who}`, action: () => goOnAs(who) };
  });
  showTrouble();
  showTotals();
  card(null);
  const asked = inAddress();
  if (asked > 0) await show(asked);
  if (page.entry === null) await goOn();
  stage.focus({ preventScroll: true });
}

const tabs = meetTabs();

async function start() {
  listKeys($("keys"));
  connect({ commit: addStroke, changed: showPanel, resize, toggleMark, tolerate, level });
  listen({ signIn });
  showSettings({ shown: page.shown, cursor: false });
  const { tab } = await tabs;
  page.outbox = new Outbox({ tab, send, refused, changed: toldByOutbox });
  try {
    await begun(await get("/api/state"));
  } catch (failure) {
    if (!(failure instanceof Failure)) throw failure;
    card("This page cannot start.", [`${failure.message}.`], [["Try again", () => location.reload()]]);
  }
  setInterval(() => {
    if (document.visibilityState === "visible" && idleTime() < IDLE) claim();
  }, RENEW);
}

start();
