// Colors of maps: those of the report (report/palette.py); a test compares them.
export const COLORS = [
  "#000004", "#020109", "#030312", "#06051a", "#0a0822", "#0e0b2b", "#130d34", "#180f3d",
  "#1d1147", "#221150", "#29115a", "#2f1163", "#36106b", "#3d0f71", "#440f76", "#4a1079",
  "#52137c", "#59157e", "#5f187f", "#651a80", "#6b1d81", "#721f81", "#782281", "#7e2482",
  "#842681", "#8b2981", "#912b81", "#982d80", "#9e2f7f", "#a5317e", "#ab337c", "#b2357b",
  "#ba3878", "#c03a76", "#c73d73", "#cd4071", "#d3436e", "#d9466b", "#df4a68", "#e44f64",
  "#e95462", "#ed5a5f", "#f1605d", "#f4675c", "#f66e5c", "#f8765c", "#fa7d5e", "#fb8560",
  "#fc8e64", "#fd9668", "#fe9d6c", "#fea571", "#feac76", "#feb47b", "#febb81", "#fec287",
  "#feca8d", "#fed194", "#fed89a", "#fde0a1", "#fde7a9", "#fceeb0", "#fcf6b8", "#fcfdbf",
];

/** The grayscale PNG in base64 as a canvas in these colors. */
export async function colored(png) {
  const bytes = Uint8Array.from(atob(png), (letter) => letter.charCodeAt(0));
  const levels = await createImageBitmap(new Blob([bytes], { type: "image/png" }));
  const canvas = document.createElement("canvas");
  canvas.width = levels.width;
  canvas.height = levels.height;
  const context = canvas.getContext("2d");
  context.drawImage(levels, 0, 0);
  const image = context.getImageData(0, 0, canvas.width, canvas.height);
  const table = COLORS.map((color) => [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16)));
  for (let at = 0; at < image.data.length; at += 4) {
    const [red, green, blue] = table[image.data[at] >> 2];
    image.data[at] = red;
    image.data[at + 1] = green;
    image.data[at + 2] = blue;
  }
  context.putImageData(image, 0, 0);
  return canvas;
}
