// The mathematics and the words of docs/_browser, under node: tests/browser/test_page_code.py runs this.
import assert from "node:assert/strict";
import {test} from "node:test";
import {percent, roundDown, shortNumber} from "../../docs/_browser/charts.mjs";
import {imageOf, prepared, shrink, SIDE} from "../../docs/_browser/drawing.mjs";
import {renderPair, SOLIDS} from "../../docs/_browser/stereo.mjs";
import * as votes from "../../docs/_browser/votes.mjs";
import {answer, sentences} from "../../docs/_browser/wording.mjs";

const near = (found, expected, by = 1e-9) =>
  assert.ok(Math.abs(found - expected) <= by, `${found} is not within ${by} of ${expected}`);

// Numbers from −1 to 1 that are the same every time.
function randoms(count, seed = 1) {
  let state = seed;
  return Array.from({length: count}, () => ((state = (state * 48271) % 2147483647) / 1073741823.5 - 1));
}

// A routing of 2 iterations, 4 children, 2 classes, poses of 3 numbers.
function routing() {
  return {
    T: 2, N: 4, J: 2, P: 3,
    activations: [0.2, 0.9],
    children: Float32Array.of(1, 0.5, 0.5, 1),
    activation: Float32Array.of(0.5, 0.5, 0.2, 0.9),
    mass: Float32Array.of(1.5, 1.5, 1, 3),
    mean: Float32Array.of(0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0),
    variance: Float32Array.from({length: 12}, (_, k) => (k < 6 ? Math.exp(2) : 1)),
    assignment: Float32Array.of(0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 1, 0, 0, 1, 0, 1, 0, 1),
    votes: Float32Array.of(3, 0, 4, 0, 0, 0, 0, 0, 1, 0, 0, 2, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 3, 0),
  };
}

test("eigenvectors of a symmetric matrix are orthonormal, its eigenvalues sorted", () => {
  const half = randoms(256), n = 16;
  const matrix = Array.from({length: n}, (_, i) => Float64Array.from({length: n}, (_, k) => // half times its transpose
    Array.from({length: n}, (_, m) => half[n * i + m] * half[n * k + m]).reduce((a, b) => a + b)));
  const {values, vectors} = votes.eigen(matrix);
  values.forEach((value, i) => {
    if (i) assert.ok(value <= values[i - 1]);
    for (let row = 0; row < n; row++) {
      near(matrix[row].reduce((sum, entry, k) => sum + entry * vectors[i][k], 0), value * vectors[i][row], 1e-9);
    }
    vectors.forEach((other, k) =>
      near(other.reduce((sum, entry, m) => sum + entry * vectors[i][m], 0), Number(i === k), 1e-12));
    assert.ok(Math.max(...vectors[i]) >= -Math.min(...vectors[i]) - 1e-9);
  });
});

test("the plane is that of the most variance, whatever the assignments", () => {
  const one = routing(), N = 40, P = 16, noise = randoms(3 * N, 7);
  const made = {...one, N, J: 1, P, children: new Float32Array(N).fill(0.5), votes: new Float32Array(N * P)};
  for (let i = 0; i < N; i++) {
    made.votes[i * P + 5] = 9 * noise[i];
    made.votes[i * P + 2] = 3 * noise[N + i] + 7;
    made.votes[i * P + 1] = 0.01 * noise[2 * N + i];
  }
  const plane = votes.principalPlane(made, 0);
  near(Math.abs(plane.axes[0][5]), 1, 0.01);
  near(Math.abs(plane.axes[1][2]), 1, 0.01);
  near(plane.held, 1, 1e-4);
  near(votes.project(plane.centre, plane)[0], 0);
  made.children[0] = 0; // a child that is absent has no part in it
  made.votes[0] = 1e6;
  near(Math.abs(votes.principalPlane(made, 0).axes[0][5]), 1, 0.01);
});

test("weights are assignment times the child's activation", () => {
  assert.deepEqual([...votes.weights(routing(), 0, 1)], [0.5, 0.25, 0.25, 0.5]);
  assert.deepEqual([...votes.weights(routing(), 1, 0)], [1, 0, 0, 0]);
});

test("by iteration: share of the data, ln σ, activation, mean distance", () => {
  const history = votes.history(routing(), 0);
  near(history[0].share, 0.5);
  near(history[1].share, 0.25);
  near(history[0].logDeviation, 1, 1e-6);
  near(history[1].logDeviation, 0, 1e-6);
  near(history[1].activation, 0.2, 1e-6);
  near(history[0].distance, (0.5 * 5 + 0.25 * 1 + 0.25 * 1 + 0.5 * 1) / 1.5);
  near(history[1].distance, Math.hypot(2, 4)); // only the first child is left, and the mean has moved
});

test("histograms hold all of a class's data, on one scale for all iterations", () => {
  const {reach, shares} = votes.histograms(routing(), 0, 5);
  near(reach, 5);
  for (const one of shares) near(one.reduce((a, b) => a + b), 1);
  near(shares[0][4], 0.5 / 1.5); // the vote at a distance of 5
  near(shares[0][1], 1 / 1.5); // the three at 1
});

test("an ellipse has the points' mean and deviations", () => {
  const points = [[4, 1], [-2, 1], [1, 2], [1, 0]], {x, y, radii, angle} = votes.ellipse(points, [1, 1, 1, 1]);
  near(x, 1);
  near(y, 1);
  near(radii[0], Math.sqrt(9 / 2));
  near(radii[1], Math.sqrt(1 / 2));
  near(angle, 0);
  near(votes.ellipse([[1, 1], [-1, -1], [5, -5]], [1, 1, 0]).angle, Math.PI / 4); // what has no weight does not count
});

test("quantiles, ranks and their correlation", () => {
  near(votes.weightedQuantile([5, 1, 3], [1, 1, 8], 0.5), 3);
  near(votes.weightedQuantile([5, 1, 3], [1, 1, 8], 1), 5);
  assert.deepEqual(votes.ranked(Float32Array.of(0.1, 0.9, 0.5)), [1, 2, 0]);
  near(votes.rankCorrelation([1, 2, 3, 4], [10, 20, 30, 40]), 1);
  near(votes.rankCorrelation([1, 2, 3, 4], [4, 3, 2, 1]), -1);
});

test("sentences follow from the numbers", () => {
  const past = (shares, deviations, activation) =>
    shares.map((share, t) => ({share, logDeviation: deviations[t], activation}));
  const histories = [
    past([0.25, 0.6], [1, 0], 0.9), past([0.25, 0.2], [1, 0.9], 0.3), past([0.25, 0.12], [1, 1.2], 0.2),
    past([0.25, 0.08], [1, 1], 0.1),
  ];
  const said = sentences(["a", "b", "c", "d"], [0, 2], histories).join(" ").replaceAll("\u00a0", " ");
  assert.match(said, /a gets 25.0 % → 60.0 % of the data, in the end more than an equal share \(25 %\)/);
  assert.match(said, /c gets .* less than an equal share/);
  assert.match(said, /those with more data are more active \(rank correlation of data and activation 1.00\)/);
  assert.match(said, /ln σ of a goes 1.00 → 0.00: its votes come together, to 0.37 of the spread/);
  assert.match(said, /ln σ of c goes 1.00 → 1.20: its votes spread, to 1.22 times/);
  assert.match(said, /votes of a come together more than those of any other class/);
  const turned = sentences(["a", "b", "c", "d"], [3, 0], histories.map((history, j) =>
    history.map((one) => ({...one, activation: j / 10})))).join(" ");
  assert.match(turned, /those with less data are more active: .* \(rank correlation of data and activation −1.00\)/);
  assert.match(turned, /ln σ of d goes 1.00 → 1.00: its votes spread as before/);
  assert.match(turned, /votes of d come together less than those of a, and 2 of the 3 other classes come together more/);
});

test("an answer below one half is not sure", () => {
  assert.equal(answer(["x", "y"], [0.7, 0.2], [0, 1]), "Most active is x (0.70), then y (0.20).");
  assert.match(answer(["x", "y"], [0.2, 0.4], [1, 0]), /the network is not sure/);
});

test("a drawing fills MNIST's box, wherever it was drawn, and a dot stays a dot", () => {
  const one = imageOf([[[0.1, 0.1], [0.1, 0.3]], [[0.1, 0.2], [0.2, 0.2]]]);
  assert.deepEqual(one, imageOf([[[0.6, 0.5], [0.6, 0.9]], [[0.6, 0.7], [0.8, 0.7]]])); // twice as large
  const rows = Array.from({length: SIDE}, (_, y) => Math.max(...one.slice(y * SIDE, (y + 1) * SIDE)));
  assert.equal(rows.filter((most) => most > 0).length, 20);
  assert.ok(imageOf([[[0.5, 0.5]]]).filter((level) => level > 0).length > 9);
  assert.equal(imageOf([]), null);
  assert.equal(imageOf([[]]), null);
});

test("a smaller picture has the means of what it covers", () => {
  const at = (row, column) => 10 * row + column;
  assert.deepEqual([...shrink(at, 4, 4, 2, 2)], [5.5, 7.5, 25.5, 27.5]);
  near(shrink(at, 3, 3, 2, 2)[0], (0 + 0.5 * 1 + 0.5 * 10 + 0.25 * 11) / 2.25);
});

test("inputs are prepared as the file says", () => {
  const levels = Uint8Array.from({length: 32}, (_, k) => 8 * k);
  const scaled = prepared(levels.slice(0, 16), 1, {image_size: 4, crop: 4, normalise: "scale"});
  near(scaled[15], 120 / 255, 1e-7);
  const image = prepared(levels, 2, {image_size: 4, crop: 2, normalise: "image"});
  assert.equal(image.length, 8);
  near(image[0], (40 - 124) / Math.sqrt(64 * (32 * 32 - 1) / 12), 1e-6);
  const crop = prepared(levels, 2, {image_size: 4, crop: 2, normalise: "crop"});
  near(crop.reduce((sum, value) => sum + value, 0), 0, 1e-5);
  near(crop.reduce((sum, value) => sum + value * value, 0) / 8, 1, 1e-5);
});

test("every solid is seen by both cameras, from all sides", () => {
  const side = 24;
  for (const solid of Object.keys(SOLIDS)) {
    const view = {solid, azimuth: 0, elevation: 35, light: 30}, image = renderPair(view, side, 1);
    const [left, right] = [image.slice(0, side * side), image.slice(side * side)];
    assert.notDeepEqual(left, right);
    assert.deepEqual(image, renderPair({...view, azimuth: 360}, side, 1));
    assert.notDeepEqual(image, renderPair({...view, azimuth: 90}, side, 1));
    const ground = left[0];
    const edge = [...left].filter((_, k) => k % side === 0 || k % side === side - 1 || k < side || k >= side * (side - 1));
    assert.ok(edge.every((level) => Math.abs(level - ground) <= 6), `${solid} reaches out of the picture`);
    assert.ok([...left].filter((level) => Math.abs(level - ground) > 15).length > 25, `${solid} cannot be seen`);
  }
});

test("numbers are short", () => {
  assert.equal(percent(0.1234), "12.3\u00a0%");
  assert.deepEqual([0, 0.01234, 4.56, 123.4, 12345].map(shortNumber), ["0", "0.012", "4.6", "123", "12,345"]);
  assert.deepEqual([9, 4.9, 1.2, 0.02].map(roundDown), [5, 2, 1, 0.02]);
});
