// Stereo pairs drawn by code: simple shaded solids on a light ground, seen by two cameras side by side, about as
// smallNORB's toys were photographed. They are neither photographs nor made from any.
//
// A solid is a function from a point to its distance from the surface (negative inside); rays walk by that distance.
// x to the right, y to the back, z up; the ground is z = 0, and a solid fits into a sphere of radius 1.25 about CENTRE.

const CENTRE = [0, 0, 0.55], REACH = 1.25;
const FAR = 7.5, APART = 0.62; // of the cameras: how far away, and how far apart
const HALF_FIELD = 0.235; // tangent of half the field of view
const GROUND = 0.8, PAINT = 0.72, DARK = 0.3; // how much light they give back; panes and wheels are dark
const AMBIENT = 0.5; // light from all sides, of all that there is

const sphere = (r, x, y, z) => (p) => Math.hypot(p[0] - x, p[1] - y, p[2] - z) - r;

// A box about a place with half its sides, its edges rounded.
const box = ([x, y, z], [a, b, c], round = 0.03) => (p) => {
  const u = Math.abs(p[0] - x) - a + round, v = Math.abs(p[1] - y) - b + round, w = Math.abs(p[2] - z) - c + round;
  return Math.hypot(Math.max(u, 0), Math.max(v, 0), Math.max(w, 0)) + Math.min(Math.max(u, v, w), 0) - round;
};

// A line from one place to another, as thick as two radii say.
const limb = (from, to, r, end = r) => {
  const d = to.map((value, k) => value - from[k]), squared = d[0] ** 2 + d[1] ** 2 + d[2] ** 2;
  return (p) => {
    const q = [p[0] - from[0], p[1] - from[1], p[2] - from[2]];
    const along = Math.min(1, Math.max(0, (q[0] * d[0] + q[1] * d[1] + q[2] * d[2]) / squared));
    return Math.hypot(q[0] - along * d[0], q[1] - along * d[1], q[2] - along * d[2]) - r - along * (end - r);
  };
};

const wheel = (x, y, r) => (p) => {
  const u = Math.hypot(p[0] - x, p[2] - r) - r, v = Math.abs(p[1] - y) - 0.08;
  return Math.min(Math.max(u, v), 0) + Math.hypot(Math.max(u, 0), Math.max(v, 0));
};

const wheels = (places, y, r) => places.flatMap((x) => pairs((s) => dark(wheel(x, s * y, r))));
const pairs = (make) => [make(-1), make(1)];

const dark = (part) => Object.assign(part, {isDark: true});

// Named as the five categories of smallNORB, and meant to be like them.
export const SOLIDS = {
  animal: [
    limb([-0.5, 0, 0.62], [0.4, 0, 0.68], 0.27, 0.24),
    limb([0.45, 0, 0.75], [0.75, 0, 1.02], 0.17, 0.12),
    limb([0.72, 0, 1.06], [1.0, 0, 0.94], 0.16, 0.09),
    ...pairs((s) => limb([0.68, 0.1 * s, 1.15], [0.64, 0.14 * s, 1.3], 0.05, 0.02)),
    limb([-0.7, 0, 0.72], [-0.98, 0, 0.42], 0.06, 0.04),
    ...[-0.55, 0.4].flatMap((x) => pairs((s) => limb([x, 0.15 * s, 0.55], [x + 0.08 * s, 0.18 * s, 0.06], 0.11, 0.07))),
  ],
  human: [
    limb([0, 0, 0.72], [0.02, 0, 1.02], 0.13, 0.16),
    sphere(0.14, 0.04, 0, 1.32),
    ...pairs((s) => limb([0, 0.08 * s, 0.68], [0.12 * s, 0.14 * s, 0.06], 0.1, 0.06)),
    limb([0, -0.18, 1.08], [0.35, -0.28, 0.98], 0.06, 0.05),
    limb([0.35, -0.28, 0.98], [0.6, -0.12, 1.12], 0.05, 0.04),
    limb([0, 0.18, 1.08], [0.02, 0.34, 0.7], 0.06, 0.05),
    limb([0.3, -0.25, 1.05], [0.85, -0.05, 1.12], 0.03, 0.025),
    box([0, 0, 0.02], [0.22, 0.22, 0.03]),
  ],
  plane: [
    limb([-0.95, 0, 0.42], [0.85, 0, 0.4], 0.09, 0.14),
    ...pairs((s) => limb([0.2, 0.1 * s, 0.4], [-0.3, 1.0 * s, 0.42], 0.11, 0.05)),
    ...pairs((s) => limb([-0.85, 0.05 * s, 0.46], [-1.02, 0.4 * s, 0.46], 0.06, 0.03)),
    limb([-0.85, 0, 0.5], [-1.02, 0, 0.8], 0.06, 0.04),
    ...pairs((s) => limb([0.18, 0.42 * s, 0.28], [-0.1, 0.42 * s, 0.28], 0.07)),
    dark(box([0.78, 0, 0.5], [0.07, 0.06, 0.04])),
  ],
  truck: [
    box([0.72, 0, 0.42], [0.26, 0.36, 0.3], 0.06),
    dark(box([0.86, 0, 0.6], [0.13, 0.31, 0.1], 0.02)),
    ...pairs((s) => dark(box([0.72, 0.32 * s, 0.58], [0.13, 0.06, 0.09], 0.02))),
    box([-0.28, 0, 0.54], [0.7, 0.38, 0.42]),
    dark(box([0, 0, 0.16], [0.95, 0.3, 0.06])),
    ...wheels([-0.7, -0.38, 0.7], 0.34, 0.15),
  ],
  car: [
    box([0, 0, 0.28], [0.98, 0.4, 0.15], 0.1),
    box([-0.1, 0, 0.46], [0.44, 0.31, 0.16], 0.12),
    dark(box([0.28, 0, 0.47], [0.08, 0.26, 0.1], 0.03)),
    dark(box([-0.5, 0, 0.47], [0.07, 0.25, 0.09], 0.03)),
    ...pairs((s) => dark(box([-0.1, 0.29 * s, 0.48], [0.28, 0.04, 0.08], 0.02))),
    ...wheels([-0.6, 0.6], 0.36, 0.16),
  ],
};

// A stereo pair, left then right: [2, side, side] grey levels from 0 to 255. Angles in degrees: azimuth about the
// vertical, elevation of the cameras above the ground, light: where it comes from, about the vertical.
export function renderPair({solid, azimuth, elevation, light}, side = 48, finer = 2) {
  const parts = SOLIDS[solid], turn = radians(azimuth), up = radians(elevation), from = radians(light);
  const cos = Math.cos(turn), sin = Math.sin(turn);
  let nearest = null; // the part that the last distance was to
  const distance = (p) => { // the solid turns, cameras and light stay
    const own = [cos * p[0] + sin * p[1], cos * p[1] - sin * p[0], p[2]];
    let least = Infinity;
    for (const part of parts) {
      const gap = part(own);
      if (gap < least) [least, nearest] = [gap, part];
    }
    return least;
  };
  const lamp = normal([Math.sin(from), -Math.cos(from) * 0.6, 1.3]);
  const shade = shader(distance, () => (nearest.isDark ? DARK : PAINT), lamp);
  const image = new Uint8Array(2 * side * side);
  for (const [view, offset] of [[0, -APART / 2], [1, APART / 2]]) {
    const eye = [offset, CENTRE[1] - FAR * Math.cos(up), CENTRE[2] + FAR * Math.sin(up)];
    const forward = normal(CENTRE.map((value, k) => value - eye[k]));
    const right = normal([forward[1], -forward[0], 0]), above = cross(right, forward);
    for (let row = 0; row < side; row++) {
      for (let column = 0; column < side; column++) {
        let sum = 0;
        for (let k = 0; k < finer * finer; k++) {
          const x = ((column + ((k % finer) + 0.5) / finer) / side) * 2 - 1;
          const y = 1 - ((row + (Math.floor(k / finer) + 0.5) / finer) / side) * 2;
          sum += shade(eye, normal(forward.map((value, i) => value + HALF_FIELD * (x * right[i] + y * above[i]))));
        }
        image[(view * side + row) * side + column] = Math.round(255 * Math.min(1, sum / (finer * finer)));
      }
    }
  }
  return image;
}

// How bright a ray ends. `paint` says how much light the part that the last distance was to gives back.
function shader(distance, paint, lamp) {
  // The distance along a ray to the solid; Infinity if it passes by.
  const meet = (start, direction) => {
    const [near, far] = throughSphere(start, direction);
    for (let way = Math.max(near, 0.02), steps = 0; way < far && steps < 60; steps++) {
      const gap = distance(along(start, direction, way));
      if (gap < 0.004) return way;
      way += gap;
    }
    return Infinity;
  };
  // How much of the light from all sides reaches a point: less where the solid is near.
  const openness = (point, facing) => {
    let open = 1;
    for (const way of [0.08, 0.2, 0.4]) {
      open -= 0.3 * Math.max(0, 1 - Math.max(0, distance(along(point, facing, way))) / way);
    }
    return Math.max(0.1, open);
  };
  return (eye, direction) => {
    const ground = direction[2] < 0 ? -eye[2] / direction[2] : Infinity, way = meet(eye, direction);
    const point = along(eye, direction, Math.min(way, ground));
    const isSolid = way < ground, colour = isSolid ? paint() : GROUND;
    const facing = isSolid ? slope(distance, point) : [0, 0, 1];
    let light = Math.max(0, dot(facing, lamp)) / lamp[2]; // 1 on the ground
    if (light > 0 && meet(along(point, facing, 0.02), lamp) < Infinity) light *= 0.35; // in shadow
    return colour * (AMBIENT * openness(point, facing) + (1 - AMBIENT) * light);
  };
}

// Where a ray enters and leaves the sphere about the solid.
function throughSphere(start, direction) {
  const to = CENTRE.map((value, k) => value - start[k]), middle = dot(to, direction);
  const half = REACH ** 2 - (dot(to, to) - middle ** 2);
  return half > 0 ? [middle - Math.sqrt(half), middle + Math.sqrt(half)] : [Infinity, -Infinity];
}

// The direction in which the surface faces.
function slope(distance, p) {
  const e = 0.004, at = (k, by) => distance(p.map((value, i) => value + (i === k ? by : 0)));
  return normal([0, 1, 2].map((k) => at(k, e) - at(k, -e)));
}

const radians = (degrees) => (degrees * Math.PI) / 180;
const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const along = (p, d, way) => [p[0] + way * d[0], p[1] + way * d[1], p[2] + way * d[2]];
const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];

function normal(a) {
  const length = Math.hypot(...a) || 1;
  return a.map((value) => value / length);
}
