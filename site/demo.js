// The demo: an image becomes model input, goes through each model in ONNX Runtime Web, and is shown
// under the models' Grad-CAM maps. Files come from the folder assets/ or, in the self-contained
// page, from <script> elements of this page.

const SIDE = 28; // of the images the models were trained on, px
const SHOWN = 280; // of the pictures on the page, px
const MOST_PIXELS = 64e6; // of an image that is opened
// Colours of matplotlib's inferno, from 0 to 1 in equal steps.
const INFERNO = [
  "#000004", "#1b0c41", "#4a0c6b", "#781c6d", "#a52c60",
  "#cf4446", "#ed6925", "#fb9b06", "#f7d13d", "#fcffa4",
];

const element = (id) => document.getElementById(id);
const { models, samples, classes } = JSON.parse(element("data").textContent);

function say(text) {
  element("status").textContent = text;
}

async function bytes(name) {
  const inline = document.getElementById(name);
  if (!inline) {
    const answer = await fetch(`assets/${name}`);
    if (!answer.ok) throw new Error(`assets/${name}: ${answer.status}`);
    return answer.arrayBuffer();
  }
  const packed = decoded(inline.textContent);
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}

function decoded(base64) {
  return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
}

async function runtime() {
  const script = new Blob([await bytes("ort.mjs")], { type: "text/javascript" });
  const ort = await import(URL.createObjectURL(script));
  ort.env.wasm.numThreads = 1; // more would need headers that a plain file server does not send
  ort.env.wasm.wasmBinary = await bytes("ort.wasm");
  return ort;
}

// The middle square of a bitmap, in grey, averaged down to 28 x 28: what MedMNIST does to X-rays.
function shrink(bitmap) {
  const square = Math.min(bitmap.width, bitmap.height);
  const side = Math.min(square, 1024);
  const canvas = new OffscreenCanvas(side, side);
  const context = canvas.getContext("2d");
  context.fillStyle = "#000"; // behind what is transparent
  context.fillRect(0, 0, side, side);
  const left = (bitmap.width - square) / 2;
  const top = (bitmap.height - square) / 2;
  context.drawImage(bitmap, left, top, square, square, 0, 0, side, side);
  const rgba = context.getImageData(0, 0, side, side).data;
  const grey = new Float32Array(side * side);
  for (let i = 0; i < grey.length; i++) {
    const red = rgba[4 * i];
    const green = rgba[4 * i + 1];
    const blue = rgba[4 * i + 2];
    grey[i] = 0.299 * red + 0.587 * green + 0.114 * blue;
  }
  return side > SIDE ? averaged(grey, side) : resized(grey, side, SIDE);
}

// The mean of the pixels of each of 28 x 28 fields.

function averaged(values, side) {
  const out = new Float32Array(SIDE * SIDE);
  for (let row = 0; row < SIDE; row++) {
    for (let column = 0; column < SIDE; column++) {
      const [top, bottom] = [row, row + 1].map((at) => Math.round((at * side) / SIDE));
      const [left, right] = [column, column + 1].map((at) => Math.round((at * side) / SIDE));
      let sum = 0;
      for (let y = top; y < bottom; y++) {
        for (let x = left; x < right; x++) sum += values[y * side + x];
      }
      out[row * SIDE + column] = sum / ((bottom - top) * (right - left));
    }
  }
  return out;
}

// Bilinear with half-pixel centres, as the models' cards ask for: (from x from) to (to x to).
function resized(values, from, to) {
  if (from === to) return values;
  const place = Array.from({ length: to }, (_, i) => {
    const at = Math.min(Math.max(((i + 0.5) * from) / to - 0.5, 0), from - 1);
    const low = Math.floor(at);
    return [low, Math.min(low + 1, from - 1), at - low];
  });
  const out = new Float32Array(to * to);
  place.forEach(([top, bottom, down], y) =>
    place.forEach(([left, right, across], x) => {
      const between = (row) =>
        values[row * from + left] * (1 - across) + values[row * from + right] * across;
      const above = between(top);
      const below = between(bottom);
      out[y * to + x] = above * (1 - down) + below * down;
    }),
  );
  return out;
}

// Probabilities of the classes, the signed map of the target (-1: the predicted class), the time.
async function ask(ort, model, image, target) {
  const plane = resized(image, SIDE, model.size).map((value) => value / 127.5 - 1);
  const pixels = new Float32Array(3 * plane.length);
  for (const channel of [0, 1, 2]) pixels.set(plane, channel * plane.length);
  const feed = {
    pixels: new ort.Tensor("float32", pixels, [1, 3, model.size, model.size]),
    target: new ort.Tensor("int64", BigInt64Array.from([BigInt(target)]), [1]),
  };
  const start = performance.now();
  const { logits, heatmap } = await model.session.run(feed);
  const ms = performance.now() - start;
  const highest = Math.max(...logits.data);
  const odds = Array.from(logits.data, (value) => Math.exp(value - highest));
  const total = odds.reduce((a, b) => a + b);
  return { probabilities: odds.map((odd) => odd / total), map: heatmap.data, ms };
}

function ranks(values) {
  const order = Array.from(values.keys()).sort((a, b) => values[a] - values[b]);
  const out = new Array(values.length);
  let start = 0;
  while (start < order.length) {
    let end = start + 1; // equal values share the mean of their ranks
    while (end < order.length && values[order[end]] === values[order[start]]) end++;
    for (let i = start; i < end; i++) out[order[i]] = (start + end - 1) / 2;
    start = end;
  }
  return out;
}

// Spearman's rank correlation of two square maps; the finer one is averaged down to the other grid.
function spearman(a, b) {
  const side = Math.sqrt(Math.min(a.length, b.length));
  const [x, y] = [a, b].map((map) => ranks(coarse(map, side)));
  const mean = (x.length - 1) / 2;
  const covariance = (u, v) =>
    u.reduce((total, value, i) => total + (value - mean) * (v[i] - mean), 0);
  return covariance(x, y) / Math.sqrt(covariance(x, x) * covariance(y, y));
}

// As torch's adaptive average pooling: a cell is the mean of all fine cells that it touches.
function coarse(map, side) {
  const own = Math.sqrt(map.length);
  const out = new Float32Array(side * side);
  const span = (cell) => [
    Math.floor((cell * own) / side),
    Math.ceil(((cell + 1) * own) / side),
  ];
  out.forEach((_, i) => {
    const [top, bottom] = span(Math.floor(i / side));
    const [left, right] = span(i % side);
    for (let y = top; y < bottom; y++) {
      for (let x = left; x < right; x++) out[i] += map[y * own + x];
    }
    out[i] /= (bottom - top) * (right - left);
  });
  return out;
}

const COLOURS = INFERNO.map((hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16)));

// Red, green and blue of a value from 0 to 1.
function inferno(value) {
  const at = Math.min(Math.max(value, 0), 1) * (COLOURS.length - 1);
  const low = Math.min(Math.floor(at), COLOURS.length - 2);
  return COLOURS[low].map((c, k) => c + (COLOURS[low + 1][k] - c) * (at - low));
}

// Draw the image under its map; returns whether the map has a positive value.
function draw(canvas, image, map, opacity) {
  const strongest = Math.max(...map, 0);
  const scaled = map.map((value) => (strongest ? Math.max(value, 0) / strongest : 0));
  const heat = resized(scaled, Math.sqrt(map.length), SHOWN);
  const picture = new ImageData(SHOWN, SHOWN);
  heat.forEach((value, i) => {
    const row = Math.floor((Math.floor(i / SHOWN) * SIDE) / SHOWN);
    const column = Math.floor(((i % SHOWN) * SIDE) / SHOWN);
    const grey = image[row * SIDE + column];
    const share = opacity * value;
    const mixed = inferno(value).map((colour) => (1 - share) * grey + share * colour);
    picture.data.set([...mixed, 255], 4 * i);
  });
  canvas.getContext("2d").putImageData(picture, 0, 0);
  return strongest > 0;
}

// The place of a model on the page.
function card(model) {
  const box = element("card").content.firstElementChild.cloneNode(true);
  box.querySelector("h3").textContent = model.name;
  box.querySelector("progress").setAttribute("aria-label", `confidence of ${model.name}`);
  element("models").append(box);
  return box;
}

// Write a model's answer into its card; `reference` is the first model's map.
function show(model, answer, image, target, reference) {
  const part = (selector) => model.box.querySelector(selector);
  const confidence = Math.max(...answer.probabilities);
  const best = answer.probabilities.indexOf(confidence);
  const explained = classes[target < 0 ? best : target];
  const text = `${classes[best]}, ${(100 * confidence).toFixed(1)} %`;
  const canvas = part("canvas");
  const heated = draw(canvas, image, answer.map, Number(element("opacity").value));
  const described = `Grad-CAM of ${model.name} for ${explained}; its answer: ${text}`;
  canvas.setAttribute("aria-label", described);
  const empty = `; no patch raised the score of ${explained}: its map is empty`;
  part(".answer").textContent = heated ? text : text + empty;
  part("progress").value = confidence;
  const cost = [`${answer.ms.toFixed(1)} ms`, megabytes(model), `${model.tokens} tokens`];
  part(".cost").textContent = cost.join(", ");
  if (model !== models[0]) {
    const agreement = spearman(answer.map, reference).toFixed(2);
    part(".alike").textContent = `map agreement with ${models[0].name}: ${agreement}`;
  }
}

function megabytes(model) {
  return `${(model.bytes / 1e6).toFixed(1)} MB`;
}

async function main() {
  let image = null;
  let name = "";
  let turn = 0; // how often an image or a class was chosen
  const answers = new Map();
  const target = () => Number(element("target").value);
  element("target").append(new Option("the predicted class", -1));
  classes.forEach((text, i) => element("target").append(new Option(text, i)));

  function redraw() {
    if (!image) return;
    draw(element("input"), image, new Float32Array(1), 0);
    for (const [model, answer] of answers) {
      show(model, answer, image, target(), answers.get(models[0]).map);
    }
  }

  async function update() {
    turn += 1;
    const mine = turn;
    for (const model of models) {
      if (!image || !model.session) continue;
      const answer = await ask(ort, model, image, target());
      if (mine !== turn) return; // another image or class was chosen meanwhile
      answers.set(model, answer);
    }
    redraw();
    if (answers.size) say(`Shown: ${name}.`);
  }

  async function open(blob, title) {
    try {
      const bitmap = await createImageBitmap(blob);
      if (bitmap.width * bitmap.height > MOST_PIXELS) throw new Error("too large");
      image = shrink(bitmap);
      name = title;
      bitmap.close();
    } catch {
      const wanted = "a PNG, JPEG or WebP file of at most 64 megapixels";
      say(`${title} is not an image that this browser can read; choose ${wanted}.`);
      return;
    }
    await update();
  }

  samples.forEach((sample) => {
    const picture = new Image(64, 64);
    picture.src = sample.src;
    picture.alt = sample.name;
    const button = document.createElement("button");
    button.type = "button";
    button.append(picture);
    button.title = sample.name;
    button.addEventListener("click", async () => open(await blobOf(sample.src), sample.name));
    element("samples").append(button);
  });
  element("file").addEventListener("change", () => {
    const [file] = element("file").files;
    if (file) open(file, file.name);
  });
  element("target").addEventListener("change", update);
  element("opacity").addEventListener("input", redraw);
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    const [file] = event.dataTransfer.files;
    if (file) open(file, file.name);
    else say("What was dropped is not a file; drop an image file.");
  });

  const ort = await runtime();
  for (const model of models) {
    say(`Loading ${model.name}, ${megabytes(model)} ...`);
    const options = { executionProviders: ["wasm"] };
    model.session = await ort.InferenceSession.create(await bytes(model.file), options);
    model.box = card(model);
    await ask(ort, model, new Float32Array(SIDE * SIDE), -1); // the first call is slow
  }
  await open(await blobOf(samples[0].src), samples[0].name);
  document.body.dataset.ready = "yes";
}

// Not by fetch: the self-contained page asks for no address, not even for that of its own pictures.
async function blobOf(address) {
  const [, type, base64] = address.match(/^data:(.+?);base64,(.*)$/);
  return new Blob([decoded(base64)], { type });
}

main().catch((error) => {
  console.error(error);
  const needed = "The page needs WebAssembly and, opened from a folder, a local server.";
  say(`The models could not be started (${error.message}). ${needed}`);
});
