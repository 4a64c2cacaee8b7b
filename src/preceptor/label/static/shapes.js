// Rasterisation of tools: which pixels of a mask a brush line, a polygon or a box covers.
// A pixel belongs to a shape if its center does; the center of pixel (x, y) is (x + 0.5, y + 0.5).

// A brush line between two points with a radius at each: the pixels whose center is at most the
// radius, linear between the ends, from the nearest point of the line, and the pixels under both
// ends, which a thin brush could miss. Returns the rectangle that was touched, or null.
export function line(mask, from, to) {
  const widest = Math.max(from.r, to.r);
  const dx = to.x - from.x;
  const dy = to.y - from.y;
  const square = dx * dx + dy * dy;
  const top = Math.max(0, Math.floor(Math.min(from.y, to.y) - widest));
  const bottom = Math.min(mask.height - 1, Math.ceil(Math.max(from.y, to.y) + widest));
  const left = Math.max(0, Math.floor(Math.min(from.x, to.x) - widest));
  const right = Math.min(mask.width - 1, Math.ceil(Math.max(from.x, to.x) + widest));
  if (top > bottom || left > right) return null;
  const inside = (x, y) => {
    const px = x + 0.5 - from.x;
    const py = y + 0.5 - from.y;
    const part = square === 0 ? 0 : Math.min(1, Math.max(0, (px * dx + py * dy) / square));
    const ex = px - part * dx;
    const ey = py - part * dy;
    const radius = from.r + part * (to.r - from.r);
    return ex * ex + ey * ey <= radius * radius;
  };
  for (let y = top; y <= bottom; y += 1) {
    const [first, last] = reach(from, to, widest, dx, dy, y + 0.5, left, right);
    let start = -1;
    for (let x = first; x <= last; x += 1) {
      if (inside(x, y)) {
        if (start < 0) start = x;
      } else if (start >= 0) {
        mask.fillRow(y, start, x, 1);
        start = -1;
      }
    }
    if (start >= 0) mask.fillRow(y, start, last + 1, 1);
  }
  for (const { x, y } of [from, to]) {
    mask.fillRow(Math.floor(y), Math.floor(x), Math.floor(x) + 1, 1);
  }
  return { x: left, y: top, w: right - left + 1, h: bottom - top + 1 };
}

// The part of a row that a line of the widest radius can reach: a long oblique line has a large
// rectangle, of which few pixels are near it.
function reach(from, to, widest, dx, dy, y, left, right) {
  let low = from.x;
  let high = to.x;
  if (dy !== 0) {
    const one = from.x + (dx * (y - widest - from.y)) / dy;
    const other = from.x + (dx * (y + widest - from.y)) / dy;
    low = Math.max(Math.min(one, other), Math.min(from.x, to.x));
    high = Math.min(Math.max(one, other), Math.max(from.x, to.x));
  }
  if (low > high) [low, high] = [high, low];
  return [
    Math.max(left, Math.floor(low - widest) - 1),
    Math.min(right, Math.ceil(high + widest) + 1),
  ];
}

// A polygon of at least three points [x, y]: even-odd rule; a center on an edge belongs to the
// pixels to the right of and below the edge.
export function polygon(mask, points) {
  const ys = points.map((point) => point[1]);
  const top = Math.max(0, Math.floor(Math.min(...ys)));
  const bottom = Math.min(mask.height - 1, Math.ceil(Math.max(...ys)));
  for (let y = top; y <= bottom; y += 1) {
    const center = y + 0.5;
    const crossings = [];
    for (let at = 0; at < points.length; at += 1) {
      const [x0, y0] = points[at];
      const [x1, y1] = points[(at + 1) % points.length];
      if (y0 <= center !== y1 <= center) {
        crossings.push(x0 + ((center - y0) * (x1 - x0)) / (y1 - y0));
      }
    }
    crossings.sort((one, other) => one - other);
    for (let at = 0; at + 1 < crossings.length; at += 2) {
      const first = Math.ceil(crossings[at] - 0.5);
      const last = Math.ceil(crossings[at + 1] - 0.5);
      mask.fillRow(y, first, last, 1);
    }
  }
}

export function box(mask, one, other) {
  const left = Math.ceil(Math.min(one[0], other[0]) - 0.5);
  const right = Math.ceil(Math.max(one[0], other[0]) - 0.5);
  const top = Math.max(0, Math.ceil(Math.min(one[1], other[1]) - 0.5));
  const bottom = Math.min(mask.height, Math.ceil(Math.max(one[1], other[1]) - 0.5));
  for (let y = top; y < bottom; y += 1) mask.fillRow(y, left, right, 1);
}

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
