// Images and maps as arrays of numbers, and how they are drawn. An image is SIDE x SIDE grey values
// from 0 to 255; a map is square, and its values have no unit.

const SIDE = 28; // of the images the models were trained on, px
const CELLS = 7; // squares in a row that can be hidden
const SQUARE = SIDE / CELLS; // side of one of them, px
const SHOWN = 280; // of the pictures on the page, px
// Colours of matplotlib's inferno, from 0 to 1 in equal steps.
const INFERNO = [
  "#000004", "#1b0c41", "#4a0c6b", "#781c6d", "#a52c60",
  "#cf4446", "#ed6925", "#fb9b06", "#f7d13d", "#fcffa4",
];

// The middle square of a bitmap, in grey, at 28 x 28 px, as image_files.py reads it.
function shrink(bitmap) {
  const square = Math.min(bitmap.width, bitmap.height);
  const side = Math.min(square, 1024);
  const canvas = new OffscreenCanvas(side, side);
  const context = canvas.getContext("2d");
  context.fillStyle = "#000"; // behind what is transparent
  context.fillRect(0, 0, side, side);
  const left = Math.floor((bitmap.width - square) / 2);
  const top = Math.floor((bitmap.height - square) / 2);
  context.drawImage(bitmap, left, top, square, square, 0, 0, side, side);
  const rgba = context.getImageData(0, 0, side, side).data;
  const grey = new Float32Array(side * side);
  for (let i = 0; i < grey.length; i++) {
    const red = rgba[4 * i];
    const green = rgba[4 * i + 1];
    const blue = rgba[4 * i + 2];
    grey[i] = 0.299 * red + 0.587 * green + 0.114 * blue;
  }
  return cubic(grey, side, SIDE);
}

// Bicubic as Pillow resizes, which reads image files for the models in Python: (from x from) to
// (to x to), rounded to whole grey values after each direction.
function cubic(values, from, to) {
  if (from === to) return values;
  const taps = Array.from({ length: to }, (_, i) => tapsAt(i, from, to));
  const mixed = ({ first, weights }, value) => {
    const sum = weights.reduce((total, weight, k) => total + weight * value(first + k), 0);
    return Math.min(Math.max(Math.round(sum), 0), 255);
  };
  const lines = Array.from({ length: from }, (_, y) =>
    taps.map((tap) => mixed(tap, (x) => values[y * from + x])),
  );
  const out = new Float32Array(to * to);
  taps.forEach((tap, y) => {
    for (let x = 0; x < to; x++) out[y * to + x] = mixed(tap, (row) => lines[row][x]);
  });
  return out;
}

// The pixels that the i-th new pixel is made of: the first one, and the weight of each.
function tapsAt(i, from, to) {
  const scale = from / to;
  const wide = Math.max(scale, 1); // a smaller image is made of more pixels
  const centre = (i + 0.5) * scale;
  const first = Math.max(0, Math.trunc(centre - 2 * wide + 0.5));
  const end = Math.min(from, Math.trunc(centre + 2 * wide + 0.5));
  const weights = [];
  for (let at = first; at < end; at++) weights.push(kernel(Math.abs(at + 0.5 - centre) / wide));
  const sum = weights.reduce((a, b) => a + b);
  return { first, weights: weights.map((weight) => weight / sum) };
}

// Keys's cubic (1981) with a = -0.5.
function kernel(distance) {
  if (distance < 1) return (1.5 * distance - 2.5) * distance ** 2 + 1;
  if (distance < 2) return ((2.5 - 0.5 * distance) * distance - 4) * distance + 2;
  return 0;
}

// The image with squares hidden: they get its mean colour.
function covered(image, squares) {
  const mean = image.reduce((a, b) => a + b) / image.length;
  return image.map((value, i) => (squares.has(squareOf(i)) ? mean : value));
}

// The image with a mark drawn into it: { row, column, pattern }, in px and grey values.
function marked(image, mark) {
  const out = image.slice();
  mark.pattern.forEach((line, y) =>
    line.forEach((value, x) => {
      out[(mark.row + y) * SIDE + mark.column + x] = value;
    }),
  );
  return out;
}

// The square, 0 to 48, in which a pixel lies.
function squareOf(pixel) {
  const row = Math.floor(pixel / SIDE / SQUARE);
  const column = Math.floor((pixel % SIDE) / SQUARE);
  return row * CELLS + column;
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

// As explain.coarsened: a cell is the mean of the fine cells by the area that they share.
function coarse(map, side) {
  const own = Math.sqrt(map.length);
  if (own === side) return map;
  const shared = (cell, fine) => // of a fine cell with a coarse one along a side; 1: the coarse one
    Math.max(0, Math.min((cell + 1) / side, (fine + 1) / own) - Math.max(cell / side, fine / own)) *
    side;
  const out = new Float32Array(side * side);
  out.forEach((_, i) => {
    for (let y = 0; y < own; y++) {
      const height = shared(Math.floor(i / side), y);
      for (let x = 0; x < own; x++) out[i] += height * shared(i % side, x) * map[y * own + x];
    }
  });
  return out;
}

const COLOURS = INFERNO.map((hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16)));
const PALETTE = Array.from({ length: 256 }, (_, i) => inferno(i / 255));

// Red, green and blue of a value from 0 to 1.
function inferno(value) {
  const at = value * (COLOURS.length - 1);
  const low = Math.min(Math.floor(at), COLOURS.length - 2);
  return COLOURS[low].map((c, k) => c + (COLOURS[low + 1][k] - c) * (at - low));
}

// Draw the image under its map; returns whether the map has a positive value.
function draw(canvas, image, map, opacity) {
  const strongest = Math.max(...map, 0);
  const scaled = map.map((value) => (strongest ? Math.max(value, 0) / strongest : 0));
  const heat = resized(scaled, Math.sqrt(map.length), SHOWN);
  const picture = new ImageData(SHOWN, SHOWN);
  for (let i = 0; i < heat.length; i++) {
    const row = Math.floor((Math.floor(i / SHOWN) * SIDE) / SHOWN);
    const column = Math.floor(((i % SHOWN) * SIDE) / SHOWN);
    const grey = image[row * SIDE + column];
    const share = opacity * heat[i];
    const colour = PALETTE[Math.round(255 * heat[i])];
    for (let channel = 0; channel < 3; channel++) {
      picture.data[4 * i + channel] = (1 - share) * grey + share * colour[channel];
    }
    picture.data[4 * i + 3] = 255;
  }
  canvas.getContext("2d").putImageData(picture, 0, 0);
  return strongest > 0;
}
