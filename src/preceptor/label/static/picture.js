// The image under the marks. Of a large image, the server sends fewer pixels.

import { Failure } from "./api.js";
import { levelsOf } from "./levels.js";

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
  width; height; bitmap = null; half = [];

  // `version` is that of the file: browsers keep pictures by their address.
  constructor({ id, version, width, height }) {
    this.url = `/api/images/${id}/whole?version=${version}`;
    Object.assign(this, { width, height });
    this.changed = () => {};
  }

  async load() {
    this.bitmap = await bitmap(this.url);
    this.stretch = levelsOf(this.bitmap); // a CSS filter
    return this;
  }

  close() {
    this.bitmap?.close();
    this.bitmap = null;
    for (const one of this.half) one?.close();
    this.half = [];
  }

  draw(context, view) {
    const { width, height } = context.canvas;
    context.clearRect(0, 0, width, height);
    // From three screen pixels to an image pixel on, the pixels are shown as they are.
    context.imageSmoothingEnabled = view.scale < 3;
    context.imageSmoothingQuality = "medium";
    if (this.bitmap !== null) {
      const source = this.reduced((view.scale * this.width) / this.bitmap.width);
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

  // Pixels of the image in a rectangle.
  pixels({ x, y, w, h }) {
    const canvas = new OffscreenCanvas(w, h);
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(this.bitmap, -x, -y, this.width, this.height);
    return context.getImageData(0, 0, w, h);
  }
}
