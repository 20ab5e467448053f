// The networks, in a thread of their own: the page stays quick while they compute. Nothing is fetched but files beside
// this one.
//
// Asked {id, open: name}, it answers {id, description}; asked {id, run: name, pixels, fetches}, it answers
// {id, outputs, milliseconds}, where an output is {dims, data}. What went wrong comes as {id, error}. While it opens
// a network it says {id, loaded, total} in bytes.
import * as ort from "./onnxruntime/ort.wasm.bundle.min.mjs";

const here = (path) => new URL(path, import.meta.url);
const sessions = new Map(); // name → promise of {session, description}
let runtime = null; // promise of the compiled runtime's bytes

ort.env.wasm.numThreads = 1; // more need shared memory, which most static hosts do not allow
ort.env.logLevel = "error";

self.addEventListener("message", async ({data: {id, open, run, pixels, fetches}}) => {
  try {
    if (open) {
      const {description} = await opened(open, (loaded, total) => self.postMessage({id, loaded, total}));
      self.postMessage({id, description});
    } else {
      const {session, description} = await opened(run);
      const shape = [1, ...description.input.shape.slice(1)];
      const start = performance.now();
      const made = await session.run({images: new ort.Tensor("float32", pixels, shape)}, fetches);
      const milliseconds = performance.now() - start;
      const outputs = {};
      for (const [name, tensor] of Object.entries(made)) outputs[name] = {dims: [...tensor.dims], data: tensor.data};
      self.postMessage({id, outputs, milliseconds});
    }
  } catch (error) {
    self.postMessage({id, error: error instanceof Error ? error.message : String(error)});
  }
});

function opened(name, tell = () => {}) {
  if (!sessions.has(name)) {
    const promise = openNetwork(name, tell);
    promise.catch(() => sessions.delete(name)); // so that it may be tried again
    sessions.set(name, promise);
  }
  return sessions.get(name);
}

async function openNetwork(name, tell) {
  const sizes = await (await get("sizes.json")).json();
  const wasm = "onnxruntime/ort-wasm-simd-threaded.wasm", file = `networks/${name}.onnx`;
  const total = (runtime ? 0 : sizes[wasm]) + sizes[file];
  let loaded = 0;
  const count = (bytes) => tell((loaded += bytes), total);
  if (!runtime) {
    runtime = bytesOf(wasm, count);
    runtime.catch(() => (runtime = null));
  }
  ort.env.wasm.wasmBinary = await runtime;
  const [model, description] = await Promise.all([
    bytesOf(file, count),
    get(`networks/${name}.json`).then((answer) => answer.json()),
  ]);
  return {session: await ort.InferenceSession.create(model, {executionProviders: ["wasm"]}), description};
}

async function get(path) {
  const answer = await fetch(here(path));
  if (!answer.ok) throw new Error(`${path} could not be loaded: ${answer.status} ${answer.statusText}`);
  return answer;
}

// A file's bytes; count is told how many have come.
async function bytesOf(path, count) {
  const reader = (await get(path)).body.getReader();
  const parts = [];
  for (;;) {
    const {done, value} = await reader.read();
    if (done) break;
    parts.push(value);
    count(value.length);
  }
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}
