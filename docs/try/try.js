"use strict";
// All that the page needs is in its own data: runtime, networks, pictures. It fetches nothing.
// Names of classes and files are a stranger's: they only ever go into textContent.

const DATA = JSON.parse(document.getElementById("data").textContent);
const ROUNDS = 9; // a time is the median of so many
const ROUND_MS = 8; // a round repeats a run for as long: clocks are coarse, and interruptions then hit all alike
const SHOWN_CLASSES = 10;

const $ = (id) => document.getElementById(id);
const paper = $("picture").getContext("2d", { willReadFrequently: true });
const side = ($("picture").width = $("picture").height = DATA.side);
const sessions = {};
let squares = []; // of the grid, [module][cell]
let truth = null; // class of the picture, while it is one of ours
let drawing = false;
let latest = Promise.resolve(); // run of a network
let asked = 0, answered = 0, busy = false;

function add(parent, tag, text = "", properties = {}) {
  const element = parent.appendChild(document.createElement(tag));
  return Object.assign(element, { textContent: text, ...properties });
}

const number = (value, digits) => value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });

const percent = (share) => (share > 0 && share < 0.01 ? "< 1 %" : `${number(100 * share, 0)} %`);

// --- start ---

async function unpack(text) {
  const packed = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function start() {
  layOutExamples();
  layOutGrid();
  layOutDial();
  const code = new Blob([await unpack(DATA.runtime)], { type: "text/javascript" });
  globalThis.ort = await import(URL.createObjectURL(code));
  ort.env.wasm.numThreads = 1; // more need special headers from the server
  ort.env.wasm.wasmBinary = (await unpack(DATA.wasm)).buffer;
  for (const { name, model } of DATA.networks) sessions[name] = await ort.InferenceSession.create(await unpack(model));
  listen();
  await countModules();
  await pick(DATA.images[0], $("examples").firstChild);
}

function layOutExamples() {
  for (const image of DATA.images) {
    const button = add($("examples"), "button", "", { type: "button", title: image.name });
    button.onclick = () => pick(image, button);
    add(button, "img", "", { src: image.source, alt: image.name });
    add(button, "span");
    add(button, "small", " modules"); // shown where there is room
  }
}

function layOutGrid() {
  const cells = Array.from({ length: DATA.cells }, (_, t) => t + 1);
  $("grid").style.setProperty("--cells", DATA.cells);
  $("grid").style.setProperty("--rows", DATA.rows.length);
  const line = (label, texts, className) => {
    const row = add($("grid"), "div", "", { className });
    add(row, "b", label);
    return texts.map((text) => add(row, "i", text));
  };
  squares = DATA.rows.map((label) => line(label, cells.map(() => ""), "row"));
  line("cell", cells, "row heads");
  const wires = $("grid").appendChild(document.createElementNS("http://www.w3.org/2000/svg", "svg"));
  wires.appendChild(document.createElementNS("http://www.w3.org/2000/svg", "path"));
}

function layOutDial() {
  if (!DATA.dial) return;
  $("dialled").hidden = false;
  $("dial").max = DATA.dial.length - 1;
  $("dial").value = DATA.dial_now;
}

function listen() {
  const canvas = $("picture");
  canvas.onpointerdown = (event) => {
    drawing = true;
    canvas.setPointerCapture(event.pointerId);
    paper.strokeStyle = document.querySelector("[name=brush]:checked").value;
    Object.assign(paper, { lineWidth: side / 11, lineCap: "round", lineJoin: "round" });
    paper.beginPath();
    stroke(event);
  };
  canvas.onpointermove = (event) => drawing && stroke(event);
  canvas.onpointerup = canvas.onpointercancel = () => {
    drawing = false;
    refresh();
  };
  $("clear").onclick = () => { paint("#000"); changed(); };
  $("invert").onclick = () => { paint("#fff", "difference"); changed(); };
  $("open").onclick = () => $("file").click();
  $("file").onchange = () => $("file").files.length && open($("file").files[0]);
  $("dial").oninput = refresh;
  $("dial").onchange = countModules;
  document.ondragover = (event) => event.preventDefault() ?? document.body.classList.add("dropping");
  document.ondragleave = () => document.body.classList.remove("dropping");
  document.ondrop = (event) => {
    event.preventDefault();
    document.body.classList.remove("dropping");
    if (event.dataTransfer.files.length) open(event.dataTransfer.files[0]);
  };
  new ResizeObserver(() => globalThis.shown && wire(lit())).observe($("grid"));
}

// --- the picture: a canvas of as many pixels as the network sees ---

function paint(colour, how = "source-over") {
  Object.assign(paper, { fillStyle: colour, globalCompositeOperation: how });
  paper.fillRect(0, 0, side, side);
  paper.globalCompositeOperation = "source-over";
}

function place(image) { // its middle square, as the classifier in Python takes it
  const width = image.naturalWidth ?? image.width, height = image.naturalHeight ?? image.height;
  const square = Math.min(width, height);
  paint("#000");
  paper.imageSmoothingQuality = "high";
  paper.drawImage(image, (width - square) / 2, (height - square) / 2, square, square, 0, 0, side, side);
}

function planes(of = paper) { // red, green, blue: uint8 (1, 3, side, side)
  const { data } = of.getImageData(0, 0, side, side);
  return Uint8Array.from({ length: 3 * side * side }, (_, i) => data[4 * (i % (side * side)) + Math.floor(i / (side * side))]);
}

function turnGrey() {
  const grey = paper.getImageData(0, 0, side, side);
  for (let i = 0; i < grey.data.length; i += 4) {
    const [red, green, blue] = grey.data.subarray(i, i + 3);
    grey.data.fill(0.299 * red + 0.587 * green + 0.114 * blue, i, i + 3); // rounds
  }
  paper.putImageData(grey, 0, 0);
}

function hasBrightEdge() { // of a grey picture
  const grey = planes();
  let sum = 0;
  for (let i = 0; i < side; i++)
    for (const at of [i, side * (side - 1) + i, side * i, side * i + side - 1]) sum += grey[at];
  return sum / (4 * side) > 127;
}

function stroke(event) {
  const box = $("picture").getBoundingClientRect();
  paper.lineTo(((event.clientX - box.left) / box.width) * side, ((event.clientY - box.top) / box.height) * side);
  paper.stroke();
  changed();
}

function pick(example, button) {
  place(button.firstChild);
  return changed(example.name, button);
}

async function open(file) {
  try {
    place(await createImageBitmap(file));
  } catch {
    $("hint").textContent = `${file.name} is no picture that this browser can read; a PNG or a JPEG will do.`;
    return;
  }
  let hint = `${file.name}, cut to its middle square and shrunk to ${side} x ${side} pixels.`;
  if (DATA.light_on_black) {
    turnGrey();
    if (hasBrightEdge()) {
      paint("#fff", "difference");
      hint += " Inverted, for this network knows light things on black only.";
    }
  }
  $("hint").textContent = hint;
  await changed();
}

function changed(name = null, button = null) { // to an example, if it has a name and a button
  truth = name;
  for (const other of $("examples").children) other.setAttribute("aria-pressed", other === button);
  return refresh();
}

// --- the networks ---

function run(name, seen) { // one after the other: the runtime has one stack for all
  const feeds = { image: new ort.Tensor("uint8", seen, [1, 3, side, side]) };
  if (sessions[name].inputNames.includes("dial"))
    feeds.dial = new ort.Tensor("float32", [DATA.dial[$("dial").value].value], [1]);
  return (latest = latest.then(() => sessions[name].run(feeds)));
}

async function countModules() { // below each example
  const canvas = new OffscreenCanvas(side, side).getContext("2d", { willReadFrequently: true });
  for (const button of $("examples").children) {
    await button.firstChild.decode();
    canvas.drawImage(button.firstChild, 0, 0);
    const { mask } = await run("dynamic", planes(canvas));
    button.children[1].textContent = mask.data.reduce((sum, bit) => sum + bit, 0);
  }
}

async function refresh() { // of calls that come while another is at work, the last counts
  asked++;
  if (busy) return;
  busy = true;
  while (answered !== asked) {
    answered = asked;
    const seen = planes();
    const { logits, mask, latency_ms } = await run("dynamic", seen);
    globalThis.shown = { number: answered, seen: [...seen], logits: [...logits.data], mask: [...mask.data].map(Boolean), latency: latency_ms.data[0] };
    showAnswer();
    showNetwork();
    if (!drawing) await measure(seen);
  }
  busy = false;
}

async function timed(name, seen, count = 1) { // ms a run
  const began = performance.now();
  for (let i = 0; i < count; i++) await run(name, seen);
  return (performance.now() - began) / count;
}

async function measure(seen) { // until there is something newer to show
  const names = Object.keys(sessions);
  const times = Object.fromEntries(names.map((name) => [name, []]));
  const repeats = {};
  for (let round = 0; round <= ROUNDS; round++)
    for (const name of names) { // by turns, so that a slow moment hits all of them
      if (round) times[name].push(await timed(name, seen, repeats[name]));
      else { // the first warms up; where a processor is shared, the least is what a run takes by itself
        const least = Math.min(await timed(name, seen), await timed(name, seen), await timed(name, seen));
        repeats[name] = Math.ceil(ROUND_MS / Math.max(least, 0.2));
      }
      await new Promise((resolve) => setTimeout(resolve));
      if (answered !== asked) return;
    }
  for (const name of names) times[name] = times[name].sort((a, b) => a - b)[(ROUNDS - 1) / 2];
  shown.times = times;
  showTimes();
}

// --- what is shown ---

function showAnswer() {
  const { logits } = shown, most = Math.max(...logits);
  const powers = logits.map((logit) => Math.exp(logit - most));
  const sum = powers.reduce((a, b) => a + b);
  const order = [...logits.keys()].sort((a, b) => logits[b] - logits[a]).slice(0, SHOWN_CLASSES);
  const answer = DATA.classes[order[0]];
  $("answer").textContent = answer;
  $("truth").textContent = truth === null ? "" : truth === answer ? "That is right." : `That is wrong: it is of class ${truth}.`;
  $("truth").classList.toggle("wrong", truth !== null && truth !== answer);
  showBars("bars", order.map((label) => [DATA.classes[label], powers[label] / sum, percent(powers[label] / sum)]));
}

const lit = () => squares.map((row, m) => row.map((_, t) => shown.mask[t * squares.length + m])); // as the squares

function showNetwork() {
  const on = lit(), count = shown.mask.filter(Boolean).length;
  for (const [m, row] of squares.entries())
    for (const [t, square] of row.entries()) {
      square.classList.toggle("on", on[m][t]);
      square.style.transitionDelay = drawing ? "0s" : `${t * 25}ms`;
    }
  const cells = on.map((row) => row.flatMap((is, t) => (is ? [t + 1] : [])).join(", ") || "none");
  $("chosen").textContent = count ? `The network that it gets: ${count} of ${shown.mask.length} modules`
    : "No network runs: the controller is sure, and its answer counts";
  $("grid").ariaLabel = `${count} of ${shown.mask.length} modules are on. ` + DATA.rows.map((label, m) => `${label}: ${cells[m]}`).join("; ");
  if (DATA.dial) $("budget").textContent = `${number(DATA.dial[$("dial").value].ms, 3)} ms on average, by the table`;
  wire(on);
}

function wire(on) { // from the left edge over all that is on, cell by cell, to the right edge
  const at = (square, part) => [square.offsetLeft + part * square.offsetWidth, square.offsetTop + square.offsetHeight / 2];
  const central = squares[squares.length >> 1];
  const cells = central.map((_, t) => squares.filter((_, m) => on[m][t]).map((row) => at(row[t], 0.5)));
  const stops = [[at(central[0], -0.3)], ...cells.filter((cell) => cell.length), [at(central.at(-1), 1.3)]];
  const curve = ([x, y], [u, v]) => `M${x} ${y}C${(x + u) / 2} ${y} ${(x + u) / 2} ${v} ${u} ${v}`;
  const lines = stops.slice(1).flatMap((here, i) => stops[i].flatMap((from) => here.map((to) => curve(from, to))));
  $("grid").querySelector("path").setAttribute("d", lines.join(""));
}

function showTimes() {
  const { times, latency } = shown;
  const longest = Math.max(...Object.values(times));
  showBars("times", DATA.networks.map(({ name, label }) => [label, times[name] / longest, `${number(times[name], 2)} ms`]));
  const share = times.dynamic / times.all;
  $("verdict").textContent = `This picture took ${number(times.dynamic, 2)} ms, controller included: ` +
    (share < 1 ? `${percent(share)} of what all modules take.` : "no less than all modules take.");
  $("note").textContent = `Medians of ${ROUNDS} rounds, one thread of your processor. ` +
    `The table that the controller was trained by says ${number(latency, 3)} ms for this picture and ` +
    `${number(DATA.table_ms, 3)} ms for all modules, in onnxruntime outside of a browser.`;
}

function showBars(id, rows) {
  $(id).replaceChildren();
  for (const [i, [name, share, text]] of rows.entries()) {
    add($(id), "span", name);
    const bar = add($(id), "div", "", { className: i ? "bar" : "bar first" });
    add(bar, "span").style.width = `${100 * share}%`;
    add($(id), "span", text);
  }
}

start().catch((error) => {
  $("answer").textContent = "This browser cannot run it";
  $("truth").textContent = String(error);
});
