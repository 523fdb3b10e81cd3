// The page: what the reader chooses and hides, and what the models say about it.

const MOST_PIXELS = 64e6; // of an image that is opened

const element = (id) => document.getElementById(id);
const { models, samples, classes, probe, mark } = JSON.parse(element("data").textContent);

const page = {
  ort: null,
  opened: null, // the image that was opened
  name: "", // of that image
  hidden: new Set(), // squares that the reader hides
  cursor: 24, // the square that the arrow keys have reached
  brush: null, // while the pointer is down: whether it hides squares
  asked: null, // the image that the answers are about
  wanted: 0, // how often something was changed
  opening: 0, // how often an image was chosen
  started: false, // whether the first models are there
  working: false,
};

function say(text) {
  element("status").textContent = text;
}

// What the models get: the image with the mark, if the reader wants it, and with hidden squares.
function seen() {
  const image = element("mark").checked ? marked(page.opened, mark) : page.opened;
  return covered(image, page.hidden);
}

function target() {
  return Number(element("target").value);
}

// The models that the reader wants to see, and that passed the self-test.
function running() {
  return models.filter((model) => model.ticked && model.session);
}

function answered() {
  return running().filter((model) => model.answer);
}

// --- asking the models ---

// Something was changed: show it, and ask the models. One loop asks at a time; what is changed while
// it waits is asked about next, and what came between is left out.
async function changed() {
  markCells();
  if (!page.opened) return;
  draw(element("input"), seen(), new Float32Array(1), 0);
  if (!page.started) return; // what was chosen is asked about as soon as they are
  page.wanted += 1;
  if (page.working) return;
  page.working = true;
  try {
    let done = 0;
    while (done !== page.wanted) {
      done = page.wanted;
      await answerAll();
      await pause();
      await explainAll(() => done !== page.wanted);
    }
  } catch (error) {
    console.error(error);
    const stopped = `The models stopped (${error.message}); reload the page, or untick the large ones.`;
    complain(stopped);
    say(stopped); // beside the cards, whose answers are about an earlier image
    element("models").classList.add("stale");
    for (const model of answered().filter((one) => !one.rests)) {
      model.box.querySelector(".rests").nextElementSibling.textContent = "Occlusion: not computed";
    }
  } finally {
    page.working = false;
  }
}

async function answerAll() {
  const image = seen();
  const name = page.name;
  const state = stateText();
  const chosen = target();
  const fresh = new Map();
  for (const model of running()) {
    const { logits, map, ms } = await run(page.ort, model, [image], chosen);
    const explained = chosen < 0 ? predicted(logits[0]) : chosen;
    fresh.set(model, { logits: logits[0], map, ms, explained });
  }
  // all at once, together with the image that they are about
  for (const [model, answer] of fresh) {
    model.answer = answer;
    model.rests = null;
  }
  page.asked = image;
  element("models").classList.remove("stale");
  redraw();
  const answers = answered().map((model) => ` ${model.name}: ${answerText(model)}.`);
  say(`Shown: ${name}.${state}${answers.join("") || " Tick a model to see its answer."}`);
  document.body.dataset.ready = "yes";
}

function stateText() {
  const drawn = element("mark").checked ? " The mark is drawn." : "";
  const count = page.hidden.size;
  const hidden = count ? ` ${count} of ${CELLS * CELLS} patches hidden.` : "";
  return drawn + hidden;
}

// Occlusion maps, one model after the other, unless something else is wanted meanwhile.
async function explainAll(stale) {
  for (const model of answered()) {
    if (stale()) return;
    model.rests = await occlusion(page.ort, model, page.asked, model.answer, stale);
    if (model.rests) show(model);
  }
}

// --- showing what they say ---

function redraw() {
  answered().forEach(show);
}

function answerText(model) {
  const probabilities = softmax(model.answer.logits);
  const best = predicted(model.answer.logits);
  return `${classes[best]}, ${(100 * probabilities[best]).toFixed(1)} %`;
}

// The place of a model on the page: its card or, if it failed the self-test, what is wrong.
function place(model) {
  const kind = model.wrong ? "refusal" : "card";
  const box = element(kind).content.firstElementChild.cloneNode(true);
  box.querySelector("h3").textContent = model.name;
  if (model.wrong) {
    box.querySelector(".wrong").textContent = model.wrong;
  } else {
    box.querySelector("progress").setAttribute("aria-label", `confidence of ${model.name}`);
  }
  const next = models.slice(models.indexOf(model) + 1).find((other) => other.box);
  element("models").insertBefore(box, next ? next.box : null);
  model.box = box;
}

function sayTested() {
  const tested = models.filter((model) => "difference" in model);
  const parts = tested.map((model) => `${model.name} ${model.difference.toFixed(4)}`);
  const text = "Self-test at load, the largest difference of a logit from the one stored in this page";
  element("tested").textContent = `${text}: ${parts.join("; ")} (at most ${TOLERANCE}).`;
}

// Write a model's answer into its card.
function show(model) {
  model.box.hidden = false;
  const part = (selector) => model.box.querySelector(selector);
  const { map, explained, logits } = model.answer;
  const text = answerText(model);
  const heated = drawMap(model, ".marks", map);
  const described = `Grad-CAM of ${model.name} for ${classes[explained]}; its answer: ${text}`;
  part(".marks").setAttribute("aria-label", described);
  const empty = `; no patch raised the score of ${classes[explained]}: its map is empty`;
  part(".answer").textContent = heated ? text : text + empty;
  part("progress").value = Math.max(...softmax(logits));
  part(".cost").textContent = costs(model);
  showRests(model);
  const [first] = answered();
  const agreement = spearman(map, first.answer.map).toFixed(2);
  const other = first.answer.explained;
  const apart = explained === other ? "" : ` (whose map is of ${classes[other]})`;
  const alike = `Grad-CAM's agreement with ${first.name}${apart}: ${agreement}`;
  part(".alike").textContent = model === first ? "" : alike;
}

function drawMap(model, selector, map) {
  const canvas = model.box.querySelector(selector);
  return draw(canvas, page.asked, map, Number(element("opacity").value));
}

// The occlusion map, or the bare image until there is one.
function showRests(model) {
  const canvas = model.box.querySelector(".rests");
  const explained = classes[model.answer.explained];
  const title = `Occlusion map of ${model.name} for ${explained}`;
  const caption = canvas.nextElementSibling;
  if (!model.rests) {
    drawMap(model, ".rests", new Float32Array(1));
    caption.textContent = "Occlusion: being computed ...";
    canvas.setAttribute("aria-label", `${title}: not computed yet`);
    delete canvas.dataset.values;
    return;
  }
  const { map } = model.rests;
  const heated = drawMap(model, ".rests", map);
  const what = "Occlusion: what the answer rests on";
  caption.textContent = heated ? what : `${what} (no patch: the map is empty)`;
  const most = Math.max(...map);
  const place = placeOf(map.indexOf(most));
  const loss = `without it the log-odds lose ${most.toFixed(2)}`;
  const hottest = `the patch in ${place} matters most; ${loss}`;
  const found = heated ? hottest : "hiding no patch lowers the log-odds: the map is empty";
  canvas.setAttribute("aria-label", `${title}: ${found}`);
  canvas.dataset.values = map.join(" ");
}

function costs(model) {
  const parts = [`${model.answer.ms.toFixed(1)} ms an image`];
  if (model.rests) parts.push(`${model.rests.ms.toFixed(0)} ms for the occlusion map`);
  parts.push(megabytes(model), `${model.tokens} tokens`);
  return parts.join(", ");
}

// --- hiding squares ---

const cells = [];

function makeCells() {
  for (let row = 0; row < CELLS; row++) {
    const line = document.createElement("div");
    line.setAttribute("role", "row");
    for (let column = 0; column < CELLS; column++) {
      const cell = document.createElement("div");
      cell.setAttribute("role", "gridcell");
      const square = row * CELLS + column;
      cell.addEventListener("click", (event) => {
        if (event.detail === 0) hide(square, !page.hidden.has(square)); // of an assistive tool, without a pointer
      });
      cells.push(cell);
      line.append(cell);
    }
    element("cells").append(line);
  }
  markCells();
  element("cells").addEventListener("keydown", moveCursor);
  element("cells").addEventListener("pointerdown", startBrush);
  element("cells").addEventListener("pointermove", moveBrush);
  for (const end of ["pointerup", "pointercancel", "lostpointercapture"]) {
    element("cells").addEventListener(end, () => {
      page.brush = null;
    });
  }
}

// Tell the reader, also one who listens, which squares are hidden.
function markCells() {
  cells.forEach((cell, i) => {
    const state = page.hidden.has(i) ? "hidden" : "visible";
    cell.setAttribute("aria-selected", page.hidden.has(i));
    cell.setAttribute("aria-label", `${placeOf(i)}, ${state}`);
    cell.tabIndex = i === page.cursor ? 0 : -1;
  });
}

function placeOf(square) {
  return `row ${Math.floor(square / CELLS) + 1}, column ${(square % CELLS) + 1}`;
}

function hide(square, isHidden) {
  if (page.hidden.has(square) === isHidden) return;
  if (isHidden) page.hidden.add(square);
  else page.hidden.delete(square);
  changed();
}

function moveCursor(event) {
  if (event.altKey || event.ctrlKey || event.metaKey) return; // keys of the browser
  const row = Math.floor(page.cursor / CELLS);
  const column = page.cursor % CELLS;
  const places = {
    ArrowUp: [row - 1, column],
    ArrowDown: [row + 1, column],
    ArrowLeft: [row, column - 1],
    ArrowRight: [row, column + 1],
    Home: [row, 0],
    End: [row, CELLS - 1],
  };
  if (event.key === " ") {
    if (!event.repeat) hide(page.cursor, !page.hidden.has(page.cursor));
  } else if (event.key in places) {
    const [nextRow, nextColumn] = places[event.key].map((at) => Math.min(Math.max(at, 0), CELLS - 1));
    goTo(nextRow * CELLS + nextColumn);
  } else {
    return;
  }
  event.preventDefault(); // the page does not scroll
}

function goTo(square) {
  page.cursor = square;
  markCells();
  cells[square].focus({ preventScroll: true });
}

// The square under the pointer; null outside of the image.
function squareAt(event) {
  const box = element("cells").getBoundingClientRect();
  const row = Math.floor(((event.clientY - box.top) / box.height) * CELLS);
  const column = Math.floor(((event.clientX - box.left) / box.width) * CELLS);
  const inside = [row, column].every((at) => at >= 0 && at < CELLS);
  return inside ? row * CELLS + column : null;
}

// A stroke hides squares, or shows them again where it begins on a hidden one.
function startBrush(event) {
  const square = squareAt(event);
  if (event.button !== 0 || square === null) return;
  event.preventDefault(); // no text is selected
  element("cells").setPointerCapture(event.pointerId);
  page.brush = !page.hidden.has(square);
  goTo(square);
  hide(square, page.brush);
}

function moveBrush(event) {
  if (page.brush === null) return;
  const between = event.getCoalescedEvents?.() ?? []; // older Safari has none
  for (const point of [...between, event]) {
    const square = squareAt(point);
    if (square !== null) hide(square, page.brush);
  }
}

// --- choosing an image ---

async function open(blob, title) {
  const turn = ++page.opening;
  try {
    const bitmap = await createImageBitmap(blob);
    if (turn !== page.opening) return bitmap.close(); // another one was chosen meanwhile
    if (bitmap.width * bitmap.height > MOST_PIXELS) throw new Error("too large");
    page.opened = shrink(bitmap);
    page.name = title;
    bitmap.close();
  } catch (error) {
    if (turn !== page.opening) return;
    console.warn(error);
    const wanted = "a PNG, JPEG or WebP file of at most 64 megapixels";
    complain(`${title} is not an image that this browser can read; choose ${wanted}.`);
    return;
  }
  complain("");
  await changed();
}

// A sentence that stays until the next image is opened.
function complain(text) {
  element("problem").textContent = text;
}

// Not by fetch: the self-contained page asks for no address, not even for that of its own pictures.
async function blobOf(address) {
  const [, type, base64] = address.match(/^data:(.+?);base64,(.*)$/);
  return new Blob([decoded(base64)], { type });
}

function addSample(sample) {
  const picture = new Image(64, 64);
  picture.src = sample.src;
  picture.alt = ""; // its name stands below
  const name = document.createElement("small");
  name.textContent = sample.name;
  const button = document.createElement("button");
  button.type = "button";
  button.append(picture, name);
  button.addEventListener("click", async () => open(await blobOf(sample.src), sample.name));
  element("samples").append(button);
}

function listenForFiles() {
  element("file").addEventListener("click", () => {
    element("file").value = ""; // or the same file, chosen again, would be no change
  });
  element("file").addEventListener("change", () => {
    const [file] = element("file").files;
    if (file) open(file, file.name);
  });
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    const [file] = event.dataTransfer.files;
    if (file) open(file, file.name);
    else complain("What was dropped is not a file; drop an image file.");
  });
}

// --- the beginning ---

function listenToControls() {
  element("target").append(new Option("the predicted class", -1));
  classes.forEach((text, i) => element("target").append(new Option(text, i)));
  element("target").addEventListener("change", changed);
  element("opacity").addEventListener("input", redraw);
  element("mark").addEventListener("change", changed);
  element("all").addEventListener("click", () => {
    page.hidden.clear();
    changed();
  });
}

// A box to tick for each model.
function addChoice(model) {
  const label = document.createElement("label");
  const box = document.createElement("input");
  box.type = "checkbox";
  box.checked = model.ticked;
  model.tick = box;
  label.append(box, ` ${model.name}`);
  if (!model.ticked) label.append(` (${megabytes(model)} more, slow)`);
  element("choice").append(label);
  box.addEventListener("change", async () => {
    box.disabled = true; // until it is loaded
    await choose(model, box.checked);
    box.disabled = false;
    box.checked = model.ticked;
    if (document.activeElement === document.body) box.focus(); // it was lost with the disabled box
  });
}

async function choose(model, ticked) {
  model.answer = null;
  model.ticked = ticked;
  try {
    if (ticked && !model.box) await start(model);
    model.box.hidden = !model.wrong || !ticked; // a card waits for its answer
    complain("");
  } catch (error) {
    model.ticked = false;
    complain(`${model.name} could not be loaded (${error.message}); tick it to try again.`);
  }
  changed();
}

async function start(model) {
  say(`Loading ${model.name}, ${megabytes(model)} ...`);
  await load(page.ort, model);
  place(model);
  sayTested();
}

async function main() {
  samples.forEach(addSample);
  models.forEach(addChoice);
  makeCells();
  listenForFiles();
  listenToControls();
  element("choice").disabled = true; // until there is something to choose from
  await open(await blobOf(samples[0].src), samples[0].name); // shown while the models load
  page.ort = await runtime();
  const failed = await startAll();
  if (!running().length) throw new Error(failed || "no model passed its self-test");
  element("choice").disabled = false;
  page.started = true;
  if (failed) complain(`${failed} could not be loaded; tick to try again.`);
  await changed();
}

// Start the models that are ticked; the names of those that could not be loaded.
async function startAll() {
  const failed = [];
  for (const model of models.filter((one) => one.ticked)) {
    try {
      await start(model);
    } catch (error) {
      console.error(error);
      model.ticked = false;
      model.tick.checked = false;
      failed.push(`${model.name} (${error.message})`);
    }
  }
  return failed.join(", ");
}

main().catch((error) => {
  console.error(error);
  const alone = document.getElementById("ort.mjs"); // the page in one file needs no server
  const needed = alone ? "a current browser with WebAssembly" : "WebAssembly and a server (not a folder)";
  say(`The models could not be started: ${error.message}. The page needs ${needed}; reload to try again.`);
});
