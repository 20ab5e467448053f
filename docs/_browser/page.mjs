// The page itself: what the reader draws or chooses goes to the network in worker.mjs, its answer to the figures.
import {bars, histogram, moveVotes, percent, shortNumber, strokesPicture, votesPlane} from "./charts.mjs";
import {cropEdge, exampleOf, imageOf, prepared} from "./drawing.mjs";
import {createPad} from "./pad.mjs";
import {readPictures} from "./pictures.mjs";
import {renderPair, SOLIDS} from "./stereo.mjs";
import * as votes from "./votes.mjs";
import {answer, sentences} from "./wording.mjs";

const DIGITS = "tutorial-mnist", TOYS = "paper-small-smallnorb";
const PAUSE = 900; // milliseconds between two iterations when played

const root = document.querySelector("#matcaps-browser");
const part = (name) => root.querySelector(`.mc-${name}`);

// What is shown, and for tests to see: the network, its description, the grey levels that it got, its input and answer,
// each class's numbers by iteration, how many answers there were, and milliseconds of opening it and of the answer.
export const shown = {
  network: DIGITS, description: null, levels: null, input: null, routing: null, histories: null, count: 0,
  opened: NaN, milliseconds: NaN,
};

// ---- The worker: one question at a time; of pictures that come meanwhile, the last is taken.

const worker = new Worker(new URL("worker.mjs", import.meta.url), {type: "module"});
const waiting = new Map();
let questions = 0;

worker.addEventListener("message", ({data}) => {
  if (data.total) return showProgress(data.loaded, data.total);
  const {resolve, reject} = waiting.get(data.id);
  waiting.delete(data.id);
  data.error ? reject(new Error(data.error)) : resolve(data);
});
worker.addEventListener("error", (event) => fail(event.message || "its program could not be loaded"));

function ask(question) {
  return new Promise((resolve, reject) => {
    waiting.set(++questions, {resolve, reject});
    worker.postMessage({id: questions, ...question});
  });
}

let isBusy = false, next = null;

async function see(levels) {
  next = {network: shown.network, levels};
  if (isBusy) return;
  isBusy = true;
  try {
    while (next) {
      const {network, levels} = next, {description} = shown;
      next = null;
      const input = prepared(levels, description.input.shape[1], description.preparation);
      const {outputs, milliseconds} = await ask({run: network, pixels: input, fetches: votes.FETCHES});
      if (network !== shown.network || (network === DIGITS && !pad.strokes.length)) continue; // no longer asked for
      Object.assign(shown, {levels, input, milliseconds, routing: votes.readRouting(outputs), count: shown.count + 1});
      showAnswer();
    }
  } catch (error) {
    fail(error.message);
  } finally {
    isBusy = false;
  }
}

// ---- Opening

async function open(name) {
  shown.network = name;
  part("digits").hidden = name !== DIGITS;
  part("stereo").hidden = name !== TOYS;
  say("Loading the network …");
  const start = performance.now();
  let description;
  try {
    ({description} = await ask({open: name}));
  } catch (error) {
    return fail(error.message);
  }
  if (shown.network !== name) return; // another was chosen meanwhile
  shown.description = description;
  shown.opened = performance.now() - start;
  part("progress").hidden = true;
  part("body").hidden = false;
  say("");
  fillClasses();
  name === DIGITS ? seeDrawing() : seeSolid();
}

function showProgress(loaded, total) {
  const bar = part("progress");
  bar.hidden = false;
  bar.value = loaded / total;
  say(`Loading the network: ${(loaded / 1e6).toFixed(1)} of ${(total / 1e6).toFixed(1)} MB`);
}

function say(words) {
  const status = part("status");
  status.hidden = !words;
  status.textContent = words;
  status.classList.remove("mc-problem");
}

function fail(message) {
  part("progress").hidden = true;
  say(`The network cannot run here: ${message}`);
  part("status").classList.add("mc-problem");
}

// ---- Digits

const pad = createPad(part("pad"), () => shown.description && shown.network === DIGITS && seeDrawing());

function seeDrawing() {
  const levels = imageOf(pad.strokes);
  levels ? see(levels) : showNothing();
}

function showNothing() {
  next = null;
  Object.assign(shown, {levels: null, input: null, routing: null});
  part("answer").textContent = "Nothing is drawn: draw a digit, or choose an example.";
  root.classList.add("mc-empty");
}

async function startDigits() {
  const answer = await fetch(new URL("networks/digits.json", import.meta.url));
  const digits = (await answer.json()).map(exampleOf);
  part("examples").innerHTML = digits.map((strokes, k) =>
    `<button type="button" aria-label="A drawn ${k}">${strokesPicture(strokes)}</button>`).join("");
  part("examples").querySelectorAll("button").forEach((button, k) => {
    button.addEventListener("click", () => pad.set(digits[k]));
  });
  part("clear").addEventListener("click", () => pad.set([]));
  pad.set(digits[3]);
}

// ---- Toys

let solidWait = 0;

function seeSolid() {
  cancelAnimationFrame(solidWait); // a slider that is drawn along asks more often than a picture can be made
  solidWait = requestAnimationFrame(() => {
    const solid = part("solid").value, value = (name) => Number(part(name).value);
    const view = {solid, azimuth: value("azimuth"), elevation: value("elevation"), light: value("light")};
    for (const name of ["azimuth", "elevation", "light"]) {
      part(name).parentElement.querySelector("output").textContent = `${value(name)}°`.replace("-", "−");
    }
    part("source").textContent = "A solid drawn by this page's code. The network was trained on photographs of toys, " +
      "none of which is here: what it answers to drawings says nothing of how good it is.";
    see(renderPair(view, shown.description.preparation.image_size));
  });
}

function startToys() {
  part("solid").innerHTML = Object.keys(SOLIDS).map((name) => `<option>${name}</option>`).join("");
  part("solid").value = "plane";
  for (const name of ["solid", "azimuth", "elevation", "light"]) part(name).addEventListener("input", seeSolid);
  part("files").addEventListener("change", async ({target}) => {
    if (!target.files.length) return;
    try {
      const levels = await readPictures([...target.files], shown.description.preparation.image_size);
      part("source").textContent = target.files.length === 1 ?
        "Your picture, the same for both cameras: its middle square. It stays in your browser." :
        "Your first two pictures, left and right: their middle squares. They stay in your browser.";
      see(levels);
    } catch (error) {
      part("source").textContent = error.message;
    }
  });
}

// ---- Figures

let pair = [0, 1], figures = [], timer = 0;

const classNames = () => shown.description.classes;

function fillClasses() {
  part("other").innerHTML = ["the second most active", ...classNames()].map((name, k) =>
    `<option value="${k - 1}">${name}</option>`).join("");
  const slider = part("iteration");
  slider.max = slider.value = shown.description.outputs["class_capsules.activation"].shape[1];
}

function showAnswer() {
  const {routing} = shown, order = votes.ranked(routing.activations);
  root.classList.remove("mc-empty");
  const chosen = Number(part("other").value);
  pair = [order[0], chosen >= 0 && chosen !== order[0] ? chosen : order[1]];
  shown.histories = Array.from({length: routing.J}, (_, j) => votes.history(routing, j));
  showViews();
  part("bars").innerHTML = bars(classNames(), routing.activations, ...pair);
  part("answer").textContent = answer(classNames(), routing.activations, order);
  figures = pair.map((j, place) => new ClassFigure(place ? part("second") : part("first"), j, place));
  part("said").innerHTML = sentences(classNames(), pair, shown.histories)
    .map((words) => `<li>${words}</li>`).join("");
  part("time").textContent = `The network took ${Math.round(shown.milliseconds)} ms in this browser, ` +
    `all of its ${routing.T} iterations and three routed layers, on one thread.`;
  showIteration();
}

function showViews() {
  const {levels, description} = shown, side = description.preparation.image_size, {crop} = description.preparation;
  const edge = cropEdge(side, crop), channels = description.input.shape[1];
  const views = part("views");
  if (views.children.length !== channels) {
    views.innerHTML = "<canvas role=\"img\"></canvas>".repeat(channels);
  }
  [...views.children].forEach((canvas, c) => {
    canvas.width = canvas.height = crop;
    const names = channels === 2 ? ["the left camera", "the right camera"] : ["the drawing"];
    canvas.ariaLabel = `The network's input, ${crop} by ${crop} pixels: ${names[c]}`;
    const picture = new ImageData(crop, crop);
    for (let place = 0; place < crop * crop; place++) {
      const row = edge + Math.floor(place / crop), column = edge + (place % crop);
      const grey = levels[(c * side + row) * side + column];
      picture.data.set([grey, grey, grey, 255], 4 * place);
    }
    canvas.getContext("2d").putImageData(picture, 0, 0);
  });
}

// One class's votes: the plane, the histogram, and their words.
class ClassFigure {
  constructor(place, j, number) {
    const {routing} = shown, plane = votes.principalPlane(routing, j);
    const points = votes.votesOf(routing, j).map((vote) => votes.project(vote, plane));
    const far = points.map(([x, y]) => Math.max(Math.abs(x), Math.abs(y)));
    this.reach = Math.max(votes.weightedQuantile(far, routing.children, 0.98), 1e-6);
    this.outside = far.filter((value) => value > this.reach).length;
    this.states = Array.from({length: routing.T}, (_, t) => {
      const weight = votes.weights(routing, t, j);
      return {weight, ellipse: votes.ellipse(points, weight), mean: votes.project(votes.meanOf(routing, t, j), plane)};
    });
    this.bins = votes.histograms(routing, j);
    this.top = Math.max(...this.bins.shares.flatMap((shares) => [...shares]));
    Object.assign(this, {place, j, held: plane.held, kind: number ? "second" : "first"});
    place.querySelector("h3").textContent = number ? `Votes for ${this.name}` : `Votes for ${this.name}, the most active`;
    place.querySelector(".mc-plane").innerHTML =
      votesPlane(points, this.reach, this.states[Number(part("iteration").value) - 1], this.name);
  }

  get name() {
    return classNames()[this.j];
  }

  show(t) {
    const past = shown.histories[this.j][t], {routing} = shown;
    const label = `Votes for ${this.name} after iteration ${t + 1} of ${routing.T}: ${percent(past.share)} of the data, ` +
      `mean ln σ ${past.logDeviation.toFixed(2)}`;
    moveVotes(this.place.querySelector(".mc-plane svg"), this.reach, this.states[t], label);
    this.place.querySelector("figcaption").textContent = `${percent(past.share)} of the data, activation ` +
      `${past.activation.toFixed(2)}. The plane holds ${percent(this.held, 0)} of the votes' spread; ` +
      `${this.outside} of ${routing.N} votes lie outside the frame.`;
    this.place.querySelector(".mc-histogram").innerHTML = histogram(
      this.bins.shares[t], this.bins.reach, this.top, past.distance, this.kind,
      `Distances of the votes for ${this.name} from their mean, after iteration ${t + 1}: ` +
      `${shortNumber(past.distance)} pose units on average`);
  }
}

function showIteration() {
  const slider = part("iteration"), t = Number(slider.value) - 1, {T} = shown.routing;
  slider.parentElement.querySelector("output").textContent = `${t + 1} of ${T}`;
  for (const figure of figures) figure.show(t);
  showTable(t);
}

function showTable(now) {
  const {T} = shown.routing, heads = [...Array(T).keys()];
  const cells = (j, value) => heads.map((t) => `<td>${value(shown.histories[j][t])}</td>`).join("");
  const rows = [
    ["share of the data", ({share}) => percent(share)],
    ["mean ln σ of the votes", ({logDeviation}) => logDeviation.toFixed(2).replace("-", "−")],
    ["mean distance of the votes", ({distance}) => shortNumber(distance)],
    ["activation", ({activation}) => activation.toFixed(2)],
  ];
  part("table").innerHTML = `<thead><tr><th scope="col">by iteration</th><th scope="col">class</th>` +
    `${heads.map((t) => `<th scope="col"${t === now ? " aria-current=\"step\"" : ""}>${t + 1}</th>`).join("")}</tr></thead>` +
    `<tbody>${rows.flatMap(([words, value]) => pair.map((j, place) =>
      `<tr>${place ? "" : `<th scope="rowgroup" rowspan="2">${words}</th>`}` +
      `<td class="${place ? "second" : "first"}">${classNames()[j]}</td>${cells(j, value)}</tr>`)).join("")}</tbody>`;
  part("table").querySelectorAll("tbody tr").forEach((row) => {
    row.querySelectorAll("td:not(.first, .second)").forEach((cell, t) => cell.classList.toggle("now", t === now));
  });
}

function play() {
  stop();
  const slider = part("iteration");
  slider.value = 1;
  showIteration();
  part("play").textContent = "Stop";
  timer = setInterval(() => {
    slider.value = Number(slider.value) + 1;
    showIteration();
    if (slider.value === slider.max) stop();
  }, PAUSE);
}

function stop() {
  clearInterval(timer);
  timer = 0;
  part("play").textContent = "Play";
}

part("iteration").addEventListener("input", () => (stop(), shown.routing && showIteration()));
part("play").addEventListener("click", () => (timer ? stop() : shown.routing && play()));
part("other").addEventListener("change", () => shown.routing && showAnswer());
root.querySelectorAll("[name=mc-network]").forEach((choice) => {
  choice.addEventListener("change", () => (stop(), open(choice.value)));
});

startToys();
startDigits().then(() => open(DIGITS), (error) => fail(error.message));
