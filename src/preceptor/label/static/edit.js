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

// Sums of a window of `radius` around each value of lines; what lies beyond a line is left out.
function sums(values, lines, length, step, jump, radius) {
  const made = new Uint32Array(values.length);
  for (let line = 0; line < lines; line += 1) {
    let sum = 0;
    for (let at = -radius; at < length; at += 1) {
      if (at + radius < length) sum += values[line * jump + (at + radius) * step];
      if (at - radius > 0) sum -= values[line * jump + (at - radius - 1) * step];
      if (at >= 0) made[line * jump + at * step] = sum;
    }
  }
  return made;
}

// Pixels of which more than a share of the window of `radius` around them is set: all, any or half.
function share({ w, h, bits }, radius, kind) {
  const around = (values) => sums(sums(values, h, w, 1, w, radius), w, h, w, 1, radius);
  const set = around(bits);
  const all = around(new Uint8Array(bits.length).fill(1));
  const enough = {
    grow: (at) => set[at] > 0, shrink: (at) => set[at] === all[at], smooth: (at) => 2 * set[at] > all[at],
  }[kind];
  return Uint8Array.from(bits, (_, at) => (enough(at) ? 1 : 0));
}

// What a change adds to a mask and takes away from it; null where nothing can be changed.
export function edited(mask, kind, radius) {
  const box = dense(mask, radius + 1);
  if (box === null) return null;
  const after = kind === "fill" ? fillHoles(box, Infinity) : share(box, radius, kind);
  return [1, 0].map((value) => {
    const part = new Mask(mask.width, mask.height);
    box.bits.forEach((before, at) => {
      if (before === value || after[at] !== value) return;
      const column = box.x + (at % box.w);
      part.fillRow(box.y + Math.floor(at / box.w), column, column + 1, 1);
    });
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
