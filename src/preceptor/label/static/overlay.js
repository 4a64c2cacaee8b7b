// Drawing of masks on the screen: a tint within a mark, a line of one screen pixel around it, and a
// dark one around that, so that a mark is seen on an image of its own color.
// Only a rectangle of the screen is drawn, from the pixels of the masks that lie under it.

import { SHIFT, SIDE } from "./mask.js";

const LOW = SIDE - 1;

// Colors of classes, in pairs of light and hue that are told apart with any color vision. The first
// is rare in photographs and in stained tissue alike.
export const COLORS = [
  [0, 230, 205], [255, 150, 20], [245, 90, 200], [60, 170, 255], [255, 225, 60],
  [255, 85, 60], [150, 225, 60], [190, 130, 255], [240, 240, 240],
]; // prettier-ignore

const SHADOW = 0.55; // opacity of the dark line

/** @type {(color: number[], alpha: number) => number} */
function packed([red, green, blue], alpha) {
  return ((Math.round(alpha * 255) << 24) | (blue << 16) | (green << 8) | red) >>> 0;
}

// The image coordinates of `count` screen pixels from `start`, with `per` samples for each.
function samples(start, count, per, origin, scale, limit) {
  const places = new Int32Array(count * per);
  for (let at = 0; at < places.length; at += 1) {
    const place = Math.floor((start + (at + 0.5) / per - origin) / scale);
    places[at] = place < 0 || place >= limit ? -1 : place;
  }
  return places;
}

// Writes `value` where a mask is set. `live` is a stroke that is being drawn, or null.
function collect(found, wide, xs, ys, per, mask, live, erase, value) {
  const { tiles, columns } = mask;
  for (let j = 0; j < ys.length; j += 1) {
    const y = ys[j];
    if (y < 0) continue;
    const line = (y & LOW) << SHIFT;
    const row = (y >> SHIFT) * columns;
    const base = Math.floor(j / per) * wide;
    let i = 0;
    while (i < xs.length) {
      if (xs[i] < 0) {
        i += 1;
        continue;
      }
      const column = xs[i] >> SHIFT;
      const tile = tiles[row + column];
      const fresh = live === null ? null : live.tiles[row + column];
      const from = i;
      // The end of this tile on the screen: estimated by bisection, as xs rises.
      let low = i;
      let high = xs.length;
      while (low < high) {
        const middle = (low + high) >> 1;
        if (xs[middle] >= 0 && xs[middle] >> SHIFT <= column) low = middle + 1;
        else high = middle;
      }
      i = low;
      if (fresh === null) {
        if (tile === null) continue;
        for (let at = from; at < i; at += 1) {
          if (tile[line | (xs[at] & LOW)]) found[base + ((at / per) | 0)] = value;
        }
      } else if (erase) {
        if (tile === null) continue;
        for (let at = from; at < i; at += 1) {
          const place = line | (xs[at] & LOW);
          if (tile[place] && !fresh[place]) found[base + ((at / per) | 0)] = value;
        }
      } else {
        for (let at = from; at < i; at += 1) {
          const place = line | (xs[at] & LOW);
          if (fresh[place] || (tile !== null && tile[place])) {
            found[base + ((at / per) | 0)] = value;
          }
        }
      }
    }
  }
}

// Draws layers, the last on top, into a rectangle of a canvas.
//   view: {scale, x, y}: screen pixels to an image pixel, and the place of the image's corner.
//   layers: [{mask, live, erase, color}]
//   area: {x, y, w, h} of the canvas, in whole pixels.
export function paint(context, view, layers, area, opacity) {
  const { x, y, w, h } = area;
  if (w <= 0 || h <= 0) return;
  // Where several image pixels share a screen pixel, a thin line must not fall between samples.
  const per = view.scale >= 1 ? 1 : Math.min(4, Math.ceil(1 / view.scale));
  const wide = w + 2; // one pixel more on each side: whether it is an edge, its neighbors say
  const found = new Uint8Array(wide * (h + 2));
  const size = layers.length > 0 ? layers[0].mask : { width: 0, height: 0 };
  const xs = samples(x - 1, w + 2, per, view.x, view.scale, size.width);
  const ys = samples(y - 1, h + 2, per, view.y, view.scale, size.height);
  layers.forEach((layer, at) => {
    collect(found, wide, xs, ys, per, layer.mask, layer.live, layer.erase, at + 1);
  });
  const fills = [0];
  const edges = [0];
  for (const { color } of layers) {
    const tone = COLORS[color % COLORS.length];
    fills.push(packed(tone, opacity));
    edges.push(packed(tone, 1));
  }
  const shadow = packed([0, 0, 0], SHADOW);
  const image = context.createImageData(w, h);
  const out = new Uint32Array(image.data.buffer);
  for (let row = 0; row < h; row += 1) {
    let at = (row + 1) * wide + 1;
    const line = row * w;
    for (let column = 0; column < w; column += 1, at += 1) {
      const value = found[at];
      if (value === 0) {
        if (found[at - 1] || found[at + 1] || found[at - wide] || found[at + wide]) {
          out[line + column] = shadow;
        }
        continue;
      }
      const edge =
        found[at - 1] !== value || found[at + 1] !== value ||
        found[at - wide] !== value || found[at + wide] !== value;
      out[line + column] = (edge ? edges : fills)[value];
    }
  }
  context.putImageData(image, x, y);
}

export function covered(layers) {
  let [left, top, right, bottom] = [Infinity, Infinity, -1, -1];
  for (const { mask, live } of layers) {
    for (const { tiles, columns } of live === null ? [mask] : [mask, live]) {
      for (let place = 0; place < tiles.length; place += 1) {
        if (tiles[place] === null) continue;
        const column = place % columns;
        const row = Math.floor(place / columns);
        left = Math.min(left, column);
        right = Math.max(right, column);
        top = Math.min(top, row);
        bottom = Math.max(bottom, row);
      }
    }
  }
  if (right < 0) return null;
  const [x, y] = [left * SIDE, top * SIDE];
  return { x, y, w: (right + 1) * SIDE - x, h: (bottom + 1) * SIDE - y };
}
