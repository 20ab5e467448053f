// The drawing pad: its value is a list of strokes, each a list of points from 0 to 1, as JSON.
const canvas = element.querySelector("canvas");
const brush = canvas.getContext("2d");
const SIDE = canvas.width;
const PAUSE = 120; // milliseconds between two values while a stroke is drawn
let strokes = [];
let drawing = false;
let sent = 0;

function redraw() {
  brush.clearRect(0, 0, SIDE, SIDE);
  brush.lineWidth = SIDE / 14;
  brush.lineCap = brush.lineJoin = "round";
  brush.strokeStyle = "#ffffff";
  for (const stroke of strokes) {
    brush.beginPath();
    stroke.forEach(([x, y], place) => brush[place ? "lineTo" : "moveTo"](x * SIDE, y * SIDE));
    if (stroke.length === 1) brush.lineTo(stroke[0][0] * SIDE + 0.1, stroke[0][1] * SIDE);
    brush.stroke();
  }
}

function send() {
  sent = Date.now();
  props.value = JSON.stringify(strokes);
  trigger("input");
}

function point(event) {
  const box = canvas.getBoundingClientRect();
  const share = (value, from, length) => Math.round(1000 * Math.min(1, Math.max(0, (value - from) / length))) / 1000;
  return [share(event.clientX, box.left, box.width), share(event.clientY, box.top, box.height)];
}

canvas.addEventListener("pointerdown", (event) => {
  drawing = true;
  canvas.setPointerCapture(event.pointerId);
  strokes.push([point(event)]);
  redraw();
});
canvas.addEventListener("pointermove", (event) => {
  if (!drawing) return;
  strokes[strokes.length - 1].push(point(event));
  redraw();
  if (Date.now() - sent > PAUSE) send();
});
for (const end of ["pointerup", "pointercancel"]) {
  canvas.addEventListener(end, () => {
    if (drawing) send();
    drawing = false;
  });
}
element.querySelector("button").addEventListener("click", () => {
  strokes = [];
  redraw();
  send();
});
watch("value", () => {
  if (!props.value && !drawing) { // another image was chosen
    strokes = [];
    redraw();
  }
});
