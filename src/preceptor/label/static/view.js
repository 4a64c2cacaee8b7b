// The view of an image: its place and scale on the screen, and what is drawn again when.

import { covered, paint } from "./overlay.js";

const LARGEST = 48; // screen pixels to an image pixel

export class View {
  stage; layers; moved; image; marks; picture = null; opacity = 0.4; scale = 1; x = 0; y = 0;
  ratio = 1; fitted = true; whole = true; dirty = null; frame = 0;

  // `layers` gives what is drawn over the picture; `moved` is called after a change of the view.
  constructor(stage, imageCanvas, markCanvas, { layers, moved }) {
    Object.assign(this, { stage, layers, moved });
    this.image = imageCanvas.getContext("2d");
    // Marks are put as pixels: a canvas in the memory of the processor takes them without a copy.
    this.marks = markCanvas.getContext("2d", { willReadFrequently: true });
    new ResizeObserver(() => this.resize()).observe(stage);
    this.resize();
  }

  resize() {
    const { width, height } = this.stage.getBoundingClientRect();
    this.ratio = window.devicePixelRatio || 1;
    const wide = Math.max(1, Math.round(width * this.ratio));
    const high = Math.max(1, Math.round(height * this.ratio));
    const { canvas } = this.image;
    if (canvas.width === wide && canvas.height === high) return;
    const center = this.toImage(...this.middle());
    for (const context of [this.image, this.marks]) {
      context.canvas.width = wide;
      context.canvas.height = high;
    }
    if (this.fitted) this.fit();
    else this.lookAt(center[0], center[1]);
  }

  show(picture) {
    if (this.picture !== null) this.picture.changed = () => {};
    this.picture = picture;
    if (picture === null) {
      this.redraw();
      return;
    }
    picture.changed = () => this.redraw();
    // In a series of images of one size, zoom and place stay.
    const { width, height } = picture;
    const same = this.size?.width === width && this.size.height === height;
    this.size = { width, height };
    if (same && !this.fitted) this.redraw();
    else this.fit();
  }

  middle() {
    const { left, top, width, height } = this.stage.getBoundingClientRect();
    return [left + width / 2, top + height / 2];
  }

  toImage(clientX, clientY) {
    const { left, top } = this.stage.getBoundingClientRect();
    return [
      ((clientX - left) * this.ratio - this.x) / this.scale,
      ((clientY - top) * this.ratio - this.y) / this.scale,
    ];
  }

  toStage(x, y) {
    return [(x * this.scale + this.x) / this.ratio, (y * this.scale + this.y) / this.ratio];
  }

  smallest() {
    const { width, height } = this.image.canvas;
    if (this.picture === null) return 1;
    return Math.min(width / this.picture.width, height / this.picture.height);
  }

  fit() {
    this.fitted = true;
    if (this.picture !== null) {
      const { width, height } = this.image.canvas;
      const edge = Math.min(24 * this.ratio, 0.04 * Math.min(width, height));
      const room = Math.min(
        (width - 2 * edge) / this.picture.width, (height - 2 * edge) / this.picture.height,
      );
      // A small image is not blown up further than its pixels bear.
      this.scale = Math.min(room, LARGEST / 4);
      this.x = (width - this.picture.width * this.scale) / 2;
      this.y = (height - this.picture.height * this.scale) / 2;
    }
    this.redraw();
  }

  lookAt(x, y) {
    const { width, height } = this.image.canvas;
    this.x = width / 2 - x * this.scale;
    this.y = height / 2 - y * this.scale;
    this.hold();
    this.redraw();
  }

  zoom(factor, clientX, clientY) {
    if (this.picture === null) return;
    const [x, y] = this.toImage(clientX, clientY);
    const least = Math.min(this.smallest() / 2, 1);
    const scale = Math.min(LARGEST, Math.max(least, this.scale * factor));
    const { left, top } = this.stage.getBoundingClientRect();
    this.x = (clientX - left) * this.ratio - x * scale;
    this.y = (clientY - top) * this.ratio - y * scale;
    this.scale = scale;
    this.fitted = false;
    this.hold();
    this.redraw();
  }

  pan(dx, dy) {
    this.x += dx * this.ratio;
    this.y += dy * this.ratio;
    this.fitted = false;
    this.hold();
    this.redraw();
  }

  // A part of the image stays in sight, wherever it is moved.
  hold() {
    if (this.picture === null) return;
    const { width, height } = this.image.canvas;
    const keep = 80 * this.ratio;
    const wide = this.picture.width * this.scale;
    const high = this.picture.height * this.scale;
    this.x = Math.min(width - Math.min(keep, wide), Math.max(Math.min(keep, wide) - wide, this.x));
    this.y = Math.min(height - Math.min(keep, high), Math.max(Math.min(keep, high) - high, this.y));
  }

  reveal(x, y) {
    const { width, height } = this.image.canvas;
    const edge = 0.1 * Math.min(width, height);
    const px = x * this.scale + this.x;
    const py = y * this.scale + this.y;
    const dx = px < edge ? edge - px : px > width - edge ? width - edge - px : 0;
    const dy = py < edge ? edge - py : py > height - edge ? height - edge - py : 0;
    if (dx !== 0 || dy !== 0) this.pan(dx / this.ratio, dy / this.ratio);
  }

  visible() {
    const { width, height } = this.image.canvas;
    const left = Math.max(0, Math.floor(-this.x / this.scale));
    const top = Math.max(0, Math.floor(-this.y / this.scale));
    const right = Math.min(this.picture.width, Math.ceil((width - this.x) / this.scale));
    const bottom = Math.min(this.picture.height, Math.ceil((height - this.y) / this.scale));
    return { x: left, y: top, w: Math.max(0, right - left), h: Math.max(0, bottom - top) };
  }

  redraw() {
    this.whole = true;
    this.request();
  }

  // Draws the marks of a rectangle of the image again; of all of it where none is given.
  redrawMarks(area) {
    if (area === undefined) {
      this.dirty = { left: -Infinity, top: -Infinity, right: Infinity, bottom: Infinity };
    } else if (area !== null) {
      const old = this.dirty ?? { left: Infinity, top: Infinity, right: -1, bottom: -1 };
      this.dirty = {
        left: Math.min(old.left, area.x), right: Math.max(old.right, area.x + area.w),
        top: Math.min(old.top, area.y), bottom: Math.max(old.bottom, area.y + area.h),
      };
    }
    this.request();
  }

  request() {
    if (this.frame === 0) this.frame = requestAnimationFrame(() => this.draw());
  }

  draw() {
    this.frame = 0;
    const { width, height } = this.image.canvas;
    const layers = this.picture === null ? [] : this.layers();
    if (this.whole) {
      if (this.picture === null) this.image.clearRect(0, 0, width, height);
      else this.picture.draw(this.image, this);
      this.moved();
    }
    if (this.whole || (this.dirty !== null && this.dirty.left === -Infinity)) {
      this.marks.clearRect(0, 0, width, height);
      const area = covered(layers);
      if (area !== null) paint(this.marks, this, layers, this.onScreen(area), this.opacity);
    } else if (this.dirty !== null) {
      const { left, top, right, bottom } = this.dirty;
      const area = this.onScreen({ x: left, y: top, w: right - left, h: bottom - top });
      paint(this.marks, this, layers, area, this.opacity);
    }
    this.whole = false;
    this.dirty = null;
  }

  // The pixels of the canvas that a rectangle of the image touches, with a margin for the outline.
  onScreen({ x, y, w, h }) {
    const { width, height } = this.image.canvas;
    const left = Math.max(0, Math.floor(x * this.scale + this.x) - 2);
    const top = Math.max(0, Math.floor(y * this.scale + this.y) - 2);
    const right = Math.min(width, Math.ceil((x + w) * this.scale + this.x) + 2);
    const bottom = Math.min(height, Math.ceil((y + h) * this.scale + this.y) + 2);
    return { x: left, y: top, w: right - left, h: bottom - top };
  }
}
