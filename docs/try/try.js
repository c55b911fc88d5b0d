"use strict";
// All that the page needs is in its own data: runtime, networks, pictures. It fetches nothing.
// Names of classes and files are a stranger's: they only ever go into textContent.

const DATA = JSON.parse(document.getElementById("data").textContent);
const ROUNDS = 9; // a time is the median of so many
const ROUND_MS = 8; // browsers round their clocks, so a round repeats the run for about as long
const SHOWN_CLASSES = 10;

const $ = (id) => document.getElementById(id);
const paper = $("picture").getContext("2d", { willReadFrequently: true });
const side = ($("picture").width = $("picture").height = DATA.side);
const sessions = {};
const squares = DATA.rows.map(() => []); // of the grid, [module][cell]
let truth = null; // class of the picture, while it is one of ours
let drawing = false;
let latest = Promise.resolve(); // run of a network
let asked = 0, answered = 0, busy = false;

function add(parent, tag, text = "") {
  const element = parent.appendChild(document.createElement(tag));
  element.textContent = text;
  return element;
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
  layOut();
  const code = new Blob([await unpack(DATA.runtime)], { type: "text/javascript" });
  globalThis.ort = await import(URL.createObjectURL(code));
  ort.env.wasm.numThreads = 1; // more need special headers from the server
  ort.env.wasm.wasmBinary = (await unpack(DATA.wasm)).buffer;
  for (const { name, model } of DATA.networks) sessions[name] = await ort.InferenceSession.create(await unpack(model));
  listen();
  await countModules();
  await pick(DATA.images[0], $("examples").firstChild);
}

function layOut() {
  const all = DATA.rows.length * DATA.cells;
  const known = DATA.classes.slice(0, 20).join(", ") + (DATA.classes.length > 20 ? ", ..." : "");
  $("lead").textContent = `Most neural networks do the same work for every picture. This one has ${all} modules, and a small ` +
    `controller that looks at the picture first and switches on only those that it needs. The rest is not computed. ` +
    `It knows ${DATA.classes.length} things: ${known}. Whatever you show it, it takes for one of these.`;
  $("legend").textContent = `${DATA.cells} cells from left to right, ${DATA.rows.length} modules to choose from in each. ` +
    `Blue ones run; a cell with none passes on what it gets. Plain is one convolution, bottleneck a block of MobileNetV2; ` +
    `5×5 looks further around than 3×3, and ×6 has twice the channels of ×3.`;
  $("credits").textContent = DATA.credits;
  for (const image of DATA.images) {
    const button = add($("examples"), "button");
    Object.assign(button, { type: "button", title: image.name, onclick: () => pick(image, button) });
    Object.assign(add(button, "img"), { src: image.source, alt: image.name });
    add(button, "span");
    add(button, "small", " modules"); // shown where there is room
  }
  $("grid").style.setProperty("--cells", DATA.cells);
  $("grid").style.setProperty("--rows", DATA.rows.length);
  for (const [m, label] of DATA.rows.entries()) {
    const row = add($("grid"), "div");
    row.className = "row";
    add(row, "b", label);
    for (let t = 0; t < DATA.cells; t++) squares[m].push(add(row, "i"));
  }
  const heads = add($("grid"), "div");
  heads.className = "row heads";
  add(heads, "b", "cell");
  for (let t = 1; t <= DATA.cells; t++) add(heads, "i", t);
  const wires = $("grid").appendChild(document.createElementNS("http://www.w3.org/2000/svg", "svg"));
  wires.appendChild(document.createElementNS("http://www.w3.org/2000/svg", "path"));
  if (DATA.dial) {
    $("dialled").hidden = false;
    $("dial").max = DATA.dial.length - 1;
    $("dial").value = DATA.dial_now;
  }
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
  $("clear").onclick = () => changed(paint("#000"));
  $("invert").onclick = () => changed(paint("#fff", "difference"));
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
  new ResizeObserver(() => globalThis.shown && wire(shown.mask)).observe($("grid"));
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
  const left = (width - square) / 2, top = (height - square) / 2;
  paint("#000");
  paper.imageSmoothingQuality = "high";
  paper.drawImage(image, left, top, square, square, 0, 0, side, side);
}

const pixels = (of = paper) => of.getImageData(0, 0, side, side);

function planes(of = paper) { // red, green, blue: uint8 (1, 3, side, side)
  const { data } = pixels(of);
  const result = new Uint8Array(3 * side * side);
  for (let channel = 0; channel < 3; channel++)
    for (let i = 0; i < side * side; i++) result[channel * side * side + i] = data[4 * i + channel];
  return result;
}

function turnGrey() {
  const grey = pixels();
  for (let i = 0; i < grey.data.length; i += 4) {
    const [red, green, blue] = grey.data.subarray(i, i + 3);
    grey.data.fill(0.299 * red + 0.587 * green + 0.114 * blue, i, i + 3); // rounds
  }
  paper.putImageData(grey, 0, 0);
}

function hasBrightEdge() {
  const { data } = pixels();
  let sum = 0;
  for (let i = 0; i < side; i++)
    for (const at of [i, side * (side - 1) + i, side * i, side * i + side - 1]) sum += data[4 * at];
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
  truth = example.name;
  mark(button);
  return refresh();
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

function changed() {
  truth = null;
  mark(null);
  return refresh();
}

function mark(button) {
  for (const other of $("examples").children) other.setAttribute("aria-pressed", other === button);
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
    if (!drawing) await measure(seen, () => answered !== asked);
  }
  busy = false;
}

async function measure(seen, outdated) {
  const names = Object.keys(sessions);
  const times = Object.fromEntries(names.map((name) => [name, []]));
  const repeats = {};
  for (let round = 0; round <= ROUNDS; round++)
    for (const name of names) { // by turns, so that a slow moment hits all of them
      const count = repeats[name] ?? 3, began = performance.now();
      for (let i = 0; i < count; i++) await run(name, seen);
      const each = (performance.now() - began) / count;
      if (round) times[name].push(each);
      else repeats[name] = Math.ceil(ROUND_MS / Math.max(each, 0.05)); // the first warms up
      await new Promise((resolve) => setTimeout(resolve));
      if (outdated()) return;
    }
  for (const name of names) times[name] = times[name].sort((a, b) => a - b)[(ROUNDS - 1) / 2];
  shown.times = times;
  showTimes();
}

// --- what is shown ---

function showAnswer() {
  const { logits, mask } = shown;
  const most = Math.max(...logits);
  const powers = logits.map((logit) => Math.exp(logit - most));
  const sum = powers.reduce((a, b) => a + b);
  const order = [...logits.keys()].sort((a, b) => logits[b] - logits[a]).slice(0, SHOWN_CLASSES);
  const answer = DATA.classes[order[0]];
  $("answer").textContent = answer;
  $("truth").textContent = truth === null ? "" : truth === answer ? "That is right." : `That is wrong: it is of class ${truth}.`;
  $("truth").classList.toggle("wrong", truth !== null && truth !== answer);
  showBars("bars", order.map((label) => [DATA.classes[label], powers[label] / sum, percent(powers[label] / sum)]));

  for (const [m, row] of squares.entries())
    for (const [t, square] of row.entries()) {
      square.classList.toggle("on", mask[t * DATA.rows.length + m]);
      square.style.transitionDelay = drawing ? "0s" : `${t * 25}ms`;
    }
  const on = mask.filter(Boolean).length;
  $("chosen").textContent = `The network that it gets: ${on} of ${mask.length} modules`;
  $("grid").ariaLabel = `${on} of ${mask.length} modules are on. ` + DATA.rows
    .map((label, m) => `${label}: ${squares[m].flatMap((_, t) => (mask[t * DATA.rows.length + m] ? [t + 1] : [])).join(", ") || "none"}`)
    .join("; ");
  if (DATA.dial) $("budget").textContent = `${number(DATA.dial[$("dial").value].ms, 3)} ms on average, by the table`;
  wire(mask);
}

function wire(mask) { // from the left edge over all that is on, cell by cell, to the right edge
  const at = (square, part) => [square.offsetLeft + part * square.offsetWidth, square.offsetTop + square.offsetHeight / 2];
  const central = squares[DATA.rows.length >> 1];
  const lines = [];
  let before = [at(central[0], -0.3)];
  for (let t = 0; t <= DATA.cells; t++) {
    let here = squares.filter((_, m) => mask[t * DATA.rows.length + m]).map((row) => at(row[t], 0.5));
    if (t === DATA.cells) here = [at(central[t - 1], 1.3)];
    for (const [x, y] of before)
      for (const [u, v] of here) lines.push(`M${x} ${y}C${(x + u) / 2} ${y} ${(x + u) / 2} ${v} ${u} ${v}`);
    if (here.length) before = here;
  }
  $("grid").querySelector("path").setAttribute("d", lines.join(""));
}

function showTimes() {
  const { times, latency } = shown;
  const longest = Math.max(...Object.values(times));
  const rows = DATA.networks.map(({ name, label }) => [label, times[name] / longest, `${number(times[name], 2)} ms`]);
  showBars("times", rows);
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
    const bar = add($(id), "div");
    bar.className = i ? "bar" : "bar first";
    add(bar, "span").style.width = `${100 * share}%`;
    add($(id), "span", text);
  }
}

start().catch((error) => {
  $("answer").textContent = "This browser cannot run it";
  $("truth").textContent = String(error);
});
