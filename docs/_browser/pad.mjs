// The drawing pad: strokes by mouse, pen, finger or keyboard.

const STEP = 0.04; // how far an arrow key moves the pen

// Strokes as in drawing.mjs; `changed` is called whenever they change. `strokes` is always the same list.
export function createPad(canvas, changed) {
  const brush = canvas.getContext("2d"), side = canvas.width, strokes = [];
  const pen = {x: 0.5, y: 0.2, isDown: false, isShown: false}; // the keyboard's
  let isDrawing = false;

  function redraw() {
    brush.clearRect(0, 0, side, side);
    brush.lineWidth = side / 14;
    brush.lineCap = brush.lineJoin = "round";
    brush.strokeStyle = "#fff";
    for (const stroke of strokes) {
      brush.beginPath();
      stroke.forEach(([x, y], k) => brush[k ? "lineTo" : "moveTo"](x * side, y * side));
      if (stroke.length === 1) brush.lineTo(stroke[0][0] * side + 0.1, stroke[0][1] * side);
      brush.stroke();
    }
    if (!pen.isShown) return;
    brush.beginPath();
    brush.arc(pen.x * side, pen.y * side, side / 28, 0, 2 * Math.PI);
    brush.lineWidth = 3;
    brush.strokeStyle = pen.isDown ? "#e69f00" : "#56b4e9";
    brush.stroke();
  }

  const update = () => (redraw(), changed());

  function pointOf({clientX, clientY}) {
    const box = canvas.getBoundingClientRect();
    const share = (value, from, length) => Math.min(1, Math.max(0, (value - from) / length));
    return [share(clientX, box.left, box.width), share(clientY, box.top, box.height)];
  }

  canvas.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    isDrawing = true;
    pen.isShown = pen.isDown = false;
    canvas.setPointerCapture(event.pointerId);
    strokes.push([pointOf(event)]);
    update();
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!isDrawing) return;
    strokes.at(-1).push(pointOf(event));
    update();
  });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => (isDrawing = false));

  const moves = {ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP]};
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !(event.key in moves || event.key === " ")) return;
    event.preventDefault();
    pen.isShown = true;
    if (event.key === " ") {
      pen.isDown = !pen.isDown;
      if (!pen.isDown) return redraw();
      strokes.push([[pen.x, pen.y]]);
      return update();
    }
    const [dx, dy] = moves[event.key];
    pen.x = Math.min(1, Math.max(0, pen.x + dx));
    pen.y = Math.min(1, Math.max(0, pen.y + dy));
    if (!pen.isDown) return redraw();
    strokes.at(-1).push([pen.x, pen.y]);
    update();
  });
  canvas.addEventListener("focus", () => {
    pen.isShown = canvas.matches(":focus-visible");
    redraw();
  });
  canvas.addEventListener("blur", () => {
    pen.isShown = pen.isDown = false;
    redraw();
  });

  return {
    strokes,
    set(others) {
      pen.isDown = isDrawing = false;
      strokes.splice(0, strokes.length, ...others.map((stroke) => stroke.map((point) => [...point])));
      update();
    },
  };
}
