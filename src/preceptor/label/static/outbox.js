// What is to be saved: kept in the browser's database until the server has it, sent one by one and
// in order. A full disk, a stopped server or a reload of the page loses nothing.

import { Failure } from "./api.js";

const WAITS = [500, 1000, 2000, 4000];

function promised(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

function openDatabase(name) {
  const request = indexedDB.open(name, 1);
  request.onupgradeneeded = () => request.result.createObjectStore("outbox", { keyPath: "key" });
  return promised(request);
}

export class Outbox {
  tab; send; changed; refused; entries = []; database = null; durable = true; person = null;
  busy = false; failures = 0; reason = null; timer = 0; waiters = [];
  waiting = {}; // numbers of changes that other people have left here, by name
  last = 0; gone = 0; // the numbers of the entries that were added and that left last

  // `send(entry)` posts an entry; `changed(state)` is told {kind, count, reason};
  // `refused(entry, failure)` is asked "again", "wait" or "drop" when the server says no.
  constructor({ tab, send, changed, refused }) {
    Object.assign(this, { tab, send, changed, refused });
    window.addEventListener("online", () => this.wake());
  }

  // Takes up what a person's tab that is closed, or this one, left for a database of the server: at
  // another time, another one may be served at the same address. `others` are the open tabs.
  async open(server, { id, name }, others) {
    this.person = id;
    this.who = name;
    const own = ({ person }) => person === id;
    this.entries = this.entries.filter(own);
    this.waiting = {};
    try {
      this.database ??= await openDatabase(`preceptor-label-${server}`);
      const store = this.database.transaction("outbox").objectStore("outbox");
      const all = await promised(store.getAll());
      const known = new Set(this.entries.map((entry) => entry.key));
      const free = all.filter(({ tab, key }) => !others.includes(tab) && !known.has(key));
      const left = free.filter(own);
      for (const entry of free) {
        if (own(entry)) continue;
        const who = entry.who ?? "somebody else";
        this.waiting[who] = (this.waiting[who] ?? 0) + 1;
      }
      this.entries.push(...left);
      this.entries.sort((one, other) => one.at - other.at);
      this.last = Math.max(this.last, this.entries.at(-1)?.at ?? 0);
    } catch {
      this.durable = false; // a private window may have no database: kept in memory alone
    }
    this.report();
    this.wake();
  }

  of(image) {
    return this.entries.filter((entry) => entry.image === image);
  }

  add(entry) {
    // Time in microseconds, always rising: the order across a reload.
    this.last = Math.max(this.last + 1, Date.now() * 1000);
    const key = `${this.tab}/${this.last}`;
    const { tab, person, who } = this;
    const whole = { ...entry, key, at: this.last, tab, person, who };
    this.entries.push(whole);
    whole.kept = this.write((store) => store.put({ ...whole, kept: undefined }));
    this.report();
    this.pump();
  }

  async write(change) {
    if (this.database === null) return;
    try {
      const transaction = this.database.transaction("outbox", "readwrite");
      await promised(change(transaction.objectStore("outbox")));
      this.durable = true;
    } catch {
      this.durable = false;
      this.report();
    }
  }

  wake() {
    clearTimeout(this.timer);
    this.timer = 0;
    this.pump();
  }

  async pump() {
    if (this.busy || this.timer !== 0) return;
    this.busy = true;
    while (this.entries.length > 0) {
      const [entry] = this.entries;
      let done = true;
      try {
        await this.send(entry);
      } catch (failure) {
        if (!(failure instanceof Failure)) console.error(failure);
        done = await this.failed(entry, failure);
        if (!done && this.timer !== 0) break;
      }
      if (done) {
        this.failures = 0;
        this.reason = null;
        // Meanwhile another person may have signed in, whose list is another one.
        this.entries = this.entries.filter((one) => one !== entry);
        this.gone = entry.at;
        await entry.kept;
        await this.write((store) => store.delete(entry.key));
        this.report();
      }
    }
    this.busy = false;
    this.report();
  }

  // Whether the entry is given up; sets the timer where it is to be tried later.
  async failed(entry, failure) {
    const status = failure instanceof Failure ? failure.status : 0;
    const passing = status === 0 || status === 408 || status === 429 || status >= 500;
    const verdict = passing ? "wait" : await this.refused(entry, failure);
    if (verdict === "drop") return true;
    if (verdict === "again" && this.failures < 3) {
      this.failures += 1;
      return false;
    }
    this.reason = failure.message;
    const wait = WAITS[Math.min(this.failures, WAITS.length - 1)];
    this.failures += 1;
    this.timer = setTimeout(() => this.wake(), wait);
    this.report();
    return false;
  }

  report() {
    const count = this.entries.length;
    const kind = count === 0 ? "saved" : this.reason === null ? "saving" : "waiting";
    this.changed({ kind, count, reason: this.reason, durable: this.durable });
    if (count === 0) for (const done of this.waiters.splice(0)) done(null);
  }

  // Ends when the server has everything.
  emptied() {
    if (this.entries.length === 0) return Promise.resolve(null);
    return new Promise((done) => this.waiters.push(done));
  }
}
