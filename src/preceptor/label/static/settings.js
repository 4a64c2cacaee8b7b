// Settings of this browser: tool, sizes, view. Kept over a reload.

const KEY = "preceptor-label-settings";
const DEFAULTS = {
  tool: "brush",
  erase: false,
  brush: 24, // in pixels of the screen
  tolerance: 24,
  color: 0, // of the first class, in the list of colors
  opacity: 40,
  auto: true, // levels of gray pictures
  brightness: 100,
  contrast: 100,
  light: false,
  keys: true, // whether keys without Ctrl act; speech input types them (WCAG 2.1.4)
  theme: "system",
};
export const LARGEST = 400;

export const settings = { ...DEFAULTS };
try {
  const kept = JSON.parse(localStorage.getItem(KEY) ?? "{}");
  for (const name of Object.keys(DEFAULTS)) {
    if (typeof kept[name] === typeof DEFAULTS[name]) settings[name] = kept[name];
  }
} catch {
  // Settings that cannot be read are those of a first visit.
}

export function change(values) {
  Object.assign(settings, values);
  try {
    localStorage.setItem(KEY, JSON.stringify(settings));
  } catch {
    // Without storage they hold until the page is closed.
  }
}

// The slider of the size is logarithmic: a step is felt alike for small and large brushes.
export function sizeOf(place) {
  return Math.max(1, Math.round(LARGEST ** (place / 100)));
}

export function placeOf(size) {
  return Math.round((100 * Math.log(size)) / Math.log(LARGEST));
}

export function stepped(size, direction) {
  const step = Math.max(1, Math.round(size / 10));
  return Math.min(LARGEST, Math.max(1, size + direction * step));
}
