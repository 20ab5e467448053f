// What the page shows of the votes for the class capsules, computed from the outputs of `matcaps export --trace`.
//
// T iterations, N children (lower capsules), J classes, P = 16 numbers of a pose. A child's weight for a class is its
// assignment to the class times its own activation: its share in the class's mean, variance and data.

export const FETCHES = [
  "activations", "conv_capsules2.activation",
  ...["activation", "mass", "mean", "variance", "assignment", "votes"].map((name) => `class_capsules.${name}`),
];

// The outputs of one image as one object; arrays stay flat, the last index the fastest.
export function readRouting(outputs) {
  const of = (name) => outputs[`class_capsules.${name}`];
  const [, T, N, J] = of("assignment").dims, P = of("votes").dims[3];
  const children = outputs["conv_capsules2.activation"].data;
  return {
    T, N, J, P,
    activations: outputs.activations.data, // [J], the answer
    children: children.slice(children.length - N), // [N], the children's activations after their last iteration
    activation: of("activation").data, // [T, J]
    mass: of("mass").data, // [T, J]
    mean: of("mean").data, // [T, J, P]
    variance: of("variance").data, // [T, J, P]
    assignment: of("assignment").data, // [T, N, J]
    votes: of("votes").data, // [N, J, P]
  };
}

// Classes from the most active to the least.
export function ranked(activations) {
  return [...activations.keys()].sort((a, b) => activations[b] - activations[a] || a - b);
}

// What part of each child's activation goes to class j in iteration t: [N], from 0 to 1.
export function weights({N, J, children, assignment}, t, j) {
  return Float64Array.from({length: N}, (_, i) => assignment[(t * N + i) * J + j] * children[i]);
}

// A class's votes, N arrays of P numbers.
export function votesOf({N, J, P, votes}, j) {
  return Array.from({length: N}, (_, i) => votes.subarray((i * J + j) * P, (i * J + j + 1) * P));
}

export function meanOf({J, P, mean}, t, j) {
  return mean.subarray((t * J + j) * P, (t * J + j + 1) * P);
}

// Of each iteration: the class's share of all classes' data, the mean of ln σ over the pose's numbers, its activation,
// and the weighted mean distance of its votes from their mean.
export function history(routing, j) {
  const {T, J, P, mass, variance, activation} = routing;
  return Array.from({length: T}, (_, t) => {
    let all = 0, logarithms = 0;
    for (let k = 0; k < J; k++) all += mass[t * J + k];
    for (let p = 0; p < P; p++) logarithms += Math.log(variance[(t * J + j) * P + p]) / 2;
    const weight = weights(routing, t, j);
    return {
      share: mass[t * J + j] / all,
      logDeviation: logarithms / P,
      activation: activation[t * J + j],
      distance: weightedMean(distances(routing, t, j), weight),
    };
  });
}

// Euclidean distance of each vote from the class's mean of an iteration: [N].
export function distances(routing, t, j) {
  const mean = meanOf(routing, t, j);
  return Float64Array.from(votesOf(routing, j), (vote) => Math.hypot(...vote.map((value, p) => value - mean[p])));
}

export function weightedMean(values, weight) {
  let sum = 0, total = 0;
  values.forEach((value, i) => ((sum += weight[i] * value), (total += weight[i])));
  return total > 0 ? sum / total : NaN;
}

// The least value below or at which lies that share of the weight.
export function weightedQuantile(values, weight, share) {
  const order = [...values.keys()].sort((a, b) => values[a] - values[b]);
  const total = weight.reduce((sum, value) => sum + value, 0);
  let gone = 0;
  for (const i of order) if ((gone += weight[i]) >= share * total) return values[i];
  return values[order.at(-1)];
}

// A class's distances as shares of its data: bins from 0 to where 99 % of it lies in every iteration, so that all
// iterations have one scale. What lies further out counts in the last bin.
export function histograms(routing, j, bins = 24) {
  const times = Array.from({length: routing.T}, (_, t) => ({
    distance: distances(routing, t, j), weight: weights(routing, t, j),
  }));
  const reach = Math.max(...times.map(({distance, weight}) => weightedQuantile(distance, weight, 0.99)), 1e-6);
  const shares = times.map(({distance, weight}) => {
    const counts = new Float64Array(bins), total = weight.reduce((sum, value) => sum + value, 0);
    distance.forEach((value, i) => (counts[Math.min(bins - 1, Math.floor((bins * value) / reach))] += weight[i]));
    return total > 0 ? counts.map((count) => count / total) : counts;
  });
  return {reach, shares};
}

// The plane of the two directions in which a class's votes vary most, each vote weighted by its child's activation.
// Assignments have no part in it, so the plane is the same in all iterations.
export function principalPlane(routing, j) {
  const {P, children} = routing, votes = votesOf(routing, j);
  const centre = Float64Array.from({length: P}, (_, p) => weightedMean(votes.map((vote) => vote[p]), children));
  const total = children.reduce((sum, value) => sum + value, 0) || 1;
  const covariance = Array.from({length: P}, () => new Float64Array(P));
  votes.forEach((vote, i) => {
    const away = vote.map((value, p) => value - centre[p]);
    for (let p = 0; p < P; p++) {
      for (let q = 0; q < P; q++) covariance[p][q] += (children[i] / total) * away[p] * away[q];
    }
  });
  const {values, vectors} = eigen(covariance);
  const spread = values.reduce((sum, value) => sum + value, 0);
  return {centre, axes: [vectors[0], vectors[1]], held: spread > 0 ? (values[0] + values[1]) / spread : 1};
}

export function project(vector, {centre, axes}) {
  return axes.map((axis) => axis.reduce((sum, value, p) => sum + value * (vector[p] - centre[p]), 0));
}

// Eigenvalues of a symmetric matrix, the largest first, and their unit vectors, by Jacobi's rotations. The largest
// number of a vector is positive: otherwise a picture might be mirrored from one image to the next.
export function eigen(symmetric) {
  const n = symmetric.length, a = symmetric.map((row) => Float64Array.from(row));
  const v = a.map((_, i) => Float64Array.from({length: n}, (_, k) => Number(i === k)));
  const size = Math.hypot(...a.flatMap((row) => [...row]));
  for (let sweep = 0; sweep < 50; sweep++) {
    let off = 0;
    for (let p = 0; p < n; p++) for (let q = p + 1; q < n; q++) off = Math.max(off, Math.abs(a[p][q]));
    if (off <= 1e-13 * size) break;
    for (let p = 0; p < n; p++) for (let q = p + 1; q < n; q++) if (a[p][q] !== 0) rotate(a, v, p, q);
  }
  const order = [...Array(n).keys()].sort((i, k) => a[k][k] - a[i][i]);
  return {
    values: order.map((i) => Math.max(0, a[i][i])),
    vectors: order.map((i) => {
      const vector = v.map((row) => row[i]);
      const largest = vector.reduce((most, value) => (Math.abs(value) > Math.abs(most) + 1e-12 ? value : most), 0);
      return vector.map((value) => (largest < 0 ? -value : value));
    }),
  };
}

function rotate(a, v, p, q) {
  const n = a.length, angle = Math.atan2(2 * a[p][q], a[q][q] - a[p][p]) / 2;
  const cos = Math.cos(angle), sin = Math.sin(angle);
  for (const rows of [a, v]) {
    for (let k = 0; k < n; k++) {
      const x = rows[k][p], y = rows[k][q];
      rows[k][p] = cos * x - sin * y;
      rows[k][q] = sin * x + cos * y;
    }
  }
  for (let k = 0; k < n; k++) {
    const x = a[p][k], y = a[q][k];
    a[p][k] = cos * x - sin * y;
    a[q][k] = sin * x + cos * y;
  }
}

// One standard deviation of weighted points in the plane: an ellipse about their mean.
export function ellipse(points, weight) {
  const [x, y] = [0, 1].map((axis) => weightedMean(points.map((point) => point[axis]), weight));
  const moment = (f) => weightedMean(points.map(f), weight);
  const xx = moment((point) => (point[0] - x) ** 2), yy = moment((point) => (point[1] - y) ** 2);
  const xy = moment((point) => (point[0] - x) * (point[1] - y));
  const middle = (xx + yy) / 2, half = Math.hypot((xx - yy) / 2, xy);
  return {
    x, y,
    radii: [Math.sqrt(middle + half), Math.sqrt(Math.max(0, middle - half))],
    angle: Math.atan2(2 * xy, xx - yy) / 2,
  };
}

// Spearman's rank correlation of two lists of different numbers.
export function rankCorrelation(first, second) {
  const ranks = (values) => {
    const places = [];
    [...values.keys()].sort((a, b) => values[a] - values[b]).forEach((i, place) => (places[i] = place));
    return places;
  };
  const a = ranks(first), b = ranks(second), n = a.length;
  const squares = a.reduce((sum, rank, i) => sum + (rank - b[i]) ** 2, 0);
  return 1 - (6 * squares) / (n * (n * n - 1));
}
