// Drawing with the tools. Each ends as the pixels of one stroke; until then it can be cancelled
// without a trace, as the marks are not touched.

import { Mask } from "./mask.js";
import { fillPinholes } from "./edit.js";
import { box, line, polygon, wand } from "./shapes.js";

const NEAR = 9; // CSS pixels within which a click means a point that is there
const LASSO = 6; // CSS pixels after which a drag sets the next point of a polygon
const WAND = 16_000_000; // pixels that the wand looks at
const PINHOLE = 16; // pixels of the largest hole that the wand fills
const STILL = 6; // CSS pixels of a drag that change no tolerance; from there on, 3 for each step

export class Draw {
  // `desk` gives: tool(), tolerate(value), view, settings, marks(), allowed(), commit(stroke), redraw(area), say(text)
  constructor(desk) {
    this.desk = desk;
    this.live = null; // {mask, erase, tool, ...} while something is being drawn
    this.points = []; // of a polygon
    this.before = 0; // number of its points before the pointer went down
    this.corner = null; // of a box
    this.at = null; // the pointer, for previews
  }

  get busy() {
    return this.live !== null;
  }

  start(erase) {
    const { width, height } = this.desk.marks();
    const tool = this.desk.tool();
    this.live = {
      mask: new Mask(width, height),
      erase,
      tool: tool === "brush" && erase ? "eraser" : tool,
      started: new Date().toISOString(),
      clock: performance.now(),
      last: null,
    };
  }

  // The pointer goes down at a point of the image; pressure is 1 without a pen.
  press(x, y, pressure, erase) {
    if (!this.desk.allowed()) return;
    const tool = this.desk.tool();
    if (tool === "point") {
      if (erase) return;
      this.start(false);
      this.live.mask.fillRow(Math.floor(y), Math.floor(x), Math.floor(x) + 1, 1);
    } else if (tool === "polygon") {
      if (this.points.length === 0) this.start(erase);
      else if (this.points.length > 2 && this.closes(x, y)) {
        this.close();
        return;
      }
      this.before = this.points.length;
      this.points.push([x, y]);
    } else if (tool === "box") {
      this.start(erase);
      this.corner = [x, y];
    } else if (tool === "wand") {
      if (this.live !== null) {
        this.desk.say("The wand is still working. Esc cancels it.");
        return;
      }
      this.start(erase);
      Object.assign(this.live, { spot: [x, y], tolerance: this.desk.settings.tolerance, pixels: null });
      this.cast();
    } else {
      this.start(erase);
      this.brush(x, y, pressure);
    }
    this.at = [x, y];
    this.desk.guide();
  }

  drag(x, y, pressure) {
    if (this.live === null) return;
    this.at = [x, y];
    if (this.live.tool === "polygon") {
      if (this.distance(this.points.at(-1), [x, y]) > LASSO) this.points.push([x, y]);
      this.desk.guide();
    } else if (this.corner !== null) {
      this.desk.guide();
    } else if (this.live.tool === "wand") {
      const way = this.desk.view.toStage(x, y)[0] - this.desk.view.toStage(...this.live.spot)[0];
      const steps = (Math.sign(way) * Math.max(0, Math.abs(way) - STILL)) / 3;
      this.desk.tolerate(Math.round(this.live.tolerance + steps));
    } else if (this.live.last !== null) {
      this.brush(x, y, pressure);
    }
  }

  hover(x, y) {
    if (this.points.length === 0) return;
    this.at = [x, y];
    this.desk.guide();
  }

  release(x, y) {
    if (this.live === null || this.live.tool === "polygon") return;
    this.live.ended = true;
    if (this.live.tool === "wand" && this.live.pixels === null) return; // it ends when they are here
    if (this.corner !== null) {
      box(this.live.mask, this.corner, [x, y]);
      this.corner = null;
    }
    this.finish();
  }

  settle() {
    if (this.live !== null) this.release(...this.at);
  }

  brush(x, y, pressure) {
    const { view, settings } = this.desk;
    const size = (settings.brush * view.ratio) / view.scale;
    const point = { x, y, r: (size / 2) * pressure };
    const area = line(this.live.mask, this.live.last ?? point, point);
    this.live.last = point;
    this.desk.redraw(area);
  }

  distance(one, other) {
    const [ax, ay] = this.desk.view.toStage(...one);
    const [bx, by] = this.desk.view.toStage(...other);
    return Math.hypot(ax - bx, ay - by);
  }

  closes(x, y) {
    return (
      this.distance(this.points[0], [x, y]) < NEAR ||
      this.distance(this.points.at(-1), [x, y]) < NEAR / 3
    );
  }

  close() {
    if (this.points.length < 3) return;
    polygon(this.live.mask, this.points);
    this.points = [];
    this.finish();
  }

  async cast() {
    const { picture } = this.desk.view;
    const live = this.live;
    const whole = { x: 0, y: 0, w: picture.width, h: picture.height };
    live.area = whole;
    if (live.area.w * live.area.h > WAND) {
      this.cancel();
      this.desk.say("The image is too large for the wand.");
      return;
    }
    try {
      live.pixels = await picture.pixels(live.area);
      if (this.live !== live) return;
      this.recast();
      if (live.ended) this.finish();
    } catch (error) {
      if (this.live !== live) return;
      this.cancel();
      this.desk.say(`The wand has no pixels here: ${error.message}.`);
    }
  }

  // Casts the wand that is at work again, after a change of the tolerance.
  recast() {
    const { live } = this;
    if (live?.tool !== "wand" || live.pixels === null) return;
    const { x, y } = live.area;
    live.mask = new Mask(live.mask.width, live.mask.height);
    wand(live.mask, live.pixels, x, y, ...live.spot.map(Math.floor), this.desk.settings.tolerance);
    fillPinholes(live.mask, PINHOLE);
    this.desk.redraw();
  }

  // Ends the stroke: {tool, erase, started, seconds, x, y, w, h, bytes} goes to the desk.
  finish() {
    const { mask, erase, tool, started, clock } = this.live;
    const stroke = mask.stroke();
    this.live = null;
    this.points = [];
    this.corner = null;
    this.desk.guide();
    if (stroke === null) return;
    const seconds = Math.round(performance.now() - clock) / 1000;
    this.desk.commit({ ...stroke, tool, erase, started, seconds });
  }

  // Takes back what the pointer that is down has begun: of a polygon, its last points.
  retract() {
    if (this.points.length === 0 || this.before === 0) {
      this.cancel();
      return;
    }
    this.points.length = this.before;
    this.at = this.points.at(-1);
    this.desk.guide();
  }

  cancel() {
    if (this.live === null) return false;
    const area = this.live.mask.bounds();
    this.live = null;
    this.points = [];
    this.corner = null;
    this.desk.guide();
    this.desk.redraw(area);
    return true;
  }
}
