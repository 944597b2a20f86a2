// Shows a film on a canvas: window, zoom, pan, the activation map and regions over it. Nothing here is for diagnosis.
//
// The server sends 16-bit values, high is bright, then for each value the grey that the analysis makes of it. The header
// X-Film says how they are shown first; scp_node/analysis/answers.py (FilmView) explains its fields.
// Geometry is in pixels of the stored film, so that the same view holds when the whole film replaces a smaller one.

const LEVELS = 65536;
const PLASMA = [0x0d0887, 0x4c02a1, 0x7e03a8, 0xaa2395, 0xcc4778, 0xe56b5d, 0xf89441, 0xfdc328, 0xf0f921];
const LOWEST = -1, HIGHEST = 4, STRONGEST = 0.6; // logits and share of colour, as in the pictures beside the reports
const CONTOUR = 0; // logit, as in the reports: inside the line a place by itself speaks rather for an opacity
const LINE = [0xff, 0xe0, 0x66];
const FINE = 16; // pixels of the drawn map in one place of the map
const SMALLEST = 0.02, LARGEST = 32; // zoom: pixels of the screen for one of the film
const WHEEL = 1.0015, STEP = 1.25;

class Refusal extends Error {} // its message is for people

async function fetched(address) {
  let response;
  try {
    response = await fetch(address, { credentials: "same-origin" });
  } catch {
    throw new Refusal("The server does not answer. Reload the page to try again.");
  }
  const kind = response.headers.get("Content-Type") ?? "";
  if (response.ok && kind.startsWith("application/octet-stream")) return response;
  if (kind.startsWith("text/plain")) throw new Refusal((await response.text()).slice(0, 500));
  if (response.redirected || response.status === 401) throw new Refusal("Your session has ended. Sign in again.");
  throw new Refusal(`The film cannot be shown: the server answered with status ${response.status}.`);
}

async function fetchedFilm(address, size) {
  const response = await fetched(`${address}?size=${size}`);
  const view = JSON.parse(response.headers.get("X-Film"));
  const octets = await response.arrayBuffer();
  const count = view.values_rows * view.values_columns;
  if (octets.byteLength !== 2 * count + view.levels) throw new Refusal("The film did not arrive whole. Reload it.");
  return { view, values: new Uint16Array(octets, 0, count), greys: new Uint8Array(octets, 2 * count) };
}

// Returns a map of side x side logits in FINE steps, smoothed between the middles of its places.
function smoothed(logits, side) {
  const fine = side * FINE, values = new Float32Array(fine * fine);
  const place = (at) => Math.min(Math.max((at + 0.5) / FINE - 0.5, 0), side - 1);
  for (let row = 0; row < fine; row++) {
    for (let column = 0; column < fine; column++) {
      const y = place(row), x = place(column), top = Math.floor(y), left = Math.floor(x);
      const below = Math.min(top + 1, side - 1), right = Math.min(left + 1, side - 1), dy = y - top, dx = x - left;
      values[row * fine + column] = (logits[top * side + left] * (1 - dx) + logits[top * side + right] * dx) * (1 - dy)
        + (logits[below * side + left] * (1 - dx) + logits[below * side + right] * dx) * dy;
    }
  }
  return values;
}

// Draws a map: stronger places hide more of the film, and a line stands round those that speak for an opacity.
function drawnMap(logits) {
  const side = Math.round(Math.sqrt(logits.length)), fine = side * FINE;
  const values = smoothed(logits, side), inside = (row, column) => values[row * fine + column] > CONTOUR;
  const isLine = (row, column) => inside(row, column) && (
    row === 0 || column === 0 || row === fine - 1 || column === fine - 1 || !inside(row - 1, column)
    || !inside(row + 1, column) || !inside(row, column - 1) || !inside(row, column + 1));
  const canvas = new OffscreenCanvas(fine, fine), context = canvas.getContext("2d");
  const image = context.createImageData(fine, fine);
  for (let row = 0; row < fine; row++) {
    for (let column = 0; column < fine; column++) {
      const at = row * fine + column;
      if (isLine(row, column)) {
        image.data.set([...LINE, 255], 4 * at);
        continue;
      }
      const level = Math.min(Math.max((values[at] - LOWEST) / (HIGHEST - LOWEST), 0), 1);
      const stop = Math.min(Math.floor(level * (PLASMA.length - 1)), PLASMA.length - 2);
      const share = level * (PLASMA.length - 1) - stop;
      for (const [part, shift] of [16, 8, 0].entries()) {
        const [low, high] = [(PLASMA[stop] >> shift) & 255, (PLASMA[stop + 1] >> shift) & 255];
        image.data[4 * at + part] = low + (high - low) * share;
      }
      image.data[4 * at + 3] = 255 * STRONGEST * level;
    }
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

class FilmViewer {
  constructor(section) {
    this.section = section;
    this.canvas = section.querySelector("canvas");
    this.context = this.canvas.getContext("2d", { alpha: false });
    this.message = section.querySelector("[data-message]");
    this.readout = section.querySelector("[data-readout]");
    this.slider = section.querySelector("[data-opacity]");
    this.regions = JSON.parse(section.dataset.regions || "[]");
    this.table = new Uint32Array(LEVELS);
    this.pointers = new Map();
    this.fits = true;
    this.shown = { map: true, regions: true };
    this.actions = {
      "fit": () => this.fit(), "one-to-one": () => this.oneToOne(), "reset": () => this.reset(),
      "invert": () => this.window({ inverted: !this.inverted }),
      "analysed": () => this.window({ asAnalysed: !this.asAnalysed }),
      "zoom-in": () => this.zoom(STEP), "zoom-out": () => this.zoom(1 / STEP),
      "map": () => this.toggle("map"), "regions": () => this.toggle("regions"), "full-screen": () => this.fullScreen(),
    };
    this.keys = {
      "i": "invert", "r": "reset", "1": "one-to-one", "+": "zoom-in", "=": "zoom-in", "-": "zoom-out",
      "0": "fit", "g": "analysed", "m": "map", "b": "regions", "f": "full-screen",
    };
    this.message.textContent = "The film is loaded when it comes into sight.";
    new IntersectionObserver((seen, observer) => {
      if (!seen.some((entry) => entry.isIntersecting)) return;
      observer.disconnect();
      this.load();
    }).observe(section);
  }

  async load() {
    this.say("Loading the film …");
    try {
      this.take(await fetchedFilm(this.section.dataset.pixels, "fit"));
    } catch (refusal) {
      if (!(refusal instanceof Refusal)) { this.say("The film cannot be shown by this browser."); throw refusal; }
      return this.say(refusal.message);
    }
    this.say("");
    this.listen();
    this.reset();
    this.section.dataset.ready = "";
    if (!this.section.dataset.attention) return;
    try {
      this.map = drawnMap(new Float32Array(await (await fetched(this.section.dataset.attention)).arrayBuffer()));
    } catch (refusal) {
      if (!(refusal instanceof Refusal)) throw refusal;
      return this.tell(refusal.message);
    }
    this.ask();
  }

  take({ view, values, greys }) {
    Object.assign(this, { view, values, greys });
    this.aspect = view.spacing ? view.spacing[0] / view.spacing[1] : 1;
    this.picture = new OffscreenCanvas(view.values_columns, view.values_rows);
    this.pictureContext = this.picture.getContext("2d", { alpha: false });
    this.image = this.pictureContext.createImageData(view.values_columns, view.values_rows);
    this.pixels = new Uint32Array(this.image.data.buffer);
  }

  say(text) { // in the place of the film
    this.message.textContent = text;
    this.message.hidden = !text;
    for (const control of this.section.querySelectorAll("button, input")) control.disabled = Boolean(text);
  }

  tell(text) { // beside it
    this.note = text;
    this.ask();
  }

  listen() {
    const { canvas, section } = this;
    section.addEventListener("click", (event) => this.actions[event.target.closest("[data-do]")?.dataset.do]?.());
    section.addEventListener("keydown", (event) => this.pressed(event));
    this.slider?.addEventListener("input", () => this.ask());
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button > 1) return;
      event.preventDefault(); // the middle button would scroll
      canvas.focus({ preventScroll: true });
      canvas.setPointerCapture(event.pointerId);
      const pans = event.button === 1 || event.shiftKey;
      this.pointers.set(event.pointerId, { x: event.clientX, y: event.clientY, pans });
    });
    canvas.addEventListener("pointermove", (event) => this.follow(event));
    for (const end of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(end, (event) => this.pointers.delete(event.pointerId));
    }
    canvas.addEventListener("dblclick", () => this.fit());
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoom(WHEEL ** -(event.deltaY * (event.deltaMode === 1 ? 33 : 1)), event.clientX, event.clientY);
    }, { passive: false });
    new ResizeObserver(() => this.resize()).observe(canvas);
    window.addEventListener("resize", () => this.resize()); // also when the window moves to a screen of other density
    this.resize();
  }

  pressed(event) {
    if (event.ctrlKey || event.altKey || event.metaKey || event.target.closest("input")) return;
    const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (event.key in arrows && event.target === this.canvas) {
      const [across, down] = arrows[event.key].map((step) => step * 0.04);
      if (event.shiftKey) this.pan(across * this.canvas.width, down * this.canvas.height);
      else this.drag(across, down);
    } else if (Object.hasOwn(this.keys, event.key)) this.actions[this.keys[event.key]]();
    else return;
    event.preventDefault();
  }

  follow(event) {
    const before = this.pointers.get(event.pointerId);
    if (!before) return;
    const now = { ...before, x: event.clientX, y: event.clientY };
    const [dx, dy] = [now.x - before.x, now.y - before.y];
    this.pointers.set(event.pointerId, now);
    if (this.pointers.size === 1) {
      if (before.pans) this.pan(dx * this.density, dy * this.density);
      else this.drag(dx / this.canvas.clientWidth, dy / this.canvas.clientHeight);
    } else if (this.pointers.size === 2) { // each finger moves the middle by half of its way
      const other = [...this.pointers].find(([id]) => id !== event.pointerId)[1];
      const distance = (finger) => Math.hypot(finger.x - other.x, finger.y - other.y) || 1;
      this.pan(dx / 2 * this.density, dy / 2 * this.density);
      this.zoom(distance(now) / distance(before), (now.x + other.x) / 2, (now.y + other.y) / 2);
    }
  }

  drag(across, down) { // shares of the canvas: to the right is less contrast, down is darker
    const span = Math.max(this.view.width, 16);
    const width = Math.min(Math.max(this.width * Math.exp(3 * across), 1), 4 * LEVELS);
    const centre = Math.min(Math.max(this.centre + down * span, -LEVELS), 2 * LEVELS);
    this.window({ centre, width, asAnalysed: false, moved: true });
  }

  window(change) {
    Object.assign(this, change);
    this.repaint = true;
    this.ask();
  }

  reset() {
    const { centre, width, has_own_view } = this.view;
    this.window({ centre, width, inverted: false, asAnalysed: has_own_view, moved: false });
    this.fit();
  }

  fit() {
    const { view, canvas } = this;
    this.fits = true;
    this.scale = Math.min(canvas.width / view.columns, canvas.height / (view.rows * this.aspect));
    this.x = (canvas.width - view.columns * this.scale) / 2;
    this.y = (canvas.height - view.rows * this.scale * this.aspect) / 2;
    this.ask();
  }

  async oneToOne() {
    const { view } = this;
    this.zoom(1 / this.scale);
    [this.x, this.y] = [Math.round(this.x), Math.round(this.y)];
    if (view.values_columns === view.columns && view.values_rows === view.rows) return;
    this.tell("loading the whole film …");
    try {
      this.take(await fetchedFilm(this.section.dataset.pixels, "full"));
      this.repaint = true;
      this.tell("");
    } catch (refusal) {
      if (!(refusal instanceof Refusal || refusal instanceof RangeError)) throw refusal;
      this.tell(refusal instanceof Refusal ? refusal.message : "the whole film is too large for this browser");
    }
  }

  zoom(factor, clientX, clientY) {
    const bounds = this.canvas.getBoundingClientRect();
    const x = clientX === undefined ? this.canvas.width / 2 : (clientX - bounds.left) * this.density;
    const y = clientY === undefined ? this.canvas.height / 2 : (clientY - bounds.top) * this.density;
    const scale = Math.min(Math.max(this.scale * factor, SMALLEST), LARGEST);
    this.x = x - (x - this.x) * scale / this.scale;
    this.y = y - (y - this.y) * scale / this.scale;
    this.scale = scale;
    this.pan(0, 0);
  }

  pan(dx, dy) { // a part of the film stays in sight
    const { view, canvas, scale } = this;
    const kept = 0.1 * Math.min(canvas.width, canvas.height);
    this.x = Math.min(Math.max(this.x + dx, kept - view.columns * scale), canvas.width - kept);
    this.y = Math.min(Math.max(this.y + dy, kept - view.rows * scale * this.aspect), canvas.height - kept);
    this.fits = false;
    this.ask();
  }

  toggle(part) {
    this.shown[part] = !this.shown[part];
    this.ask();
  }

  fullScreen() {
    if (document.fullscreenElement) document.exitFullscreen();
    else this.section.requestFullscreen?.();
  }

  resize() {
    const { canvas } = this;
    this.density = window.devicePixelRatio || 1;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight].map((side) => Math.round(side * this.density));
    const [wider, higher] = [width - canvas.width, height - canvas.height];
    if (!width || !height || !(wider || higher)) return;
    [canvas.width, canvas.height] = [width, height];
    if (this.fits) this.fit();
    else this.pan(wider / 2, higher / 2);
  }

  ask() { // for one frame, however often it is asked for
    this.frame ??= requestAnimationFrame(() => {
      this.frame = undefined;
      if (this.repaint) this.paint();
      this.draw();
    });
  }

  paint() {
    const { table, values, pixels, greys } = this;
    const black = this.centre - this.width / 2;
    for (let value = 0; value < LEVELS; value++) {
      let grey = this.asAnalysed
        ? greys[Math.min(value, greys.length - 1)]
        : Math.min(Math.max(Math.round(255 * (value - black) / this.width), 0), 255);
      if (this.inverted) grey = 255 - grey;
      table[value] = 0xff000000 | (grey * 0x010101);
    }
    for (let index = 0; index < values.length; index++) pixels[index] = table[values[index]];
    this.pictureContext.putImageData(this.image, 0, 0);
    this.repaint = false;
  }

  draw() {
    const { context, canvas, view, scale } = this;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.fillStyle = "black";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.imageSmoothingQuality = "high";
    const place = [this.x, this.y, view.columns * scale, view.rows * scale * this.aspect];
    context.drawImage(this.picture, ...place);
    if (this.map && this.shown.map) {
      context.globalAlpha = this.slider ? this.slider.valueAsNumber / 100 : 1;
      context.drawImage(this.map, ...place);
      context.globalAlpha = 1;
    }
    if (this.shown.regions) for (const region of this.regions) this.outline(region, place);
    this.ruler();
    this.report();
  }

  outline({ left, top, right, bottom }, [x, y, width, height]) {
    for (const [thick, colour] of [[4, "black"], [1.5, "#00e5ff"]]) {
      this.context.lineWidth = thick * this.density;
      this.context.strokeStyle = colour;
      this.context.strokeRect(x + left * width, y + top * height, (right - left) * width, (bottom - top) * height);
    }
  }

  ruler() {
    const { context, canvas, view, density } = this;
    if (!view.spacing) return;
    const length = (millimetres) => millimetres / view.spacing[1] * this.scale;
    const centimetres = [10, 5, 1].find((size) => length(10 * size) < canvas.width / 3);
    if (!centimetres) return;
    const [x, y, end] = [12 * density, canvas.height - 12 * density, 12 * density + length(10 * centimetres)];
    const where = view.spacing_from === "ImagerPixelSpacing" ? " at the detector" : "";
    context.font = `${13 * density}px system-ui, sans-serif`;
    for (const [thick, colour] of [[4, "black"], [1.5, "white"]]) {
      [context.lineWidth, context.strokeStyle, context.fillStyle] = [thick * density, colour, colour];
      context.beginPath();
      context.moveTo(x, y - 6 * density);
      for (const corner of [[x, y], [end, y], [end, y - 6 * density]]) context.lineTo(...corner);
      context.stroke();
      const write = colour === "black" ? "strokeText" : "fillText";
      context[write](`${centimetres} cm${where}`, x + 4 * density, y - 8 * density);
    }
  }

  report() { // centre and width as DICOM counts them (PS3.3 C.11.2.1.2.1), in the units of the header
    const { view } = this;
    const centre = view.base + view.step * this.centre + 0.5, width = Math.abs(view.step) * this.width + 1;
    const numbers = [centre, width].map((value) => value.toFixed(width < 20 ? 1 : 0));
    let window = `C ${numbers[0]} W ${numbers[1]}`;
    if (this.asAnalysed) window = view.has_own_view ? `${window}, the film's own view` : "as analysed: full range";
    else if (!this.moved && !view.has_own_view) window += ", 1st to 99th percentile";
    const parts = [window, this.inverted && "inverted", `${Math.round(100 * this.scale)} %`, this.note];
    this.readout.textContent = parts.filter(Boolean).join(" · ");
    const pressed = { ...this.shown, invert: this.inverted, analysed: this.asAnalysed };
    for (const button of this.section.querySelectorAll("[aria-pressed]")) {
      button.setAttribute("aria-pressed", String(pressed[button.dataset.do]));
    }
  }
}

function start(root) {
  for (const section of root.querySelectorAll("[data-film]:not([data-started])")) {
    section.dataset.started = "";
    section.viewer = new FilmViewer(section);
  }
}

start(document);
document.addEventListener("htmx:load", (event) => start(event.target));
