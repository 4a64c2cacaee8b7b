// Magic wand: the pixels connected with a pixel (by edges) whose red, green and blue each differ
// from that pixel's by at most a tolerance.

// `image` is an ImageData; (left, top) is its place in the mask's image.
export function wand(mask, image, left, top, x, y, tolerance) {
  const { width, height, data } = image;
  const column = x - left;
  const row = y - top;
  if (column < 0 || row < 0 || column >= width || row >= height) return;
  const seed = (row * width + column) * 4;
  const [red, green, blue] = [data[seed], data[seed + 1], data[seed + 2]];
  const seen = new Uint8Array(width * height);
  const fits = (at) =>
    seen[at] === 0 &&
    Math.abs(data[at * 4] - red) <= tolerance &&
    Math.abs(data[at * 4 + 1] - green) <= tolerance &&
    Math.abs(data[at * 4 + 2] - blue) <= tolerance;
  // Row by row: a stretch is filled at once, and the stretches above and below are put on a stack.
  const stack = [row * width + column];
  while (stack.length > 0) {
    const start = stack.pop();
    if (!fits(start)) continue;
    const line = Math.floor(start / width);
    const first = line * width;
    let from = start;
    while (from > first && fits(from - 1)) from -= 1;
    let until = start + 1;
    while (until < first + width && fits(until)) until += 1;
    seen.fill(1, from, until);
    mask.fillRow(top + line, left + from - first, left + until - first, 1);
    for (const step of [-width, width]) {
      if (line + Math.sign(step) < 0 || line + Math.sign(step) >= height) continue;
      let open = false;
      for (let at = from + step; at < until + step; at += 1) {
        const fit = fits(at);
        if (fit && !open) stack.push(at);
        open = fit;
      }
    }
  }
}
