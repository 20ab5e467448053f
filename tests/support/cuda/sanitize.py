"""Run the CUDA kernels under the thread sanitizer, and under those of addresses and undefined behaviour.

    python -m tests.support.cuda.sanitize build/sanitize

A thread of a block is a thread of the operating system here, so that the sanitizer sees a missing barrier as a race.
"""

import itertools
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from matcaps.routing import RoutingInputs, cuda, cuda_launch
from matcaps.routing.cuda_launch import Arguments, Plan
from matcaps.routing.operators import OperatorOptions
from tests.support.cuda import COMPILER, HERE, KERNELS, compile_kernels
from tests.support.routings import class_inputs, conv_inputs

SANITIZERS = ("thread", "address,undefined")

RESULTS = ("out_poses", "out_activations", "records", "sums", "weight_parts", "grad_poses", "grad_activations")

# what it is; batch, height, width, children, parents, kernel or 0 for classes, iterations; stride, competition, rule,
# double, and what of the cut is another
ROUTINGS = {
    "child competition": ((2, 3, 5, 2, 5, 2, 3), 2, True, 0, False, {}),
    "child competition, narrow": ((1, 4, 3, 2, 4, 2, 2), 1, True, 1, False, {"threads": 64, "splits": 2, "tile": 4}),
    "window competition": ((1, 3, 3, 2, 33, 2, 2), 1, False, 1, False, {"sweep_threads": 64}),
    "window competition, double": ((1, 3, 4, 2, 3, 2, 3), 1, False, 2, True, {"threads": 128, "splits": 8, "tile": 8}),
    "classes": ((3, 2, 3, 3, 5, 0, 2), 1, False, 2, False, {}),
    "one of each": ((1, 2, 2, 1, 1, 2, 1), 1, True, 0, False, {"threads": 32, "splits": 1, "tile": 1}),
}


def make_plan(name: str) -> tuple[Plan, list[Tensor]]:
    """A routing's plan and inputs."""
    (batch, height, width, children, parents, kernel, iterations), stride, child, rule, double, changes = ROUTINGS[name]
    if kernel:
        inputs = conv_inputs(batch, height, width, children, parents, kernel, iterations)
    else:
        inputs = class_inputs(batch, height, width, children, parents, iterations)
    inputs = [tensor.to(torch.float64 if double else torch.float32).contiguous() for tensor in inputs]
    plan = cuda_launch.plan_for(RoutingInputs(*inputs), OperatorOptions(stride, child, rule, 5e-4, 1 / 16))
    return replace(plan, cut=replace(plan.cut, **changes)), inputs


def describe_plan(plan: Plan, inputs: list[Tensor]) -> tuple[str, bytes]:
    """What ``sanitized.cpp`` reads: buffers and launches of a forward and a backward pass; and the inputs' bytes."""
    sizes, contents, lines = {}, {}, []

    class Recorded(Arguments):
        def point(self, **tensors: Tensor | None) -> None:
            super().point(**tensors)
            for name, tensor in tensors.items():
                if tensor is not None:
                    sizes[name] = tensor.numel() * tensor.element_size()

    def launch(name: str, arguments: Arguments, grid: tuple[int, int, int], threads: int, shared: int) -> None:
        lines.append(f"launch {name} {' '.join(map(str, grid))} {threads} {shared} {bytes(arguments).hex()}")

    buffers: dict[str, Tensor | None] = RoutingInputs(*inputs)._asdict()
    results = cuda._empty_results(RoutingInputs(*inputs), plan.options, True, True)
    grads = [torch.randn_like(result) for result in results[:2]]
    contents = buffers | {"grad_out_poses": grads[0], "grad_out_activations": grads[1]}
    buffers |= dict(zip(("out_poses", "out_activations", "records", "logits", "partitions"), results, strict=True))
    recorded, cuda_launch.Arguments = cuda_launch.Arguments, Recorded  # type: ignore[misc]
    try:
        cuda_launch.forward(plan, buffers, launch)
        cuda_launch.backward(plan, contents | {name: buffers[name] for name in cuda._STATE}, launch)
    finally:
        cuda_launch.Arguments = recorded  # type: ignore[misc]
    head, given = [], b""
    for name in cuda_launch._POINTERS:
        content = contents.get(name)
        head.append(f"buffer {sizes.get(name, -1)} {int(content is not None)}")
        if content is not None:
            given += content.numpy().tobytes()
    ends = [f"result {cuda_launch._POINTERS.index(name)} {name}" for name in RESULTS]
    return "\n".join([*head, *lines, *ends]) + "\n", given


def sanitize(name: str, sanitizers: str, folder: Path, kernels: Path = KERNELS) -> subprocess.CompletedProcess[str]:
    """Run a routing of :data:`ROUTINGS` under sanitizers; the files go to the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    plan, inputs = make_plan(name)
    text, given = describe_plan(plan, inputs)
    (folder / "plan.txt").write_text(text)
    (folder / "inputs.bin").write_bytes(given)
    options = [
        "-g",
        "-O1",
        f"-fsanitize={sanitizers}",
        "-fno-sanitize-recover=all",
        "-pthread",
        "-DMATCAPS_EMULATED_THREADS",
    ]
    program = compile_kernels(plan.shape, plan.cut, folder, *options, kernels=kernels, source=HERE / "sanitized.cpp")
    # without address-space randomisation where the tool allows: the thread sanitizer needs a known layout
    setarch = shutil.which("setarch")
    fixed = (
        [setarch, "-R"]
        if setarch and subprocess.run([setarch, "-R", "true"], capture_output=True).returncode == 0
        else []
    )
    command = [*fixed, str(program), str(folder / "plan.txt"), str(folder / "inputs.bin")]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def main() -> None:
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m tests.support.cuda.sanitize FOLDER")
    if not COMPILER:
        raise SystemExit("no g++ or clang++ to compile the CUDA kernels for this machine with")
    for sanitizers, name in itertools.product(SANITIZERS, ROUTINGS):
        done = sanitize(name, sanitizers, Path(sys.argv[1]) / f"cuda-{sanitizers}-{name.replace(' ', '-')}")
        print(f"CUDA kernels under {sanitizers}, {name}: {'right' if done.returncode == 0 else 'WRONG'}", flush=True)
        if done.returncode != 0:
            raise SystemExit(done.stderr[:5000])


if __name__ == "__main__":
    main()
