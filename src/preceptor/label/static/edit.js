// Changes of a whole mark: fill holes, smooth, grow, shrink; and the pinholes of the wand.

import { Mask } from "./mask.js";

const MOST = 50_000_000; // pixels that are looked at

// Bits of a mask within its bounds and a margin, as far as the image reaches; null: none, or too many.
function dense(mask, margin) {
  const box = mask.bounds();
  if (box === null) return null;
  const x = Math.max(0, box.x - margin);
  const y = Math.max(0, box.y - margin);
  const w = Math.min(mask.width, box.x + box.w + margin) - x;
  const h = Math.min(mask.height, box.y + box.h + margin) - y;
  if (w * h > MOST) return null;
  const bits = new Uint8Array(w * h);
  for (let row = 0, at = 0; row < h; row += 1) {
    for (let column = 0; column < w; column += 1, at += 1) bits[at] = mask.get(x + column, y + row);
  }
  return { x, y, w, h, bits };
}

// Fills the holes of at most `largest` pixels: what is not set, is connected by edges, and does not
// reach the border.
function fillHoles({ w, h, bits }, largest) {
  const filled = Uint8Array.from(bits);
  const seen = Uint8Array.from(bits);
  for (let first = 0; first < bits.length; first += 1) {
    if (seen[first]) continue;
    const hole = [first];
    let open = false;
    seen[first] = 1;
    for (let next = 0; next < hole.length; next += 1) {
      const at = hole[next];
      const column = at % w;
      open ||= column === 0 || column === w - 1 || at < w || at >= w * (h - 1);
      for (const one of [at - 1, at + 1, at - w, at + w]) {
        // Beyond the border, which makes the hole no hole, the neighbor is another row's.
        if (one < 0 || one >= bits.length || seen[one]) continue;
        if (Math.abs(one - at) === 1 && Math.floor(one / w) !== Math.floor(at / w)) continue;
        seen[one] = 1;
        hole.push(one);
      }
    }
    if (!open && hole.length <= largest) for (const at of hole) filled[at] = 1;
  }
  return filled;
}

// Pixels of which any, all or more than half of the window of `radius` around them are set; what lies
// beyond the border is left out. With sums of columns that move down, each pixel costs four steps.
function share({ w, h, bits }, radius, kind) {
  const found = new Uint8Array(bits.length);
  const columns = new Uint32Array(w);
  const add = (row, sign) => {
    if (row < 0 || row >= h) return;
    for (let x = 0, at = row * w; x < w; x += 1, at += 1) columns[x] += sign * bits[at];
  };
  const length = (at, end) => Math.min(at + radius, end - 1) - Math.max(at - radius, 0) + 1;
  for (let row = 0; row < radius; row += 1) add(row, 1);
  for (let y = 0; y < h; y += 1) {
    add(y + radius, 1);
    add(y - radius - 1, -1);
    const high = length(y, h);
    let set = 0;
    for (let x = -radius; x < w; x += 1) {
      if (x + radius < w) set += columns[x + radius];
      if (x - radius > 0) set -= columns[x - radius - 1];
      if (x < 0 || set === 0) continue;
      const all = high * length(x, w);
      if (kind === "grow" || set === all || (kind === "smooth" && 2 * set > all)) found[y * w + x] = 1;
    }
  }
  return found;
}

// What a change adds to a mask and takes away from it; null where nothing can be changed.
export function edited(mask, kind, radius) {
  const box = dense(mask, radius + 1);
  if (box === null) return null;
  const after = kind === "fill" ? fillHoles(box, Infinity) : share(box, radius, kind);
  return [1, 0].map((value) => {
    const part = new Mask(mask.width, mask.height);
    for (let at = 0; at < after.length; at += 1) {
      if (box.bits[at] === value || after[at] !== value) continue;
      const column = box.x + (at % box.w);
      part.fillRow(box.y + Math.floor(at / box.w), column, column + 1, 1);
    }
    return part;
  });
}

// Fills the holes of a mask that are as small as noise is.
export function fillPinholes(mask, largest) {
  const box = dense(mask, 1);
  if (box === null) return;
  fillHoles(box, largest).forEach((value, at) => {
    if (!value || box.bits[at]) return;
    const column = box.x + (at % box.w);
    mask.fillRow(box.y + Math.floor(at / box.w), column, column + 1, 1);
  });
}
