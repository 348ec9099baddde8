"use strict";
// What the page shows: `data` is written by satjepa/forecast/page.py. Positions in the picture are
// counted in its own pixels from the upper left; `state` says where it lies in the view.
const $ = (id) => document.getElementById(id);
const data = JSON.parse($("data").textContent);
const layers = new Map(data.layers.map((layer) => [layer.id, layer]));
const view = $("view");
const canvas = $("canvas");
const state = { left: "", right: "", year: data.years[0], at: 50, scale: 1, x: 0, y: 0 };
const FEWEST = 4; // layers that stay decoded; each takes 8 bytes a pixel
const NEAREST = 40; // pixels of the screen for one of the picture, or
const ENLARGED = 8; // times the whole scene, where that is more

function make(tag, text, parent) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (parent) parent.append(element);
  return element;
}

// ---- layers ----

const ready = new Map(); // id -> {source, pixels}; the one used last stands last
const asked = new Set();

function sheetOf(layer, image) {
  const sheet = make("canvas");
  sheet.width = data.width;
  sheet.height = data.height;
  const context = sheet.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  const drawn = context.getImageData(0, 0, data.width, data.height);
  if (!layer.map) return { source: image, pixels: drawn.data };
  const pixels = drawn.data.slice();
  for (let i = 0; i < pixels.length; i += 4) {
    const colour = data.colours[pixels[i]];
    drawn.data[i] = colour >> 16;
    drawn.data[i + 1] = (colour >> 8) & 255;
    drawn.data[i + 2] = colour & 255;
  }
  context.putImageData(drawn, 0, 0);
  return { source: sheet, pixels };
}

async function prepare(id) {
  if (ready.has(id)) {
    const kept = ready.get(id);
    ready.delete(id);
    ready.set(id, kept);
    return;
  }
  if (asked.has(id)) return;
  asked.add(id);
  const image = new Image();
  image.src = layers.get(id).src;
  await image.decode();
  ready.set(id, sheetOf(layers.get(id), image));
  asked.delete(id);
  for (const old of [...ready.keys()].slice(0, -FEWEST)) {
    if (old !== state.left && old !== state.right) ready.delete(old);
  }
  show();
}

// ---- the view ----

const whole = () => Math.min(view.clientWidth / data.width, view.clientHeight / data.height);
const nearest = () => Math.max(NEAREST, ENLARGED * whole());

function settle() {
  // No smaller than the view, and no gap where there is a picture to fill it.
  state.scale = Math.min(Math.max(state.scale, whole()), nearest());
  for (const [axis, room, size] of [
    ["x", view.clientWidth, data.width * state.scale],
    ["y", view.clientHeight, data.height * state.scale],
  ]) {
    if (size <= room) state[axis] = (room - size) / 2;
    else state[axis] = Math.min(0, Math.max(room - size, state[axis]));
  }
  const closer = state.scale > whole() * 1.001;
  view.classList.toggle("closer", closer);
  view.dataset.zoom = (state.scale / whole()).toFixed(3);
  $("farther").disabled = $("whole").disabled = !closer;
}

function zoomBy(factor, x = view.clientWidth / 2, y = view.clientHeight / 2) {
  const before = state.scale;
  state.scale = Math.min(nearest(), Math.max(whole(), before * factor));
  state.x = x - ((x - state.x) * state.scale) / before;
  state.y = y - ((y - state.y) * state.scale) / before;
  show();
}

function moveLine(percent) {
  state.at = Math.min(100, Math.max(0, percent));
  $("swipe").value = Math.round(state.at);
  show();
}

function drawSide(context, id, from, to) {
  if (!ready.has(id) || to <= from) return;
  context.save();
  context.beginPath();
  context.rect(from, 0, to - from, view.clientHeight);
  context.clip();
  const { x, y, scale } = state;
  context.drawImage(ready.get(id).source, x, y, data.width * scale, data.height * scale);
  context.restore();
}

function paint() {
  const dots = window.devicePixelRatio || 1;
  canvas.width = Math.round(view.clientWidth * dots);
  canvas.height = Math.round(view.clientHeight * dots);
  const context = canvas.getContext("2d");
  context.setTransform(dots, 0, 0, dots, 0, 0);
  context.imageSmoothingEnabled = state.scale * dots < 3;
  context.imageSmoothingQuality = "high";
  const middle = (view.clientWidth * state.at) / 100;
  drawSide(context, state.left, 0, middle);
  drawSide(context, state.right, middle, view.clientWidth);
  $("line").style.left = `${middle}px`;
}

let waiting = false;
function show() {
  settle();
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    paint();
    ruler();
    tell();
  });
}

// ---- place ----

function projected(x, y) {
  const [a, b, c, d, e, f] = data.transform;
  return [a * x + b * y + c, d * x + e * y + f];
}

function lonLat(x, y) {
  // Between the knots of a grid that the writer has transformed.
  const last = data.lonlat.length - 1;
  const u = Math.min(Math.max((x / data.width) * last, 0), last - 1e-9);
  const v = Math.min(Math.max((y / data.height) * last, 0), last - 1e-9);
  const [column, row] = [Math.floor(u), Math.floor(v)];
  const [p, q] = [u - column, v - row];
  const at = (r, c, k) => data.lonlat[r][c][k];
  return [0, 1].map((k) => (1 - q) * ((1 - p) * at(row, column, k) + p * at(row, column + 1, k))
    + q * ((1 - p) * at(row + 1, column, k) + p * at(row + 1, column + 1, k)));
}

const degrees = (value, plus, minus) =>
  `${Math.abs(value).toFixed(5)}° ${value < 0 ? minus : plus}`;

function placeOf(x, y) {
  const parts = [];
  if (data.transform) {
    const digits = data.geographic ? 5 : 0;
    const [east, north] = projected(x, y).map((value) => value.toFixed(digits));
    parts.push(`${data.crs}  ${east}, ${north}`);
  }
  if (data.lonlat && !data.geographic) {
    const [lon, lat] = lonLat(x, y);
    parts.push(`${degrees(lat, "N", "S")}, ${degrees(lon, "E", "W")}`);
  }
  if (!parts.length) {
    parts.push(`column ${Math.floor(x * data.step)}, row ${Math.floor(y * data.step)}`);
  }
  return parts.join("  ·  ");
}

function valueOf(id, x, y) {
  const layer = layers.get(id);
  if (!ready.has(id)) return "";
  const { pixels } = ready.get(id);
  const i = 4 * (Math.floor(y) * data.width + Math.floor(x));
  if (!pixels[i + 3]) return `${layer.name}: no data`;
  const bands = layer.map ? [pixels[i]] : [...pixels.slice(i, i + 3)];
  const top = layer.map ? data.top : 1;
  const words = bands.map((n) => ((n / 255) * top * data.white).toFixed(3)).join(" ");
  return `${layer.name}: ${words}${layer.map && pixels[i] === 255 ? " or more" : ""}`;
}

let pointer = null; // where it is, in pixels of the view
function tell() {
  if (pointer) {
    const x = (pointer[0] - state.x) / state.scale;
    const y = (pointer[1] - state.y) / state.scale;
    if (x >= 0 && y >= 0 && x < data.width && y < data.height) {
      const values = [...new Set([state.left, state.right])].map((id) => valueOf(id, x, y));
      $("at").textContent = `${placeOf(x, y)}\n${values.filter(Boolean).join("  ·  ")}`;
      return;
    }
  }
  $("at").textContent = data.about;
}

function ruler() {
  if (!data.lonlat) return;
  const [x, y] = [data.width / 2, data.height / 2];
  const ends = [lonLat(x - data.width / 4, y), lonLat(x + data.width / 4, y)];
  const turn = Math.PI / 180;
  const east = ((ends[1][0] - ends[0][0] + 540) % 360 - 180) * turn * Math.cos(ends[0][1] * turn);
  const metres = 6371000 * Math.hypot(east, (ends[1][1] - ends[0][1]) * turn) / (data.width / 2);
  const most = (110 * metres) / state.scale;
  const ten = 10 ** Math.floor(Math.log10(most));
  const length = ten * [5, 2, 1].find((step) => step * ten <= most);
  if (!Number.isFinite(length)) return;
  $("ruler").hidden = false;
  $("ruler").style.width = `${(length / metres) * state.scale}px`;
  $("ruler").textContent = length < 1000 ? `${length} m` : `${length / 1000} km`;
}

// ---- what is chosen ----

const idOf = (kind, year) => data.layers.find((l) => l.kind === kind && l.year === year)?.id;
const lastImage = () => data.layers.filter((layer) => layer.kind === "image").at(-1).id;
const forecastOf = (id) => (layers.get(id).kind === "image" ? null : layers.get(id).year);

function pairs() {
  const last = lastImage();
  const of = (kind) => idOf(kind, state.year);
  const members = data.layers.filter((l) => l.kind === "member" && l.year === state.year);
  const found = [
    ["Change", last, of("mean")],
    ["Uncertainty", of("mean"), of("spread")],
    ["Two members", members[0]?.id, members[1]?.id],
    ["Truth", of("mean"), of("truth")],
    ["Error and spread", of("error"), of("spread")],
  ];
  if (data.years.length > 1) {
    found.push(["First and last year", idOf("mean", data.years[0]), idOf("mean", data.years.at(-1))]);
  }
  return found.filter(([, left, right]) => left && right);
}

function choose(left, right) {
  state.left = left;
  state.right = right;
  refresh();
}

function chooseYear(year) {
  // A side that shows the year chosen before goes along; to the last image where the new year
  // lacks what it shows.
  const along = (id) => {
    const layer = layers.get(id);
    if (forecastOf(id) !== state.year) return id;
    return data.layers.find((l) => l.year === year && l.role === layer.role)?.id
      || lastImage();
  };
  const [left, right] = [along(state.left), along(state.right)];
  state.year = year;
  choose(left, right);
}

function refresh() {
  for (const side of ["left", "right"]) {
    $(side).value = state[side];
    prepare(state[side]);
  }
  for (const input of $("years").querySelectorAll("input")) {
    input.checked = input.value === String(state.year);
  }
  $("pairs").replaceChildren();
  for (const [name, left, right] of pairs()) {
    const button = make("button", name, $("pairs"));
    button.type = "button";
    button.setAttribute("aria-pressed", left === state.left && right === state.right);
    button.addEventListener("click", () => {
      choose(left, right);
      [...$("pairs").children].find((other) => other.textContent === name)?.focus();
    });
  }
  const [left, right] = [layers.get(state.left), layers.get(state.right)];
  view.setAttribute("aria-label", `Left: ${left.name}. Right: ${right.name}.`);
  $("legend").hidden = !(left.map || right.map);
  words();
  show();
}

// ---- words ----

function words() {
  const shown = data.captions.filter((c) => c.year === null || c.year === state.year);
  $("words").replaceChildren();
  for (const { title, parts } of shown) {
    make("h3", title, $("words"));
    if (parts.length === 1 && !parts[0][0]) make("p", parts[0][1], $("words"));
    else {
      const list = make("dl", undefined, $("words"));
      for (const [name, text] of parts) {
        make("dt", name, list);
        make("dd", text, list);
      }
    }
  }
  $("captions").hidden = !shown.length;
}

function scores() {
  if (!data.scores.length) return;
  const table = make("table", undefined, $("scores"));
  const head = make("tr", undefined, make("thead", undefined, table));
  for (const text of ["PSNR in dB", "forecast", "last image kept"]) {
    make("th", text, head).scope = "col";
  }
  const body = make("tbody", undefined, table);
  for (const { name, forecast, persistence } of data.scores) {
    const row = make("tr", undefined, body);
    make("th", name, row).scope = "row";
    for (const [mine, other] of [[forecast, persistence], [persistence, forecast]]) {
      const cell = make("td", mine === null ? "–" : mine.toFixed(2), row);
      if (mine > other) cell.className = "best";
    }
  }
  make("p", "Higher is closer to what was seen. Over pixels valid in both years.", $("scores"))
    .className = "small";
  $("scores").hidden = false;
}

function fill() {
  $("lead").textContent = data.lead;
  $("note").textContent = data.note;
  $("attribution").textContent = data.attribution;
  for (const side of ["left", "right"]) {
    let group = null;
    for (const layer of data.layers) {
      if (group?.label !== layer.group) {
        group = make("optgroup", undefined, $(side));
        group.label = layer.group;
      }
      group.append(new Option(layer.name, layer.id));
    }
  }
  for (const year of data.years) {
    const label = make("label", undefined, $("years"));
    const input = make("input", undefined, label);
    input.type = "radio";
    input.name = "year";
    input.value = String(year);
    make("span", data.names[String(year)], label);
    input.addEventListener("change", () => chooseYear(year));
  }
  $("years").hidden = data.years.length < 2;
  for (const [name, text] of data.settings) {
    make("dt", name, $("facts"));
    make("dd", text, $("facts"));
  }
  $("settings").hidden = !data.settings.length;
  const hex = (colour) => `#${colour.toString(16).padStart(6, "0")}`;
  const stops = data.colours.filter((_, i) => i % 15 === 0).map(hex);
  $("ramp").style.background = `linear-gradient(90deg, ${stops.join(",")})`;
  $("ramp").setAttribute("aria-label", "colours from dark, little, to bright, much");
  $("span").textContent = data.legend;
  scores();
}

// ---- hands ----

const fingers = new Map();
let grabbed = ""; // "line", "picture" or ""

function spotOf(event) {
  const box = view.getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
}

function nearLine(event) {
  const reach = event.pointerType === "mouse" ? 14 : 28;
  return Math.abs(spotOf(event)[0] - (view.clientWidth * state.at) / 100) < reach;
}

const within = (event) => event.target.closest("label, button, #zoom");

view.addEventListener("pointerdown", (event) => {
  if (within(event) || event.button) return;
  view.setPointerCapture(event.pointerId);
  fingers.set(event.pointerId, spotOf(event));
  const closer = view.classList.contains("closer");
  grabbed = fingers.size > 1 || (closer && !nearLine(event)) ? "picture" : "line";
  view.classList.toggle("held", grabbed === "picture");
});

view.addEventListener("pointermove", (event) => {
  const now = spotOf(event);
  pointer = within(event) ? null : now;
  view.classList.toggle("online", grabbed === "line" || (!grabbed && nearLine(event)));
  const before = fingers.get(event.pointerId);
  if (!before) return tell();
  if (grabbed === "line") {
    moveLine((100 * now[0]) / view.clientWidth);
  } else {
    const other = [...fingers].find(([id]) => id !== event.pointerId)?.[1];
    if (other) {
      const apart = (spot) => Math.hypot(spot[0] - other[0], spot[1] - other[1]);
      zoomBy(apart(now) / Math.max(apart(before), 1), (now[0] + other[0]) / 2,
        (now[1] + other[1]) / 2);
    }
    const share = other ? 0.5 : 1; // of two fingers, one moves the middle by half
    state.x += (now[0] - before[0]) * share;
    state.y += (now[1] - before[1]) * share;
    show();
  }
  fingers.set(event.pointerId, now);
});

for (const end of ["pointerup", "pointercancel"]) {
  view.addEventListener(end, (event) => {
    fingers.delete(event.pointerId);
    if (!fingers.size) grabbed = "";
    view.classList.remove("held");
  });
}
view.addEventListener("pointerleave", () => {
  pointer = null;
  tell();
});
view.addEventListener("wheel", (event) => {
  // Out of the whole scene there is nothing to see: the page scrolls.
  if (event.deltaY > 0 && !view.classList.contains("closer")) return;
  event.preventDefault();
  const lines = event.deltaMode === 1 ? 16 : 1;
  zoomBy(Math.exp((-event.deltaY * lines) / 400), ...spotOf(event));
}, { passive: false });
view.addEventListener("dblclick", (event) => {
  if (!within(event)) zoomBy(2, ...spotOf(event));
});

view.addEventListener("keydown", (event) => {
  if (event.target !== view || event.ctrlKey || event.metaKey || event.altKey) return;
  const [dx, dy] = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[
    event.key] || [0, 0];
  if (event.shiftKey && (dx || dy)) {
    state.x += (dx * view.clientWidth) / 10;
    state.y += (dy * view.clientHeight) / 10;
    show();
  } else if (dx) moveLine(state.at - dx);
  else if (event.key === "Home") moveLine(0);
  else if (event.key === "End") moveLine(100);
  else if (event.key === "+" || event.key === "=") zoomBy(1.5);
  else if (event.key === "-") zoomBy(1 / 1.5);
  else if (event.key === "0") zoomBy(0);
  else if (event.key.toLowerCase() === "x") choose(state.right, state.left);
  else return;
  event.preventDefault();
});

$("swipe").addEventListener("input", () => moveLine(Number($("swipe").value)));
$("closer").addEventListener("click", () => zoomBy(1.5));
$("farther").addEventListener("click", () => zoomBy(1 / 1.5));
$("whole").addEventListener("click", () => zoomBy(0));
for (const side of ["left", "right"]) {
  $(side).addEventListener("change", () => {
    state[side] = $(side).value;
    const year = forecastOf(state[side]);
    if (year !== null) state.year = year;
    refresh();
  });
}

// ---- begin ----

const shape = Math.min(Math.max(data.width / data.height, 0.6), 2.4);
view.style.aspectRatio = String(shape);
const widest = `max(20rem, calc((100vh - 16.5rem) * ${shape}))`; // as high as the window leaves
view.style.maxWidth = $("swipe").style.maxWidth = widest;
document.querySelector("main").style.setProperty("--view", widest);
let before = 0;
new ResizeObserver(() => {
  // The same part of the scene stays in the middle.
  const now = whole();
  if (before) {
    const grown = now / before;
    for (const axis of ["x", "y"]) state[axis] *= grown;
    state.scale *= grown;
  } else state.scale = now;
  before = now;
  show();
}).observe(view);
fill();
const [, ...start] = pairs()[0];
choose(...start);
