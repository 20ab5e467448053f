// The page's figures as SVG, in the page's own colours (page.css). Text is as large as the page's small print at the
// width that a figure has there; every figure has a description for those who do not see it.

const escape = (text) => String(text).replace(/[&<>"]/g, (sign) => `&#${sign.charCodeAt(0)};`);
const at = (value) => Math.round(value * 10) / 10;
const text = (x, y, words, kind = "") => `<text x="${at(x)}" y="${at(y)}" class="${kind}">${escape(words)}</text>`;
const line = (x1, y1, x2, y2, kind) =>
  `<line x1="${at(x1)}" y1="${at(y1)}" x2="${at(x2)}" y2="${at(y2)}" class="${kind}"/>`;

function svg(width, height, label, body, kind) {
  return `<svg viewBox="0 0 ${width} ${height}" class="mc-chart ${kind}" role="img" aria-label="${escape(label)}">` +
    `${body}</svg>`;
}

// Activations of all classes as horizontal bars from 0 to 1. `first` and `second` are the classes shown below.
export function bars(names, values, first, second) {
  const left = 20 + 8 * Math.max(...names.map((name) => name.length)), right = 300, row = 22;
  const bottom = 4 + row * names.length;
  const parts = [0, 0.5, 1].map((tick) => {
    const x = left + tick * (right - left);
    return line(x, 2, x, bottom, "grid") + text(x, bottom + 16, tick, "middle");
  });
  names.forEach((name, j) => {
    const y = 4 + row * j, kind = j === first ? "first" : j === second ? "second" : "other";
    const width = Math.max(0, Math.min(1, values[j])) * (right - left);
    parts.push(
      text(left - 8, y + 15, name, `end ${j === first ? "strong" : ""}`),
      `<rect x="${left}" y="${y + 3}" width="${at(width)}" height="16" class="${kind}"/>`,
      text(right + 8, y + 15, values[j].toFixed(2), j === first ? "strong" : ""),
    );
  });
  const listed = names.map((name, j) => `${name} ${values[j].toFixed(2)}`).join(", ");
  return svg(350, bottom + 22, `Activations by class: ${listed}`, parts.join(""), "bars");
}

const SIDE = 300, EDGE = 8; // of the plane of votes

// A class's votes in a plane: points [x, y], how far the frame reaches from its middle, the largest radius of a point.
// `state` is what changes from iteration to iteration; `moveVotes` changes it in place, so that points can grow.
export function votesPlane(points, reach, state, label) {
  const inside = points.map(([x, y]) => [place(x, reach), place(-y, reach)]);
  const dots = inside.map(([x, y], i) => `<circle cx="${at(x)}" cy="${at(y)}" r="${radius(state.weight[i])}"/>`);
  const body = `<rect x="0.5" y="0.5" width="${SIDE - 1}" height="${SIDE - 1}" class="frame"/>` +
    `<g class="dots">${dots.join("")}</g><ellipse class="ring"/><path class="mean" d="M-7,0H7M0,-7V7"/>` +
    scaleBar(reach);
  return svg(SIDE, SIDE, label, body, "plane");
}

// Show another iteration's state in a figure of votesPlane.
export function moveVotes(figure, reach, state, label) {
  figure.setAttribute("aria-label", label);
  figure.querySelectorAll("circle").forEach((dot, i) => dot.setAttribute("r", radius(state.weight[i])));
  const {x, y, radii, angle} = state.ellipse, unit = (SIDE / 2 - EDGE) / reach;
  const ring = figure.querySelector(".ring"), mean = figure.querySelector(".mean");
  ring.setAttribute("rx", at(radii[0] * unit));
  ring.setAttribute("ry", at(radii[1] * unit));
  const turn = (-angle * 180) / Math.PI;
  ring.style.transform = `translate(${at(place(x, reach))}px, ${at(place(-y, reach))}px) rotate(${turn.toFixed(1)}deg)`;
  mean.style.transform = `translate(${at(place(state.mean[0], reach))}px, ${at(place(-state.mean[1], reach))}px)`;
}

const place = (value, reach) => SIDE / 2 + (value / reach) * (SIDE / 2 - EDGE);

// The area of a point is its weight; one that is nought cannot be seen.
const radius = (weight) => (weight < 1e-6 ? "0" : (9 * Math.sqrt(weight)).toFixed(2));

function scaleBar(reach) {
  const length = roundDown(reach / 2), width = (length / reach) * (SIDE / 2 - EDGE);
  return line(14, SIDE - 14, 14 + width, SIDE - 14, "axis") + text(14, SIDE - 20, `${shortNumber(length)} pose units`);
}

// Shares of a class's data by distance from its mean; `top` is the end of the vertical axis.
export function histogram(shares, reach, top, mean, kind, label) {
  const left = 40, right = 290, head = 8, bottom = 120, width = (right - left) / shares.length;
  const height = (share) => ((bottom - head) * Math.min(share, top)) / top;
  const parts = [...shares].map((share, k) =>
    `<rect x="${at(left + k * width)}" y="${at(bottom - height(share))}" width="${at(width - 0.6)}"` +
    ` height="${at(height(share))}" class="${kind}"/>`);
  const x = left + (Math.min(mean, reach) / reach) * (right - left);
  parts.push(
    line(left, bottom, right, bottom, "axis"), line(left, head, left, bottom, "axis"),
    line(x, head, x, bottom, "meanline"),
    text(left - 6, head + 10, percent(top, 0), "end"), text(left - 6, bottom, "0", "end"),
    text(left, bottom + 18, "0", "middle"), text(right, bottom + 18, shortNumber(reach), "end"),
    text((left + right) / 2, bottom + 18, "distance, pose units", "middle"),
  );
  return svg(300, 144, label, parts.join(""), "histogram");
}

// With a space that no line breaks at.
export const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)}\u00a0%`;

// Three digits, without a row of noughts.
export function shortNumber(value) {
  if (value === 0) return "0";
  if (Math.abs(value) >= 1000) return Math.round(value).toLocaleString("en-GB");
  return String(Number(value.toPrecision(Math.abs(value) >= 100 ? 3 : 2)));
}

// The next lower of 1, 2 and 5 times a power of ten.
export function roundDown(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [5, 2, 1].find((step) => step * power <= value * (1 + 1e-9)) * power;
}

// A drawing's strokes as a small picture, for the button that chooses it.
export function strokesPicture(strokes) {
  const paths = strokes.map((stroke) => `M${stroke.map(([x, y]) => `${at(100 * x)},${at(100 * y)}`).join("L")}`);
  return `<svg viewBox="-8 -8 116 116" aria-hidden="true"><path d="${paths.join("")}"/></svg>`;
}
