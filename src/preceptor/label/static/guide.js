// What helps to draw and is no mark: the ring of the brush, the shape at hand, the crosshair.

const NS = "http://www.w3.org/2000/svg";

// The last place of the pointer: the ring follows the size and the zoom without a movement.
let last = null;

export function showRing(view, settings, event) {
  const ring = document.getElementById("ring");
  if (event !== null && event !== undefined) {
    last = event.type === "pointerleave" ? null : [event.clientX, event.clientY, event.pointerType];
  }
  const { left, top, width, height } = view.stage.getBoundingClientRect();
  const inside =
    last !== null && last[0] >= left && last[1] >= top &&
    last[0] < left + width && last[1] < top + height;
  const draws = settings.tool === "brush" && !view.stage.classList.contains("window") && view.picture !== null && last?.[2] !== "touch";
  ring.hidden = !(inside && draws);
  if (ring.hidden) return;
  const size = Math.max(3, settings.brush);
  ring.style.width = `${size}px`;
  ring.style.height = `${size}px`;
  ring.style.transform =
    `translate(${last[0] - left - size / 2}px, ${last[1] - top - size / 2}px)`;
}

function shape(name, attributes) {
  const made = document.createElementNS(NS, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

export function drawGuide(svg, view, draw, cursor, settings) {
  const parts = [];
  if (draw.points.length > 0) {
    const points = draw.points.map((point) => view.toStage(...point));
    const open = draw.at === null ? points : [...points, view.toStage(...draw.at)];
    // A dark line below the light one is seen on any image.
    for (const kind of ["under", "over"]) {
      parts.push(shape("polygon", { points: open.map((one) => one.join()).join(" "), class: kind }));
    }
    points.forEach(([x, y], at) => {
      parts.push(shape("circle", { cx: x, cy: y, r: at === 0 ? 5 : 3, class: "point" }));
    });
  } else if (draw.corner !== null && draw.at !== null) {
    const [ax, ay] = view.toStage(...draw.corner);
    const [bx, by] = view.toStage(...draw.at);
    const place = {
      x: Math.min(ax, bx), y: Math.min(ay, by), width: Math.abs(ax - bx), height: Math.abs(ay - by),
    };
    for (const kind of ["under", "over"]) parts.push(shape("rect", { ...place, class: kind }));
  }
  if (cursor.on) {
    const [x, y] = view.toStage(...cursor.place);
    const size = settings.tool === "brush" ? settings.brush / 2 : 0;
    const [from, to] = [Math.max(5, size + 3), Math.max(5, size + 3) + 12];
    const path = `M${x - to} ${y}H${x - from}M${x + from} ${y}H${x + to}M${x} ${y - to}V${y - from}M${x} ${y + from}V${y + to}`;
    for (const kind of ["under", "over"]) {
      parts.push(shape("path", { d: path, class: kind }));
      if (size > 1) parts.push(shape("circle", { cx: x, cy: y, r: size, class: kind }));
    }
    parts.push(shape("circle", { cx: x, cy: y, r: 1.5, class: draw.busy ? "point down" : "point" }));
  }
  svg.replaceChildren(...parts);
}
