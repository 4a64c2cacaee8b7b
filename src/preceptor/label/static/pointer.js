// Mouse, pen and touch on the stage: what draws, and what moves the view.

const RIGHT = 2;
const MIDDLE = 1;
const RUBBER = 5; // the other end of a pen
const THINNEST = 0.1;

export class Pointer {
  stage; view; draw; settings; resize; level; erasing; ring;
  window = false; // whether a drag changes brightness and contrast
  space = false; // whether the space bar is held
  shift = false; // whether Shift was held at the last click
  leveling = null; drawing = null; panning = null; // the pointers that do
  fingers = new Map(); penSeen = false;

  constructor(stage, view, draw, { settings, resize, level, erasing, ring }) {
    Object.assign(this, { stage, view, draw, settings, resize, level, erasing, ring });
    stage.addEventListener("pointerdown", (event) => this.down(event));
    stage.addEventListener("pointermove", (event) => this.move(event));
    for (const kind of ["pointerup", "pointercancel"]) {
      stage.addEventListener(kind, (event) => this.up(event));
    }
    stage.addEventListener("pointerleave", (event) => this.ring(event));
    stage.addEventListener("contextmenu", (event) => event.preventDefault());
    stage.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    // A middle click would scroll the page, or paste.
    stage.addEventListener("mousedown", (event) => {
      if (event.button === MIDDLE) event.preventDefault();
    });
  }

  hold(space) {
    this.space = space;
    this.stage.classList.toggle("pan", space || this.panning !== null);
  }

  down(event) {
    this.stage.focus({ preventScroll: true });
    try {
      this.stage.setPointerCapture(event.pointerId);
    } catch {
      // A pointer that is gone already needs no capture.
    }
    if (event.pointerType === "pen") {
      this.penSeen = true;
      if (this.fingers.has(this.drawing)) this.takeBack(); // it was the hand of the pen
    }
    if (event.pointerType === "touch") {
      if (this.drawing !== null && !this.fingers.has(this.drawing)) return; // the hand of a pen
      this.fingers.set(event.pointerId, [event.clientX, event.clientY]);
      // The second finger says that the first one did not mean to draw.
      if (this.fingers.size > 1) {
        this.takeBack();
        return;
      }
      if (this.penSeen) return;
    }
    if (event.button === MIDDLE || (this.space && event.button === 0)) {
      this.panning = event.pointerId;
      this.last = [event.clientX, event.clientY];
      this.stage.classList.add("pan");
      return;
    }
    if (this.window && event.button === 0) {
      this.leveling = event.pointerId;
      this.last = [event.clientX, event.clientY];
      return;
    }
    if (this.drawing !== null || ![0, RIGHT, RUBBER].includes(event.button)) return;
    this.drawing = event.pointerId;
    const erase = event.button !== 0 || this.erasing();
    this.draw.press(...this.view.toImage(event.clientX, event.clientY), pressure(event), erase);
    this.ring(event);
  }

  // The pointer that draws did not mean to.
  takeBack() {
    this.leveling = null;
    if (this.drawing !== null) this.draw.retract();
    this.drawing = null;
  }

  move(event) {
    if (event.pointerType === "touch" && !this.fingers.has(event.pointerId)) return;
    const one = this.drawing === event.pointerId || this.leveling === event.pointerId;
    if (this.fingers.has(event.pointerId) && !one) {
      this.finger(event);
      return;
    }
    if (this.panning === event.pointerId) {
      this.view.pan(event.clientX - this.last[0], event.clientY - this.last[1]);
      this.last = [event.clientX, event.clientY];
      return;
    }
    if (this.leveling === event.pointerId) {
      this.level(event.clientX - this.last[0], event.clientY - this.last[1]);
      this.last = [event.clientX, event.clientY];
      return;
    }
    this.ring(event);
    if (this.drawing === event.pointerId) {
      // A pen reports more often than the screen is drawn: all its points belong to the line.
      const all = event.getCoalescedEvents?.() ?? [];
      for (const one of all.length > 0 ? all : [event]) {
        this.draw.drag(...this.view.toImage(one.clientX, one.clientY), pressure(one));
      }
    } else {
      this.draw.hover(...this.view.toImage(event.clientX, event.clientY));
    }
  }

  finger(event) {
    const before = [...this.fingers.values()];
    this.fingers.set(event.pointerId, [event.clientX, event.clientY]);
    const after = [...this.fingers.values()];
    // While a pen draws, the hand beside it moves nothing.
    if (after.length > 2 || this.drawing !== null) return;
    const [x, y] = center(after);
    const [fromX, fromY] = center(before);
    this.view.pan(x - fromX, y - fromY);
    if (after.length === 2 && apart(before) > 0) {
      this.view.zoom(apart(after) / apart(before), x, y);
    }
  }

  up(event) {
    this.fingers.delete(event.pointerId);
    if (this.panning === event.pointerId) {
      this.panning = null;
      this.hold(this.space);
    }
    if (this.leveling === event.pointerId) this.leveling = null;
    if (this.drawing !== event.pointerId) return;
    this.drawing = null;
    this.shift = event.shiftKey;
    if (event.type === "pointercancel") this.draw.retract();
    else this.draw.release(...this.view.toImage(event.clientX, event.clientY));
  }

  wheel(event) {
    event.preventDefault();
    const lines = event.deltaMode === 0 ? 1 : 16;
    const delta = (event.deltaY || event.deltaX) * lines;
    if (event.shiftKey) {
      this.resize(delta < 0 ? 1 : -1);
      this.ring(event);
      return;
    }
    const speed = event.ctrlKey ? 0.01 : 0.0015; // a pinch on a touchpad has small steps
    const step = Math.min(0.5, Math.max(-0.5, -delta * speed));
    this.view.zoom(Math.exp(step), event.clientX, event.clientY);
    this.ring(event);
  }
}

// The share of the size that a pen's pressure gives; a mouse and a finger have all of it.
function pressure(event) {
  return event.pointerType === "pen" ? Math.max(THINNEST, event.pressure) : 1;
}

/** @type {(points: number[][]) => number[]} */
function center(points) {
  const sum = points.reduce(([x, y], [px, py]) => [x + px, y + py], [0, 0]);
  return [sum[0] / points.length, sum[1] / points.length];
}

/** @type {(points: number[][]) => number} */
function apart([one, other]) {
  return other === undefined ? 0 : Math.hypot(one[0] - other[0], one[1] - other[1]);
}
