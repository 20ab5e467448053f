// Sixteen sliders in the shape of the pose matrix: the value is {low, high, values, own} as JSON, or empty.
const inputs = [...element.querySelectorAll("input")];
const outputs = [...element.querySelectorAll("output")];
const reset = element.querySelector("button");
const STEPS = 200;
let state = null;

function show() {
  inputs.forEach((input, place) => {
    input.disabled = reset.disabled = !state;
    if (!state) {
      outputs[place].textContent = "–";
      return;
    }
    const value = state.values[place];
    input.min = state.low[place];
    input.max = state.high[place];
    input.step = Math.max((state.high[place] - state.low[place]) / STEPS, 1e-6);
    if (document.activeElement !== input || Math.abs(Number(input.value) - value) > input.step) input.value = value;
    outputs[place].textContent = value.toFixed(2);
  });
}

function load() {
  state = props.value ? JSON.parse(props.value) : null;
  show();
}

function send() {
  props.value = JSON.stringify(state);
  trigger("input");
}

inputs.forEach((input, place) =>
  input.addEventListener("input", () => {
    state.values[place] = Number(input.value);
    outputs[place].textContent = state.values[place].toFixed(2);
    send();
  }),
);
reset.addEventListener("click", () => {
  state.values = [...state.own];
  show();
  send();
});
watch("value", load);
load();
