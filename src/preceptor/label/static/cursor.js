// Cursor for the keyboard: moved by arrow keys; the space bar does what a pointer's button does.

const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const FAST = 10;

export class Cursor {
  view; draw; settings; erasing; changed; say; on = false; x = 0; y = 0;
  box = null; // {live, x, y}: the box that it has begun, and its first pixel

  constructor(view, draw, { settings, erasing, changed, say }) {
    Object.assign(this, { view, draw, settings, erasing, changed, say });
  }

  get place() {
    return [this.x + 0.5, this.y + 0.5];
  }

  // The point that a tool gets. The last pixels of the image are within a polygon that reaches them.
  get point() {
    if (this.settings.tool !== "polygon") return this.place;
    const { width, height } = this.view.picture;
    return [
      this.x === width - 1 ? width : this.x + 0.5,
      this.y === height - 1 ? height : this.y + 0.5,
    ];
  }

  // Goes on with a box so that the pixels in both of its corners are within it; the second corner.
  stretch() {
    const { draw, box } = this;
    if (draw.corner === null || draw.live !== box?.live) return this.point;
    draw.corner = [Math.min(box.x, this.x), Math.min(box.y, this.y)];
    return [Math.max(box.x, this.x) + 1, Math.max(box.y, this.y) + 1];
  }

  toggle() {
    if (this.view.picture === null) return;
    this.on = !this.on;
    if (this.on) {
      const { x, y, w, h } = this.view.visible();
      this.x = Math.floor(x + w / 2);
      this.y = Math.floor(y + h / 2);
    } else {
      this.lift();
    }
    this.changed();
    this.say(this.on ? `Cursor on, at ${this.x}, ${this.y}` : "Cursor off");
  }

  key(event) {
    if (!this.on || event.ctrlKey || event.metaKey || event.altKey) return false;
    const step = STEPS[event.key];
    if (step !== undefined) this.move(step, event.shiftKey);
    else if (event.key === " ") {
      if (!event.repeat) this.press();
    } else if (event.key === "Enter" && this.draw.points.length > 0) this.draw.close();
    else return false;
    this.changed();
    return true;
  }

  move([dx, dy], fast) {
    // Where the image is shown smaller than it is, a step is a pixel of the screen.
    const unit = Math.max(1, Math.round(this.view.ratio / this.view.scale)) * (fast ? FAST : 1);
    const { width, height } = this.view.picture;
    this.x = Math.min(width - 1, Math.max(0, this.x + dx * unit));
    this.y = Math.min(height - 1, Math.max(0, this.y + dy * unit));
    this.view.reveal(...this.place);
    const { tool } = this.settings;
    if (this.draw.busy && tool !== "polygon" && tool !== "wand") this.draw.drag(...this.stretch(), 1);
    else this.draw.hover(...this.point);
    this.say(`${this.x}, ${this.y}`);
  }

  press() {
    const tool = this.settings.tool;
    if (this.draw.busy && tool !== "polygon") {
      this.lift();
      return;
    }
    this.draw.press(...this.point, 1, this.erasing());
    if (this.draw.corner !== null) {
      this.box = { live: this.draw.live, x: this.x, y: this.y };
      this.draw.drag(...this.stretch(), 1);
    }
    if (this.draw.busy) this.say(`Down at ${this.x}, ${this.y}`);
  }

  lift() {
    if (!this.draw.busy) return;
    this.draw.release(...this.stretch());
    this.say(`Up at ${this.x}, ${this.y}`);
  }
}
