// Run lengths of the bits of a stroke: zeros first, alternating, each an unsigned LEB128 integer.
// The same rules as label/marks.py; tests/label/runs.json is read by the tests of both.

const LARGEST = 100_000_000;

// A writer of runs. Bits are added as (value, count), in row order.
export class RunWriter {
  constructor() {
    this.bytes = [];
    this.value = 0;
    this.count = 0;
  }

  add(value, count) {
    if (count === 0) return;
    if (value === this.value) {
      this.count += count;
      return;
    }
    this.flush();
    this.value = value;
    this.count = count;
  }

  flush() {
    let rest = this.count;
    while (rest > 127) {
      this.bytes.push((rest & 127) | 128);
      rest >>>= 7;
    }
    this.bytes.push(rest);
  }

  finish() {
    this.flush();
    return Uint8Array.from(this.bytes);
  }
}

// Calls visit(start, end) for every run of ones; throws where the runs do not fit `total` bits.
export function forEachRun(bytes, total, visit) {
  if (!(total >= 1 && total <= LARGEST)) throw new RangeError("the size of the runs is not allowed");
  let at = 0;
  let value = 0;
  let place = 0;
  while (place < bytes.length) {
    let length = 0;
    let shift = 0;
    let byte = 128;
    const first = place;
    while (byte & 128) {
      if (place === bytes.length) throw new RangeError("the last run is cut off");
      if (shift > 28) throw new RangeError("a run is too long");
      byte = bytes[place];
      place += 1;
      length += (byte & 127) * 2 ** shift;
      shift += 7;
    }
    if (byte === 0 && place - first > 1) throw new RangeError("a run is padded");
    if (length === 0 && first > 0) throw new RangeError("a run is empty");
    if (at + length > total) throw new RangeError("the runs are longer than the rectangle");
    if (value) visit(at, at + length);
    at += length;
    value ^= 1;
  }
  if (at !== total) throw new RangeError("the runs are shorter than the rectangle");
}

export function toBase64(bytes) {
  let text = "";
  const step = 0x8000; // String.fromCharCode takes a limited number of arguments.
  for (let at = 0; at < bytes.length; at += step) {
    text += String.fromCharCode(...bytes.subarray(at, at + step));
  }
  return btoa(text);
}

export function fromBase64(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}
