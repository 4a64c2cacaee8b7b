// What is chosen and counted for images and is part of no answer yet, kept over a reload: {label,
// certainty, seconds}, each where there is one.

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
    return this.all.get(image) ?? {};
  }

  // Sets values; one that is undefined is removed.
  change(image, values) {
    const draft = { ...this.get(image), ...values };
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
