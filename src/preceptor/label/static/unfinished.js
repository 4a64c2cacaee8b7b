// What is being drawn when a person goes on to something else.

import { draw } from "./canvas.js";
import { say } from "./panel.js";

// Ends a stroke that is being drawn, and says what must be ended first; whether nothing is lost then.
export function finish() {
  draw.settle();
  if (draw.points.length > 2) {
    say("The polygon is open. Enter closes it, Esc cancels it.");
    return false;
  }
  if (draw.live?.tool === "wand") {
    say("The wand is at work. Esc cancels it.");
    return false;
  }
  draw.cancel();
  return true;
}
