// Automatic levels of gray pictures, such as MRI slices, for display alone.

const SIDE = 128; // pixels of a side of what is looked at
const GRAY = 8; // largest difference of two channels of a gray pixel
const TAIL = 0.005; // share of pixels that become black, and white

// The CSS filter that spreads the values of a gray picture over the whole range; "" of others.
export function levelsOf(source) {
  const context = new OffscreenCanvas(SIDE, SIDE).getContext("2d");
  context.drawImage(source, 0, 0, SIDE, SIDE);
  const { data } = context.getImageData(0, 0, SIDE, SIDE);
  const values = [];
  for (let at = 0; at < data.length; at += 4) {
    const [red, green, blue] = data.subarray(at, at + 3);
    if (Math.max(red, green, blue) - Math.min(red, green, blue) <= GRAY) values.push(green / 255);
  }
  values.sort((one, other) => one - other);
  const last = values.length - 1;
  const [low, high] = [values[Math.ceil(TAIL * last)], values[Math.floor((1 - TAIL) * last)]];
  if (values.length < 0.99 * SIDE * SIDE || high - low < 0.01) return "";
  // What is low becomes 0, and what is high 1: contrast turns around one half.
  return `brightness(${1 / (low + high)}) contrast(${(low + high) / (high - low)})`;
}
