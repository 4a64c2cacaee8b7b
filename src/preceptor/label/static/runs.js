// Run lengths of the bits of a stroke: zeros first, alternating, each an unsigned LEB128 integer.
// The same rules as label/marks.py, which has checked all that comes from the server.

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

// Calls visit(start, end) for every run of ones.
export function forEachRun(bytes, visit) {
  let at = 0;
  let value = 0;
  let place = 0;
  while (place < bytes.length) {
    let length = 0;
    let shift = 0;
    let byte = 128;
    while (byte & 128) {
      byte = bytes[place];
      place += 1;
      length += (byte & 127) * 2 ** shift;
      shift += 7;
    }
    if (value) visit(at, at + length);
    at += length;
    value ^= 1;
  }
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
