// The page to try an image: one request per image, drawn with its map.
import { colored } from "./magma.js";

/** @type {(id: string) => any} */
const $ = (id) => document.getElementById(id);
const state = { models: [], file: null, picture: null, map: null, request: null };

function tell(text, bad = false) {
  $("status").textContent = text;
  $("status").classList.toggle("bad", bad);
}

function headers() {
  const key = $("key").value.trim();
  return key ? { authorization: `Bearer ${key}` } : {};
}

/** The JSON of an answer; a refusal is thrown with its reason. */
async function asked(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, { ...options, headers: headers() });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server cannot be reached.", { cause: error });
  }
  const told = await answer.json().catch(() => ({}));
  if (answer.status === 401) {
    $("key-field").hidden = false;
    throw new Error(state.models.length || $("key").value ? "This API key is not valid." : "Enter an API key.");
  }
  if (!answer.ok) throw new Error(told.error || `The server answered ${answer.status}.`);
  return told;
}

async function loadModels() {
  const told = await asked("/models");
  state.models = told.models;
  $("model").replaceChildren(...state.models.map((one) => new Option(one.name, one.name)));
  $("model-field").hidden = state.models.length < 2;
  showThresholds();
}

function model() {
  return state.models.find((one) => one.name === $("model").value);
}

function showThresholds() {
  const found = model();
  const names = Object.entries(found?.thresholds ?? {});
  const first = found?.threshold === null ? "most probable class" : `default (${short(found.threshold)})`;
  $("threshold").replaceChildren(
    new Option(first, ""),
    ...names.map(([name, value]) => new Option(`${name} (${short(value)})`, name)),
  );
  $("threshold-field").hidden = !names.length;
}

function short(value) {
  return Number(value.toPrecision(3)).toString();
}

async function predict() {
  const { file } = state;
  if (!file) return;
  state.request?.abort();
  const own = (state.request = new AbortController());
  $("again").disabled = true;
  tell("Predicting …");
  try {
    if (!state.models.length) await loadModels();
    const query = new URLSearchParams({ model: $("model").value });
    if ($("threshold").value) query.set("threshold", $("threshold").value);
    query.set("map", model().maps === "none" ? "none" : "png");
    const body = new FormData();
    body.append("image", file, file.name || "image");
    const started = performance.now();
    const told = await asked(`/predict?${query}`, { method: "POST", body, signal: own.signal });
    const took = performance.now() - started;
    if (state.request !== own) return; // another image was chosen meanwhile
    if (!(await show(file, told, took, own))) return;
    tell(`${told.predictions[0].decision}, score ${told.predictions[0].score.toFixed(3)}`);
  } catch (error) {
    if (error.name === "AbortError") return;
    $("result").hidden = true;
    tell(error.message, true);
  } finally {
    if (state.request === own) $("again").disabled = false;
  }
}

// Whether it is shown: not if another image was chosen meanwhile.
async function show(file, told, took, own) {
  const [found] = told.predictions;
  // The browser turns the image upright, as the server does; it may not know the format.
  const picture = await createImageBitmap(file).catch(() => null);
  const map = found.map && (await colored(found.map.png));
  if (state.request !== own) return false;
  Object.assign(state, { picture, map });
  const canvas = $("canvas");
  const scale = Math.min(1, 1600 / Math.max(found.width, found.height));
  canvas.width = Math.max(1, Math.round(found.width * scale));
  canvas.height = Math.max(1, Math.round(found.height * scale));
  canvas.setAttribute(
    "aria-label",
    `${found.name}${found.map ? ` with the map of the class ${found.map.of}` : ""}`,
  );
  draw();
  $("caption").textContent = found.map ? `Map of the class “${found.map.of}”` : "This model has no maps.";
  $("opacity").closest(".slider").hidden = !found.map;
  $("decision").textContent = found.decision;
  $("score").textContent =
    `Score ${found.score.toFixed(4)}` + (told.threshold === null ? "" : `, threshold ${short(told.threshold)}`);
  $("classes").replaceChildren(...Object.entries(found.probabilities).map(row));
  const details = [
    ["Image", `${found.name}, ${found.width} × ${found.height} pixels`],
    ["Model", `${told.model}, revision ${told.revision}`],
    ["Time", `${took.toFixed(0)} ms`],
  ];
  $("details").replaceChildren(...details.flatMap(([name, text]) => [element("dt", name), element("dd", text)]));
  $("result").hidden = false;
  return true;
}

function row([name, value]) {
  const line = element("tr");
  const head = element("th", name);
  head.scope = "row";
  const bar = element("td");
  bar.className = "bar";
  const meter = element("meter");
  meter.value = value;
  meter.setAttribute("aria-hidden", "true");
  bar.append(meter);
  line.append(head, bar, element("td", value.toFixed(4)));
  return line;
}

function element(name, text = "") {
  const found = document.createElement(name);
  found.textContent = text;
  return found;
}

function draw() {
  const canvas = $("canvas");
  const context = canvas.getContext("2d");
  const { width, height } = canvas;
  context.globalAlpha = 1;
  context.clearRect(0, 0, width, height);
  if (state.picture) context.drawImage(state.picture, 0, 0, width, height);
  if (!state.map) return;
  context.globalAlpha = Number($("opacity").value) / 100;
  context.drawImage(state.map, 0, 0, width, height);
}

function take(file) {
  if (!file) return;
  state.file = file;
  predict();
}

$("file").addEventListener("change", () => take($("file").files[0]));
$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  predict();
});
$("model").addEventListener("change", () => {
  showThresholds();
  predict();
});
$("threshold").addEventListener("change", predict);
$("opacity").addEventListener("input", draw);
$("key").addEventListener("change", () => {
  state.models = [];
  loadModels().then(() => tell("")).catch((error) => tell(error.message, true));
});
for (const kind of ["dragenter", "dragover"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    $("drop").classList.add("over");
  });
}
for (const kind of ["dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    $("drop").classList.remove("over");
  });
}
document.addEventListener("drop", (event) => take(event.dataTransfer.files[0]));
document.addEventListener("paste", (event) => take(event.clipboardData.files[0]));

loadModels().catch((error) => tell(error.message, true));
