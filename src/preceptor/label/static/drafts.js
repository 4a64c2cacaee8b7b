// Label, certainty and seconds of images that are not answered yet, kept over a reload.

const KEPT = 50;

export class Drafts {
  // `database` is that of the server.
  constructor(database, person) {
    this.key = `preceptor-label-drafts-${database}-${person}`;
    try {
      this.all = new Map(JSON.parse(localStorage.getItem(this.key) ?? "[]"));
    } catch {
      this.all = new Map();
    }
  }

  get(image) {
    return this.all.get(image) ?? { label: null, certainty: null, seconds: 0 };
  }

  set(image, draft) {
    this.all.delete(image);
    this.all.set(image, draft);
    for (const old of this.all.keys()) {
      if (this.all.size <= KEPT) break;
      this.all.delete(old);
    }
    try {
      localStorage.setItem(this.key, JSON.stringify([...this.all]));
    } catch {
      // A full storage costs a draft, not a mark.
    }
  }
}
