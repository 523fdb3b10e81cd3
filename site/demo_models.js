// The models in ONNX Runtime Web. Files come from the folder assets/ or, in the self-contained page,
// from <script> elements of this page.

// Largest difference of a logit in the self-test. Int8 values that are rounded to the other side
// move a logit by a few thousandths; a wrong kernel moves it by more than this.
const TOLERANCE = 0.05;

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
  ort.env.wasm.proxy = self.origin !== "null"; // in a worker, which a page from disk may not have
  ort.env.wasm.wasmBinary = await bytes("ort.wasm");
  return ort;
}

// Start a model, and compare its logits of the probe with those that were stored when the page was
// built; a model that fails has `wrong`, a sentence, and no session.
async function load(ort, model) {
  const options = { executionProviders: ["wasm"] };
  const session = await ort.InferenceSession.create(await bytes(model.file), options);
  const tested = { ...model, session }; // nobody asks the model before it has passed
  const { logits } = await run(ort, tested, [Float32Array.from(probe)], -1); // the first call is slow
  model.difference = largestDifference(logits[0], model.logits);
  if (model.difference <= TOLERANCE) { // false for NaN, too
    model.session = session;
    return;
  }
  const backend = "ONNX Runtime Web's WebAssembly backend";
  const found = `a logit of a fixed image differs from the stored one by ${model.difference.toFixed(3)}`;
  model.wrong = `Not shown: ${backend} computes ${model.name} wrongly here; ${found}.`;
}

function largestDifference(a, b) {
  const differences = a.map((value, i) => Math.abs(value - b[i]));
  return Math.max(...differences);
}

// One forward pass: logits of each image, the signed map of the first one, milliseconds in all. The
// target is the class that the map explains, -1: the predicted one.
async function run(ort, model, images, target) {
  const planes = images.map((image) => resized(image, SIDE, model.size));
  const length = model.size * model.size;
  const pixels = new Float32Array(images.length * 3 * length);
  planes.forEach((plane, i) => {
    const scaled = plane.map((value) => value / 127.5 - 1);
    for (const channel of [0, 1, 2]) pixels.set(scaled, (3 * i + channel) * length);
  });
  const targets = new BigInt64Array(images.length).fill(BigInt(target));
  const feed = {
    pixels: new ort.Tensor("float32", pixels, [images.length, 3, model.size, model.size]),
    target: new ort.Tensor("int64", targets, [images.length]),
  };
  const start = performance.now();
  const { logits, heatmap } = await model.session.run(feed);
  const ms = performance.now() - start;
  const rows = images.map((_, i) =>
    Array.from(logits.data.slice(i * classes.length, (i + 1) * classes.length)),
  );
  return { logits: rows, map: heatmap.data.slice(0, heatmap.data.length / images.length), ms };
}

// What the log-odds of the explained class lose when one square is hidden, as occlusion.py computes
// it with the fill "mean"; and milliseconds. One image at a time, because int8 models scale by the
// range of a batch. Returns null where stale() says after a row that nobody waits for it any more.
async function occlusion(ort, model, image, answer, stale) {
  const whole = logOdds(answer.logits, answer.explained);
  const lost = new Float32Array(CELLS * CELLS);
  const start = performance.now();
  for (let square = 0; square < lost.length; square++) {
    const variant = covered(image, new Set([square]));
    const { logits } = await run(ort, model, [variant], answer.explained);
    lost[square] = whole - logOdds(logits[0], answer.explained);
    if ((square + 1) % CELLS === 0) {
      await pause();
      if (stale()) return null;
    }
  }
  return { map: lost, ms: performance.now() - start };
}

// log(p / (1 - p)) of one class.
function logOdds(logits, target) {
  const others = logits.filter((_, i) => i !== target);
  const highest = Math.max(...others);
  const odds = others.map((value) => Math.exp(value - highest));
  return logits[target] - highest - Math.log(odds.reduce((a, b) => a + b));
}

// Lets the browser draw and read the reader's input.
function pause() {
  return new Promise((resolve) => setTimeout(resolve));
}

function softmax(logits) {
  const highest = Math.max(...logits);
  const odds = logits.map((value) => Math.exp(value - highest));
  const total = odds.reduce((a, b) => a + b);
  return odds.map((odd) => odd / total);
}

function predicted(logits) {
  return logits.indexOf(Math.max(...logits));
}

function megabytes(model) {
  return `${(model.bytes / 1e6).toFixed(1)} MB`;
}
