// The image under the marks: one bitmap, or the tiles of a pyramid of which level 0 is the image.

import { Failure } from "./api.js";
import { levelsOf } from "./levels.js";

const SIDE = 512;
const KEPT = 320; // tiles of 1 MB each; a screen of 5K shows up to 220

async function file(url) {
  let answer;
  try {
    answer = await fetch(url, { credentials: "same-origin" });
    if (answer.ok) return await answer.blob();
  } catch {
    throw new Failure("the server is not reached", 0);
  }
  const { error } = await answer.json().catch(() => ({}));
  throw new Failure(error ?? `the server answers ${answer.status}`, answer.status);
}

async function bitmap(url) {
  // The server has applied the orientation; colors stay as training sees them.
  const blob = await file(url);
  return createImageBitmap(blob, { imageOrientation: "none", colorSpaceConversion: "none" });
}

export class Picture {
  width; height; bitmap = null; half = []; tiles = new Map();

  // `version` is that of the file: browsers keep pictures by their address.
  constructor({ id, version, width, height, view, levels }) {
    this.url = `/api/images/${id}`;
    this.query = `?version=${version}`;
    this.levels = view === "whole" ? 0 : levels;
    Object.assign(this, { width, height });
    this.changed = () => {};
  }

  async load() {
    if (this.levels === 0) this.bitmap = await bitmap(`${this.url}/whole${this.query}`);
    const top = this.bitmap ?? (await this.tile(this.levels - 1, 0, 0)).bitmap;
    this.stretch = levelsOf(top); // a CSS filter
    return this;
  }

  close() {
    this.bitmap?.close();
    this.bitmap = null;
    for (const one of this.half) one?.close();
    this.half = [];
    for (const tile of this.tiles.values()) tile.bitmap?.close();
    this.tiles.clear();
  }

  // A tile that is here or on its way; the oldest ones make room.
  tile(level, column, row) {
    const key = `${level}/${column}/${row}`;
    let tile = this.tiles.get(key);
    if (tile === undefined) {
      tile = { bitmap: null, ready: null };
      tile.ready = bitmap(`${this.url}/tiles/${key}${this.query}`).then(
        (made) => {
          tile.bitmap = made;
          this.changed();
        },
        (error) => {
          this.tiles.delete(key);
          throw error;
        },
      );
      tile.ready.catch(() => {});
    }
    this.tiles.delete(key);
    this.tiles.set(key, tile);
    for (const [old, { bitmap: made }] of this.tiles) {
      if (this.tiles.size <= KEPT) break;
      if (old === `${this.levels - 1}/0/0`) continue;
      made?.close();
      this.tiles.delete(old);
    }
    return tile.ready.then(() => tile);
  }

  draw(context, view) {
    const { width, height } = context.canvas;
    context.clearRect(0, 0, width, height);
    // From three screen pixels to an image pixel on, the pixels are shown as they are.
    context.imageSmoothingEnabled = view.scale < 3;
    context.imageSmoothingQuality = "medium";
    if (this.levels > 0) this.drawTiles(context, view);
    else if (this.bitmap !== null) {
      const source = this.reduced(view.scale);
      context.drawImage(
        source, view.x, view.y, this.width * view.scale, this.height * view.scale,
      );
    }
  }

  // The bitmap, or a half or a quarter of it where that has pixels enough: drawn faster, and smooth.
  reduced(scale) {
    let source = this.bitmap;
    for (let level = 0; level < 2 && scale <= 0.5 ** (level + 1); level += 1) {
      const made = this.half[level];
      if (made === undefined) {
        this.half[level] = null;
        createImageBitmap(source, {
          resizeWidth: Math.max(1, Math.round(source.width / 2)),
          resizeHeight: Math.max(1, Math.round(source.height / 2)),
          resizeQuality: "high",
        }).then((small) => {
          this.half[level] = small;
          this.changed();
        }, () => {});
      }
      if (!made) break;
      source = made;
    }
    return source;
  }

  level(scale) {
    const wanted = Math.floor(Math.log2(1 / scale));
    return Math.min(this.levels - 1, Math.max(0, wanted));
  }

  drawTiles(context, view) {
    const { width, height } = context.canvas;
    context.save();
    context.beginPath();
    context.rect(view.x, view.y, this.width * view.scale, this.height * view.scale);
    context.clip();
    const level = this.level(view.scale);
    const step = SIDE * 2 ** level; // image pixels to a tile
    const last = (size) => Math.ceil(size / step) - 1;
    const first = (origin) => Math.max(0, Math.floor(-origin / view.scale / step));
    const end = (origin, screen, size) =>
      Math.min(last(size), Math.floor((screen - origin) / view.scale / step));
    for (let row = first(view.y); row <= end(view.y, height, this.height); row += 1) {
      for (let column = first(view.x); column <= end(view.x, width, this.width); column += 1) {
        this.drawTile(context, view, level, column, row);
      }
    }
    context.restore();
  }

  drawTile(context, view, level, column, row) {
    const own = this.tiles.get(`${level}/${column}/${row}`);
    if (own === undefined || own.bitmap === null) {
      if (own === undefined) this.tile(level, column, row).catch(() => {});
      this.drawParent(context, view, level, column, row);
      return;
    }
    const step = 2 ** level * view.scale;
    place(context, own.bitmap, [0, 0, own.bitmap.width, own.bitmap.height], [
      view.x + column * SIDE * step,
      view.y + row * SIDE * step,
      own.bitmap.width * step,
      own.bitmap.height * step,
    ]);
  }

  // While a tile is on its way, its part of the nearest coarser tile stands for it.
  drawParent(context, view, level, column, row) {
    for (let up = level + 1; up < this.levels; up += 1) {
      const factor = 2 ** (up - level);
      const key = `${up}/${Math.floor(column / factor)}/${Math.floor(row / factor)}`;
      const made = this.tiles.get(key)?.bitmap;
      if (!made) continue;
      const part = SIDE / factor;
      const left = (column % factor) * part;
      const top = (row % factor) * part;
      const w = Math.min(part, made.width - left);
      const h = Math.min(part, made.height - top);
      if (w <= 0 || h <= 0) return;
      const step = 2 ** up * view.scale;
      const x = view.x + column * SIDE * 2 ** level * view.scale;
      const y = view.y + row * SIDE * 2 ** level * view.scale;
      place(context, made, [left, top, w, h], [x, y, w * step, h * step]);
      return;
    }
  }

  async pixels({ x, y, w, h }) {
    const canvas = new OffscreenCanvas(w, h);
    const context = canvas.getContext("2d", { willReadFrequently: true });
    if (this.levels === 0) {
      context.drawImage(this.bitmap, -x, -y);
    } else {
      const asked = [];
      for (let row = Math.floor(y / SIDE); row * SIDE < y + h; row += 1) {
        for (let column = Math.floor(x / SIDE); column * SIDE < x + w; column += 1) {
          asked.push(
            this.tile(0, column, row).then(({ bitmap: made }) => {
              context.drawImage(made, column * SIDE - x, row * SIDE - y);
            }),
          );
        }
      }
      await Promise.all(asked);
    }
    return context.getImageData(0, 0, w, h);
  }
}

// Tiles end at whole pixels of the screen: half covered ones would show as a grid of seams.
function place(context, source, [sx, sy, sw, sh], [x, y, w, h]) {
  const left = Math.round(x);
  const top = Math.round(y);
  const wide = Math.round(x + w) - left;
  const high = Math.round(y + h) - top;
  context.drawImage(source, sx, sy, sw, sh, left, top, wide, high);
}
