// From strokes to an image like MNIST's, as matcaps.demo.strokes makes it: white on black, in a box of 20×20 pixels of
// 28×28, its centre of mass in the middle, the pen's width the same whatever the drawing's size.
//
// A stroke is a list of points [x, y]: x to the right, y downwards, both from 0 to 1.

export const SIDE = 28;
const BOX = 20, SHARPER = 8, PEN = 2.4; // the drawing is made SHARPER times larger first

// 28×28 grey levels from 0 to 255, row by row; null if nothing is drawn.
export function imageOf(strokes) {
  const points = strokes.flat();
  if (!points.length) return null;
  const side = SHARPER * SIDE, width = SHARPER * PEN;
  const [left, right] = extent(points, 0), [top, bottom] = extent(points, 1);
  const scale = (SHARPER * BOX - width) / Math.max(right - left, bottom - top, 0.02); // a dot stays a dot
  const place = ([x, y]) => [(x - (left + right) / 2) * scale + side / 2, (y - (top + bottom) / 2) * scale + side / 2];
  const ink = new Uint8Array(side * side);
  for (const stroke of strokes) {
    const places = stroke.map(place);
    places.forEach((to, k) => drawLine(ink, side, places[Math.max(0, k - 1)], to, width / 2));
  }
  return centred(ink, side);
}

// The k-th example: a digit's strokes with a slant and a turn, so that they do not all look alike.
export function exampleOf(strokes, k) {
  const slant = -0.12 + 0.03 * (k % 3), turn = 0.02 * (k % 4), wide = 0.95;
  return strokes.map((stroke) => stroke.map(([x, y]) => {
    const [u, v] = [x - 0.5, y - 0.5];
    return [clamp(0.5 + 0.9 * (wide * u + slant * v)), clamp(0.5 + 0.9 * (turn * u + v))];
  }));
}

const clamp = (value) => Math.min(1, Math.max(0, value));

function extent(points, axis) {
  const values = points.map((point) => point[axis]);
  return [Math.min(...values), Math.max(...values)];
}

// Ink all pixels whose centre lies within a distance of a line.
function drawLine(ink, side, [x0, y0], [x1, y1], radius) {
  const dx = x1 - x0, dy = y1 - y0, squared = dx * dx + dy * dy;
  const bound = (value) => Math.min(side, Math.max(0, value));
  const lastX = bound(Math.ceil(Math.max(x0, x1) + radius)), lastY = bound(Math.ceil(Math.max(y0, y1) + radius));
  for (let y = bound(Math.floor(Math.min(y0, y1) - radius)); y < lastY; y++) {
    for (let x = bound(Math.floor(Math.min(x0, x1) - radius)); x < lastX; x++) {
      const u = x + 0.5 - x0, v = y + 0.5 - y0;
      const along = squared > 0 ? clamp((u * dx + v * dy) / squared) : 0;
      if ((u - along * dx) ** 2 + (v - along * dy) ** 2 <= radius * radius) ink[y * side + x] = 255;
    }
  }
}

// Cut out what is drawn, scale it to the box, and place it by its centre of mass.
function centred(ink, side) {
  let top = side, bottom = 0, left = side, right = 0;
  for (let y = 0; y < side; y++) {
    for (let x = 0; x < side; x++) {
      if (!ink[y * side + x]) continue;
      top = Math.min(top, y);
      bottom = Math.max(bottom, y + 1);
      left = Math.min(left, x);
      right = Math.max(right, x + 1);
    }
  }
  const scale = BOX / Math.max(bottom - top, right - left);
  const height = Math.max(1, Math.round((bottom - top) * scale)), width = Math.max(1, Math.round((right - left) * scale));
  const cut = (y, x) => ink[(top + y) * side + left + x];
  const small = shrink(cut, bottom - top, right - left, height, width);
  const most = Math.max(...small, 1);
  const mass = {rows: new Float64Array(height), columns: new Float64Array(width)};
  small.forEach((value, i) => {
    mass.rows[Math.floor(i / width)] += value;
    mass.columns[i % width] += value;
  });
  const firstRow = start(mass.rows), firstColumn = start(mass.columns);
  const image = new Uint8Array(SIDE * SIDE);
  small.forEach((value, i) => {
    image[(firstRow + Math.floor(i / width)) * SIDE + firstColumn + (i % width)] = Math.round((255 * value) / most);
  });
  return image;
}

function start(mass) {
  let sum = 0, moment = 0;
  mass.forEach((value, place) => ((sum += value), (moment += place * value)));
  return Math.min(SIDE - mass.length, Math.max(0, Math.round((SIDE - 1) / 2 - moment / sum)));
}

// A picture at another size: each new pixel is the mean of the area that it covers. `at(row, column)` gives a pixel.
export function shrink(at, rows, columns, newRows, newColumns) {
  const across = spans(columns, newColumns), down = spans(rows, newRows);
  const result = new Float64Array(newRows * newColumns);
  down.forEach((covered, y) => across.forEach((beside, x) => {
    let sum = 0, area = 0;
    for (const [row, high] of covered) {
      for (const [column, wide] of beside) {
        sum += high * wide * at(row, column);
        area += high * wide;
      }
    }
    result[y * newColumns + x] = sum / area;
  }));
  return result;
}

// Of each new pixel along an axis, the old ones that it covers, and how much of each.
function spans(old, count) {
  return Array.from({length: count}, (_, k) => {
    const from = (k * old) / count, to = ((k + 1) * old) / count, covered = [];
    for (let place = Math.floor(from); place < Math.min(old, Math.ceil(to)); place++) {
      covered.push([place, Math.min(to, place + 1) - Math.max(from, place)]);
    }
    return covered;
  });
}

// What a network takes, from grey levels [channels, stored, stored]: as the file's `preparation` says, in the order of
// matcaps.data.Transform.evaluate.
export function prepared(levels, channels, {image_size: stored, crop, normalise}) {
  let values = Float32Array.from(levels);
  const middle = () => {
    const edge = cropEdge(stored, crop), cut = new Float32Array(channels * crop * crop);
    for (let c = 0, place = 0; c < channels; c++) {
      for (let y = 0; y < crop; y++) {
        for (let x = 0; x < crop; x++) cut[place++] = values[(c * stored + edge + y) * stored + edge + x];
      }
    }
    return cut;
  };
  if (normalise === "crop") values = middle();
  if (normalise === "scale") values = values.map((value) => value / 255);
  else values = standardised(values);
  return normalise === "crop" ? values : middle();
}

// How many pixels a crop leaves out before it.
export const cropEdge = (stored, crop) => Math.round((stored - crop) / 2);

function standardised(values) {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / values.length;
  const deviation = Math.max(Math.sqrt(variance), 1 / Math.sqrt(values.length));
  return values.map((value) => (value - mean) / deviation);
}
