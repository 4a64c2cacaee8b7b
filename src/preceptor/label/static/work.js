// The images of a person: the one at hand, those before it, and the next ones, loaded ahead.

import { Failure, get } from "./api.js";
import { Marks, forget } from "./marks.js";
import { Picture } from "./picture.js";
import { fromBase64 } from "./runs.js";

const AHEAD = 3;
const ASKED = AHEAD + 1; // no more: what is handed out here is kept from other people
const MOST = 24; // images that the server lists at a time
const KEPT = 8; // images in memory
const SURE = 300_000; // milliseconds for which the server keeps the next images, at least
const DAMAGED = 422; // status of a picture that cannot be shown

// Adds what is not saved yet to what the server has: the strokes and the answer of an image.
export function withPending(info, entries) {
  const strokes = info.strokes.map((stroke) => ({ ...stroke, bytes: fromBase64(stroke.runs) }));
  let answer = info.answer;
  for (const { kind, body } of entries) {
    const known = strokes.find((stroke) => stroke.uuid === body.uuid);
    if (kind === "stroke") {
      forget(strokes);
      if (known !== undefined) continue; // saved in the meantime
      strokes.push({ ...body, undone: false, redoable: false, bytes: fromBase64(body.runs) });
    } else if ((kind === "undo" || kind === "redo") && known !== undefined) {
      known.undone = kind === "undo";
      known.redoable = known.undone;
    } else if (kind === "answer") {
      answer = body;
    }
  }
  return { strokes, answer };
}

export class Work {
  // `outbox` has what is not saved yet.
  constructor(outbox) {
    this.outbox = outbox;
    this.line = []; // the next images: those that are shown again, then as the queue lists them
    this.again = []; // those that were left by the way back, which are shown again
    this.since = 0; // time at which the server has confirmed them
    this.past = []; // ids of images shown before the one at hand
    this.answered = new Set(); // answered here, whatever of that is saved
    this.counted = new Map(); // id: whether it counts as answered, of those that changed here
    this.images = new Map(); // id: promise of an entry
  }

  // Passes over the images of answers that wait to be saved, unless they were changed since.
  takeOver(entries) {
    for (const { kind, image } of entries) {
      if (kind === "answer") this.answered.add(image);
      else this.answered.delete(image);
    }
  }

  // An image with all that its display needs: {info, picture, marks, answer, ...}.
  load(id) {
    let found = this.images.get(id);
    if (found === undefined) {
      found = this.fetch(id);
      const forgotten = () => this.images.get(id) === found && this.images.delete(id);
      found.then((entry) => entry.passing && forgotten(), forgotten);
    }
    this.images.delete(id);
    this.images.set(id, found);
    for (const [old, made] of this.images) {
      if (this.images.size <= KEPT) break;
      this.images.delete(old);
      made.then((entry) => entry.picture?.close(), () => {});
    }
    return found;
  }

  // The state of the server with what was not saved when it was asked for, or is not saved now: the
  // answer may have left the server before an entry that the outbox has sent since. What was added
  // and saved in between is in neither, and the server is asked again.
  async read(id) {
    let last, before, info;
    do {
      last = this.outbox.last;
      before = this.outbox.of(id);
      info = await get(`/api/images/${id}`);
    } while (this.outbox.gone > last);
    const after = this.outbox.of(id);
    const kept = before.filter((entry) => !after.some((other) => other.key === entry.key));
    return { info, ...withPending(info, [...kept, ...after]) };
  }

  async fetch(id) {
    const asked = await this.read(id);
    const { info } = asked;
    const entry = { id, info, picture: null, problem: info.problem, passing: false };
    if (!info.problem) {
      try {
        entry.picture = await new Picture(info).load();
      } catch (error) {
        entry.problem = error.message;
        // Without the server, or with a full disk: it is asked for again.
        entry.passing = error instanceof Failure && error.status !== DAMAGED;
      }
    }
    this.fold(entry, asked);
    return entry;
  }

  fold(entry, { info, strokes, answer }) {
    entry.info = info;
    entry.answer = answer;
    entry.marks = new Marks(info.width || 1, info.height || 1, strokes);
  }

  async look(id) {
    const asked = await this.read(id);
    const entry = { id, problem: asked.info.problem };
    this.fold(entry, asked);
    return entry;
  }

  // Asks for the state of the server again; whether it was another than the one at hand.
  async refresh(entry) {
    const asked = await this.read(entry.id);
    const { info, strokes, answer } = asked;
    const { version, width, height } = entry.info;
    const isOther = version && info.version && info.version !== version;
    if (isOther || info.width !== width || info.height !== height) {
      // Its picture is that of another file.
      entry.problem = info.problem ?? "the file was replaced";
      this.images.delete(entry.id);
      return true;
    }
    const state = (strokes) => strokes.map(({ uuid, undone }) => `${uuid}${Boolean(undone)}`).join();
    if (state(strokes) === state(entry.marks.strokes)) {
      entry.info = info;
      entry.answer = answer;
      return false;
    }
    this.fold(entry, asked);
    return true;
  }

  async next(current) {
    if (Date.now() - this.since > SURE) this.line = this.again = []; // others may have them now
    if (!this.line.some(({ id }) => this.open(id, current))) await this.ask(current);
    const found = this.line.find(({ id }) => this.open(id, current));
    return found === undefined ? null : found.id;
  }

  open(id, current) {
    return id !== current && !this.answered.has(id);
  }

  lineUp(others, current) {
    const open = ({ id }) => this.open(id, current);
    const again = this.again.filter(open);
    const rest = others.filter((one) => open(one) && !again.some(({ id }) => id === one.id));
    this.line = [...again, ...rest];
  }

  async ask(current) {
    const after = current === null ? "" : `&after=${current}`;
    // The server lists what is answered here until it is saved.
    const answers = this.outbox.entries.filter(({ kind }) => kind === "answer");
    const unsaved = new Set(answers.map(({ image }) => image)).size;
    const count = Math.min(MOST, ASKED + unsaved);
    let found = await get(`/api/queue?count=${count}${after}`);
    if (found.images.length === 0 && after !== "") found = await get(`/api/queue?count=${count}`);
    this.lineUp(found.images, current);
    this.since = Date.now();
    if (this.line.length === 0 && found.images.length === MOST) {
      throw new Failure(`${unsaved} answers wait to be saved`, 0);
    }
  }

  // Number of the images that are reserved for others, and of those that cannot be shown, and the
  // first ones of these.
  async rest() {
    const { not_shown: hidden, problems, reserved } = await get("/api/queue?rest=1");
    return { hidden, problems, reserved };
  }

  // Puts an image that was left without an answer back, to be shown next.
  putFirst(id) {
    const others = (one) => one.id !== id;
    this.again = [{ id }, ...this.again.filter(others)];
    this.line = [{ id }, ...this.line.filter(others)];
  }

  // Leaves those of some images in the line that the server still keeps for the person.
  keep(asked, kept) {
    const stays = ({ id }) => !asked.includes(id) || kept.includes(id);
    this.line = this.line.filter(stays);
    this.again = this.again.filter(stays);
    this.since = Date.now();
  }

  async ahead(current) {
    try {
      const here = this.line.findIndex(({ id }) => id === current);
      this.lineUp(this.line.slice(here + 1), current);
      if (this.line.length < AHEAD) await this.ask(current);
      const next = this.line.filter(({ id }) => this.open(id, current)).slice(0, AHEAD);
      for (const { id } of next) await this.load(id).catch(() => {});
    } catch {
      // Without the server there is nothing to load; the outbox says so.
    }
  }

  // The id of the image before the one at hand, or null; where none is at hand, of the latest one.
  async previous(current) {
    const last = this.past.pop();
    if (last !== undefined) return last;
    const { images } = await get(`/api/queue?count=1&before=${current ?? 0}`);
    return images.length > 0 ? images[0].id : null;
  }
}
