// Keys and what they do: one table for the page and for its help.

// [action, keys, words]; a key is a letter, a digit, or a name of KeyboardEvent.key, with the
// modifiers Ctrl+ and Shift+ before it.
/** @type {[string, [string, string[], string][]][]} */
export const GROUPS = [
  ["With --quick", [
    ["", ["Click"], "Evidence, and the next image"],
    ["", ["Shift+Click"], "One of several evidences; Enter, or a click on the last one, moves on"],
    ["", ["N"], "Nothing to mark"],
    ["", ["U"], "Unsure: the image does not count"],
    ["", ["Backspace"], "Back; a click there begins anew"],
  ]],
  ["Marking", [
    ["brush", ["b"], "Brush"],
    ["eraser", ["e"], "Eraser"],
    ["invert", ["x"], "Paint or erase, with any tool; the right button erases"],
    ["polygon", ["p"], "Polygon: click points, Enter closes it"],
    ["box", ["r"], "Box"],
    ["wand", ["w"], "Magic wand"],
    ["smaller", ["["], "Smaller brush, less tolerance"],
    ["larger", ["]"], "Larger brush, more tolerance; Shift and wheel, too"],
    ["fill", ["h"], "Fill the holes of the mark"],
    ["smooth", ["o"], "Smooth it"],
    ["shrink", [","], "Shrink it by a pixel of the screen"],
    ["grow", ["."], "Grow it"],
    ["undo", ["Ctrl+z"], "Undo the last stroke"],
    ["redo", ["Ctrl+Shift+z", "Ctrl+y"], "Redo it"],
    ["cancel", ["Escape"], "Cancel what is being drawn"],
  ]],
  ["Answers", [
    ["next", ["n", "ArrowRight"], "Done, next image"],
    ["previous", ["ArrowLeft", "Shift+n"], "Previous image"],
    ["nothing", ["0"], "Nothing to mark"],
    ["cannot", ["c"], "Cannot judge"],
    ["label", ["1–9"], "Label"],
    ["grid", ["g"], "All images with their marks"],
  ]],
  ["View", [
    ["closer", ["+", "="], "Zoom in; the wheel, too"],
    ["farther", ["-"], "Zoom out"],
    ["fit", ["f"], "Whole image"],
    ["pan", ["Space"], "Hold to move; the middle button, too"],
    ["mark", ["m"], "Show or hide the mark"],
    ["light", ["l"], "Color, opacity, brightness, contrast"],
    ["auto", ["u"], "Automatic levels of gray images"],
    ["window", ["v"], "Drag for brightness and contrast"],
    ["help", ["?"], "This list"],
  ]],
  ["Without a mouse", [
    ["cursor", ["k"], "Cursor on and off"],
    ["move", ["Arrow keys"], "Move it; ten times as far with Shift"],
    ["press", ["Space"], "Brush or wand down or up; corner"],
    ["close", ["Enter"], "Close the polygon"],
  ]],
  ["Touch and pen", [
    ["", ["One finger"], "Draws; moves once a pen is in use"],
    ["", ["Two fingers"], "Move and zoom"],
    ["", ["Pen"], "Pressure is width; its other end erases"],
  ]],
];

const BY_KEY = new Map();
for (const [, rows] of GROUPS) {
  for (const [action, keys] of rows) {
    for (const key of keys) {
      if (!["pan", "press", "move", "close", "label", ""].includes(action)) {
        BY_KEY.set(key, action);
      }
    }
  }
}

const BRACKETS = { BracketLeft: "[", BracketRight: "]" };

// The key of BY_KEY that a key is. On keyboards with other letters than Latin ones, it is the one
// that has its place.
function nameOf({ key, code }) {
  if (!/^\p{L}+$/u.test(key) || /\p{Script=Latin}/u.test(key)) {
    return key.length === 1 ? key.toLowerCase() : key;
  }
  return BRACKETS[code] ?? /^Key([A-Z])$/.exec(code)?.[1].toLowerCase() ?? key;
}

const QUICK = { n: "nothing", u: "cannot", Backspace: "previous", Enter: "next" };
const ALSO = ["undo", "redo", "closer", "farther", "fit", "mark", "help", "grid", "previous", "next", "cancel", "label"];

// What a key does while each image gets one click.
export function quickActionOf(event) {
  const own = event.ctrlKey || event.metaKey || event.altKey ? undefined : QUICK[nameOf(event)];
  if (own !== undefined) return [own];
  const found = actionOf(event);
  return found !== null && ALSO.includes(found[0]) ? found : null;
}

export function actionOf(event) {
  const { key, code } = event;
  // On many keyboards, [ and ] are typed with AltGr or Option, most often on keys of digits.
  const typed = event.getModifierState("AltGraph") || (event.altKey && /^[[\]]$/.test(key));
  if (event.altKey && !typed) return null;
  const command = (event.ctrlKey || event.metaKey) && !typed;
  const plain = nameOf(event);
  const shift = event.shiftKey && (command || /^[a-z]$/.test(plain)) ? "Shift+" : "";
  const found = BY_KEY.get(`${command ? "Ctrl+" : ""}${shift}${plain}`);
  if (found && (event.shiftKey || !/^Digit[1-3]$/.test(code))) return [found]; // a Swiss + is Shift and 1
  // Where digits need Shift, their keys do without it. Without Num Lock, a number pad has no digits.
  const digit = /^(Digit|Numpad)(\d)$/.exec(code);
  if (digit !== null && !command && !typed && (!event.shiftKey || /^\d$/.test(key)) && (digit[1] === "Digit" || /^\d$/.test(key))) {
    const number = Number(digit[2]);
    return number === 0 ? ["nothing"] : ["label", number - 1];
  }
  // Capital letters do as small ones, where no key of their own is given: Caps Lock may be on.
  return shift && !command && BY_KEY.has(plain) ? [BY_KEY.get(plain)] : null;
}

const SHOWN = { ArrowRight: "→", ArrowLeft: "←", Escape: "Esc", "-": "−" };

function shown(key) {
  const parts = key.length > 1 ? key.split("+") : [key];
  return parts.map((part) => SHOWN[part] ?? (part.length === 1 ? part.toUpperCase() : part));
}

export function listKeys(target) {
  for (const [title, rows] of GROUPS) {
    const section = document.createElement("section");
    const head = document.createElement("h3");
    head.textContent = title;
    const list = document.createElement("dl");
    for (const [, keys, words] of rows) {
      const row = document.createElement("div");
      const term = document.createElement("dt");
      keys.forEach((key, at) => {
        if (at > 0) term.append(" or ");
        shown(key).forEach((part, place) => {
          if (place > 0) term.append(" ");
          const cap = document.createElement("kbd");
          cap.textContent = part;
          term.append(cap);
        });
      });
      const text = document.createElement("dd");
      text.textContent = words;
      row.append(term, text);
      list.append(row);
    }
    section.append(head, list);
    target.append(section);
  }
}
