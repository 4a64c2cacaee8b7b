// The way of changes to the server, and what becomes of them there.

import { Failure, get, post, setCsrf } from "./api.js";
import { draw, view } from "./canvas.js";
import { showTrouble } from "./claims.js";
import { isDone, lose, page } from "./page.js";
import { recount, showPanel } from "./refresh.js";

export function save(kind, body) {
  const { id: image, info } = page.entry;
  const path = `/api/images/${image}/${kind === "stroke" ? "strokes" : kind}`;
  page.outbox.add({ kind, image, name: info.name, path, body });
}

export async function send(entryToSend) {
  return post(entryToSend.path, { ...entryToSend.body, tab: page.outbox.tab });
}

// What becomes of a change that the server does not accept.
export async function refused(sent, failure) {
  if (failure.status === 403) {
    try {
      const fresh = await get("/api/state");
      const known = fresh.database === page.state.database;
      if (known && fresh.person?.id === page.state.person.id) {
        setCsrf(fresh.csrf);
        page.wrong.session = null;
        showTrouble();
        return "again";
      }
      // The token stays the old one: with the new one, marks would be saved as another's.
      page.wrong.session = known
        ? "Somebody else has signed in in this browser."
        : "Another project is served at this address now.";
    } catch (error) {
      if (!(error instanceof Failure) || error.status !== 403) return "wait";
      page.wrong.session = "The session has ended: open the link of the server again.";
    }
    showTrouble();
    return "wait";
  }
  lose(sent, failure.message);
  showTrouble();
  const image = sent.image;
  queueMicrotask(() => setTimeout(() => reload(image), 0)); // after the outbox has let it go
  return "drop";
}

async function reload(image) {
  const { entry: own, work } = page;
  try {
    if (own?.id !== image) {
      work.images.delete(image);
      const now = await work.look(image);
      if (page.work === work) recount(image, isDone(now));
      return;
    }
    await work.refresh(own);
    if (page.work === work) recount(image, isDone(own));
    if (page.entry !== own || draw.busy) return;
    view.redrawMarks();
    showPanel();
  } catch {
    // The outbox says that the server is not reached.
  }
}
