// A mask at image resolution, in tiles that are made when something is drawn on them.
// A stroke and its display cost as much as the pixels they touch, whatever the size of the image.

import { RunWriter, forEachRun } from "./runs.js";

export const SHIFT = 8;
export const SIDE = 1 << SHIFT;
const LOW = SIDE - 1;

export class Mask {
  constructor(width, height) {
    this.width = width;
    this.height = height;
    this.columns = Math.ceil(width / SIDE);
    this.rows = Math.ceil(height / SIDE);
    this.tiles = new Array(this.columns * this.rows).fill(null);
  }

  get(x, y) {
    const tile = this.tiles[(y >> SHIFT) * this.columns + (x >> SHIFT)];
    return tile === null ? 0 : tile[((y & LOW) << SHIFT) | (x & LOW)];
  }

  // Sets the pixels from..until (not included) of a row; what lies outside the image is left out.
  fillRow(y, from, until, value) {
    if (y < 0 || y >= this.height) return;
    let x = Math.max(from, 0);
    const end = Math.min(until, this.width);
    const row = (y >> SHIFT) * this.columns;
    const line = (y & LOW) << SHIFT;
    while (x < end) {
      const place = row + (x >> SHIFT);
      const stop = Math.min(end, ((x >> SHIFT) + 1) << SHIFT);
      let tile = this.tiles[place];
      if (tile === null && value) {
        tile = new Uint8Array(SIDE * SIDE);
        this.tiles[place] = tile;
      }
      if (tile !== null) tile.fill(value, line | (x & LOW), (line | ((stop - 1) & LOW)) + 1);
      x = stop;
    }
  }

  clear({ x, y, w, h }) {
    for (let row = y; row < y + h; row += 1) this.fillRow(row, x, x + w, 0);
  }

  // Paints or erases the bits of a stroke {x, y, w, h, bytes, erase}, within `clip` if given.
  apply(stroke, clip = null) {
    const { x, y, w, h } = stroke;
    const value = stroke.erase ? 0 : 1;
    const left = clip === null ? x : Math.max(x, clip.x);
    const right = clip === null ? x + w : Math.min(x + w, clip.x + clip.w);
    const top = clip === null ? y : Math.max(y, clip.y);
    const bottom = clip === null ? y + h : Math.min(y + h, clip.y + clip.h);
    forEachRun(stroke.bytes, (start, end) => {
      let at = start;
      while (at < end) {
        const line = Math.floor(at / w);
        const stop = Math.min(end, (line + 1) * w);
        const row = y + line;
        if (row >= top && row < bottom) {
          const first = Math.max(left, x + at - line * w);
          const last = Math.min(right, x + stop - line * w);
          if (first < last) this.fillRow(row, first, last, value);
        }
        at = stop;
      }
    });
  }

  bounds() {
    let [left, top, right, bottom] = [Infinity, Infinity, -1, -1];
    for (let place = 0; place < this.tiles.length; place += 1) {
      const tile = this.tiles[place];
      if (tile === null) continue;
      const x = (place % this.columns) << SHIFT;
      const y = Math.floor(place / this.columns) << SHIFT;
      for (let line = 0; line < SIDE; line += 1) {
        const first = tile.indexOf(1, line << SHIFT);
        if (first < 0) break;
        const row = first >> SHIFT;
        const last = tile.lastIndexOf(1, (row << SHIFT) | LOW) & LOW;
        left = Math.min(left, x + (first & LOW));
        right = Math.max(right, x + last);
        top = Math.min(top, y + row);
        bottom = Math.max(bottom, y + row);
        line = row;
      }
    }
    if (right < 0) return null;
    return { x: left, y: top, w: right - left + 1, h: bottom - top + 1 };
  }

  isEmpty() {
    return this.tiles.every((tile) => tile === null || tile.indexOf(1) < 0);
  }

  runs({ x, y, w, h }) {
    const writer = new RunWriter();
    for (let row = y; row < y + h; row += 1) {
      const line = (row & LOW) << SHIFT;
      let at = x;
      while (at < x + w) {
        const tile = this.tiles[(row >> SHIFT) * this.columns + (at >> SHIFT)];
        const stop = Math.min(x + w, ((at >> SHIFT) + 1) << SHIFT);
        if (tile === null) {
          writer.add(0, stop - at);
        } else {
          const end = (line | ((stop - 1) & LOW)) + 1;
          let from = line | (at & LOW);
          while (from < end) {
            const value = tile[from];
            let until = tile.indexOf(value ^ 1, from);
            if (until < 0 || until > end) until = end;
            writer.add(value, until - from);
            from = until;
          }
        }
        at = stop;
      }
    }
    return writer.finish();
  }

  stroke() {
    const box = this.bounds();
    return box === null ? null : { ...box, bytes: this.runs(box) };
  }
}
