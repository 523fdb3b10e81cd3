// The demo: an image to model input, through each model in ONNX Runtime Web, and its Grad-CAM over the image.
// Files come from the folder assets/, or, in the self-contained page, from <script> elements of this page.

const SIDE = 28; // of the images the models were trained on, px
const SHOWN = 280; // of the pictures on the page, px
const INFERNO = ["#000004", "#1b0c41", "#4a0c6b", "#781c6d", "#a52c60", "#cf4446", "#ed6925", "#fb9b06", "#f7d13d", "#fcffa4"];
const MOST_PIXELS = 64e6;
const facts = JSON.parse(document.getElementById("facts").textContent);
const element = (id) => document.getElementById(id);
const say = (text) => (element("status").textContent = text);

async function bytes(name) {
  const inline = document.getElementById(name);
  if (!inline) {
    const answer = await fetch(`assets/${name}`);
    if (!answer.ok) throw new Error(`assets/${name}: ${answer.status}`);
    return answer.arrayBuffer();
  }
  const packed = Uint8Array.from(atob(inline.textContent), (c) => c.charCodeAt(0));
  return new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
}

async function runtime() {
  const address = URL.createObjectURL(new Blob([await bytes("ort.mjs")], { type: "text/javascript" }));
  const ort = await import(address);
  ort.env.wasm.numThreads = 1; // more would need headers that a plain file server does not send
  ort.env.wasm.wasmBinary = await bytes("ort.wasm");
  return ort;
}

// The middle square of a bitmap, in grey, averaged down to 28 x 28: what MedMNIST does to the original X-rays.
function shrink(bitmap) {
  const square = Math.min(bitmap.width, bitmap.height);
  const side = Math.min(square, 1024);
  const canvas = new OffscreenCanvas(side, side);
  const context = canvas.getContext("2d");
  context.fillStyle = "#000"; // behind what is transparent
  context.fillRect(0, 0, side, side);
  const left = (bitmap.width - square) / 2, top = (bitmap.height - square) / 2;
  context.drawImage(bitmap, left, top, square, square, 0, 0, side, side);
  const rgba = context.getImageData(0, 0, side, side).data;
  const grey = Float32Array.from({ length: side * side }, (_, i) => 0.299 * rgba[4 * i] + 0.587 * rgba[4 * i + 1] + 0.114 * rgba[4 * i + 2]);
  return side > SIDE ? averaged(grey, side) : resized(grey, side, SIDE);
}

function averaged(values, side) {
  const out = new Float32Array(SIDE * SIDE);
  for (let row = 0; row < SIDE; row++) {
    for (let column = 0; column < SIDE; column++) {
      const [top, bottom] = [row, row + 1].map((at) => Math.round((at * side) / SIDE));
      const [left, right] = [column, column + 1].map((at) => Math.round((at * side) / SIDE));
      let sum = 0;
      for (let y = top; y < bottom; y++) for (let x = left; x < right; x++) sum += values[y * side + x];
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
      const above = values[top * from + left] * (1 - across) + values[top * from + right] * across;
      const below = values[bottom * from + left] * (1 - across) + values[bottom * from + right] * across;
      out[y * to + x] = above * (1 - down) + below * down;
    }),
  );
  return out;
}

async function ask(ort, model, image, target) {
  const plane = resized(image, SIDE, model.size).map((value) => value / 127.5 - 1);
  const pixels = new Float32Array(3 * plane.length);
  [0, 1, 2].forEach((channel) => pixels.set(plane, channel * plane.length));
  const feed = {
    pixels: new ort.Tensor("float32", pixels, [1, 3, model.size, model.size]),
    target: new ort.Tensor("int64", BigInt64Array.from([BigInt(target)]), [1]),
  };
  const start = performance.now();
  const { logits, heatmap } = await model.session.run(feed);
  const ms = performance.now() - start;
  const odds = Array.from(logits.data, (value) => Math.exp(value - Math.max(...logits.data)));
  const total = odds.reduce((a, b) => a + b);
  return { probabilities: odds.map((odd) => odd / total), map: heatmap.data, ms };
}

function ranks(values) {
  const order = Array.from(values.keys()).sort((a, b) => values[a] - values[b]);
  const out = new Array(values.length);
  for (let start = 0, end; start < order.length; start = end) {
    for (end = start + 1; end < order.length && values[order[end]] === values[order[start]]; ) end++;
    for (let i = start; i < end; i++) out[order[i]] = (start + end - 1) / 2;
  }
  return out;
}

// Spearman's rank correlation of two square maps; the finer one is averaged down to the coarser grid's cells.
function spearman(a, b) {
  const side = Math.sqrt(Math.min(a.length, b.length));
  const [x, y] = [a, b].map((map) => ranks(coarse(map, side)));
  const mean = (x.length - 1) / 2;
  const sum = (u, v) => u.reduce((total, value, i) => total + (value - mean) * (v[i] - mean), 0);
  return sum(x, y) / Math.sqrt(sum(x, x) * sum(y, y));
}

function coarse(map, side) {
  // as torch's adaptive average pooling: a cell is the mean of all fine cells that it touches
  const own = Math.sqrt(map.length);
  const out = new Float32Array(side * side);
  const span = (cell) => [Math.floor((cell * own) / side), Math.ceil(((cell + 1) * own) / side)];
  out.forEach((_, i) => {
    const [top, bottom] = span(Math.floor(i / side));
    const [left, right] = span(i % side);
    for (let y = top; y < bottom; y++) for (let x = left; x < right; x++) out[i] += map[y * own + x];
    out[i] /= (bottom - top) * (right - left);
  });
  return out;
}

const COLOURS = INFERNO.map((hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16)));
function inferno(value) {
  const at = Math.min(Math.max(value, 0), 1) * (COLOURS.length - 1);
  const low = Math.min(Math.floor(at), COLOURS.length - 2);
  return COLOURS[low].map((c, k) => c + (COLOURS[low + 1][k] - c) * (at - low));
}

function draw(canvas, image, map, opacity) {
  const strongest = Math.max(...map, 0);
  const heat = resized(map.map((value) => (strongest ? Math.max(value, 0) / strongest : 0)), Math.sqrt(map.length), SHOWN);
  const picture = new ImageData(SHOWN, SHOWN);
  heat.forEach((value, i) => {
    const grey = image[Math.floor((Math.floor(i / SHOWN) * SIDE) / SHOWN) * SIDE + Math.floor(((i % SHOWN) * SIDE) / SHOWN)];
    const share = opacity * value;
    const colour = inferno(value);
    picture.data.set([0, 1, 2].map((k) => (1 - share) * grey + share * colour[k]).concat(255), 4 * i);
  });
  canvas.getContext("2d").putImageData(picture, 0, 0);
  return strongest > 0;
}

function card(model) {
  const box = element("card").content.firstElementChild.cloneNode(true);
  box.querySelector("h3").textContent = model.name;
  box.querySelector("progress").setAttribute("aria-label", `confidence of ${model.name}`);
  element("models").append(box);
  return box;
}

function show(model, answer, image, target, first, reference) {
  const best = answer.probabilities.indexOf(Math.max(...answer.probabilities));
  const explained = facts.classes[target < 0 ? best : target];
  const canvas = model.box.querySelector("canvas");
  const heated = draw(canvas, image, answer.map, Number(element("opacity").value));
  const text = `${facts.classes[best]}, ${(100 * answer.probabilities[best]).toFixed(1)} %`;
  canvas.setAttribute("aria-label", `Grad-CAM of ${model.name} for ${explained}; its answer: ${text}`);
  model.box.querySelector(".answer").textContent = text + (heated ? "" : `; no patch raised the score of ${explained}: its map is empty`);
  model.box.querySelector("progress").value = answer.probabilities[best];
  model.box.querySelector(".cost").textContent = `${answer.ms.toFixed(1)} ms, ${(model.bytes / 1e6).toFixed(1)} MB, ${model.tokens} tokens`;
  const alike = model === first ? "" : `map agreement with ${first.name.split(",")[0]}: ${spearman(answer.map, reference).toFixed(2)}`;
  model.box.querySelector(".alike").textContent = alike;
}

async function main() {
  let image = null, name = "", turn = 0;
  const answers = new Map();
  element("target").append(new Option("the predicted class", -1), ...facts.classes.map((text, i) => new Option(text, i)));

  const redraw = () => {
    if (!image) return;
    draw(element("input"), image, new Float32Array(1), 0);
    const [first] = facts.models;
    for (const [model, answer] of answers) show(model, answer, image, Number(element("target").value), first, answers.get(first).map);
  };
  async function update() {
    const mine = ++turn;
    for (const model of facts.models) {
      if (!image || !model.session) continue;
      const answer = await ask(ort, model, image, Number(element("target").value));
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
      [image, name] = [shrink(bitmap), title];
      bitmap.close();
    } catch {
      say(`${title} is not an image that this browser can read; choose a PNG, JPEG or WebP file of at most 64 megapixels.`);
      return;
    }
    await update();
  }

  facts.samples.forEach((sample) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(Object.assign(new Image(), { src: sample.src, alt: sample.name, width: 64, height: 64 }));
    button.title = sample.name;
    button.addEventListener("click", async () => open(await blobOf(sample.src), sample.name));
    element("samples").append(button);
  });
  element("file").addEventListener("change", ({ target }) => target.files[0] && open(target.files[0], target.files[0].name));
  element("target").addEventListener("change", update);
  element("opacity").addEventListener("input", redraw);
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    const [file] = event.dataTransfer.files;
    file ? open(file, file.name) : say("What was dropped is not a file; drop an image file.");
  });

  const ort = await runtime();
  for (const model of facts.models) {
    say(`Loading ${model.name}, ${(model.bytes / 1e6).toFixed(1)} MB ...`);
    model.session = await ort.InferenceSession.create(await bytes(model.file), { executionProviders: ["wasm"] });
    model.box = card(model);
    await ask(ort, model, new Float32Array(SIDE * SIDE), -1); // the first call is slow
  }
  await open(await blobOf(facts.samples[0].src), facts.samples[0].name);
  document.body.dataset.ready = "yes";
}

// Not by fetch: the self-contained page keeps no address open, not even that of its own pictures.
async function blobOf(address) {
  const [head, text] = address.split(",");
  return new Blob([Uint8Array.from(atob(text), (c) => c.charCodeAt(0))], { type: head.slice(5).split(";")[0] });
}

main().catch((error) => {
  console.error(error);
  say(`The models could not be started (${error.message}). The page needs WebAssembly and, opened from a folder, a local server.`);
});
