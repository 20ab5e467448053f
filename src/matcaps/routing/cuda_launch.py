"""Buffers, grids and tile sizes: what a forward and a backward pass of the CUDA path launch, in order.

The kernels and their names are in ``cuda_kernels/``; who compiles and launches them is
:mod:`matcaps.routing.cuda_program`, or in tests an emulator.
"""

import ctypes
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from matcaps.routing.operators import OperatorOptions
from matcaps.routing.spec import RoutingInputs

GRAD_RECORD = 32
"""Planes of a record's gradients; as in ``cuda_kernels/common.cuh``."""

SHARED_LIMIT = 227 * 1024
"""Bytes of shared memory that a block can have on GPUs of compute capability 9.0 and 10.0; others have less."""

_BLOCKS = 200
"""Blocks that give each of the 132 processors of an H100 work for most of the time."""


@dataclass(frozen=True)
class Shape:
    """A routing's geometry, known when its kernels are compiled; class capsules are one window as large as the map."""

    height: int
    width: int
    types: int
    parents: int
    kernel_height: int
    kernel_width: int
    stride: int
    rows: int
    columns: int
    children: int
    period: int
    """Children of a window after which the weights repeat."""
    child_competition: bool
    coordinates: bool
    rule: int
    iterations: int
    double: bool

    @property
    def item(self) -> int:
        """Bytes of a number."""
        return 8 if self.double else 4

    @property
    def factors(self) -> int:
        """Groups of four factors that the last sweep has of a window and a parent."""
        return 16 * self.iterations - 3


@dataclass(frozen=True)
class Cut:
    """How the work is cut into blocks and threads.

    The same cut gives the same bits, and every cut the same numbers up to rounding.
    """

    lanes: int
    """Parents side by side."""
    threads: int
    splits: int
    """Threads that share the children of a window and a parent."""
    together: int
    """Windows of a thread."""
    tile: int
    """Children whose poses and matrices are in shared memory at a time."""
    sweep_threads: int
    sweep_each: int
    """Children of a thread of the last sweep."""
    resident: int = 1
    """Blocks that a processor is to hold at a time, which bounds a thread's registers."""
    sweep_resident: int = 1
    """The same of the last sweep."""
    unroll: int = 1
    """Children of a thread whose instructions stand one after the other, but in the last sweep."""

    @property
    def block_windows(self) -> int:
        """Windows of a block."""
        return self.threads // (self.lanes * self.splits) * self.together

    @property
    def sweep_children(self) -> int:
        """Children of a block of the last sweep."""
        return self.sweep_threads // self.lanes * self.sweep_each


def _power_of_two(size: int) -> int:
    return 1 << max(0, size - 1).bit_length()


def stage_bytes(shape: Shape, cut: Cut) -> int:
    """Shared memory for two stages of a visit of children; as ``Stage`` in common.cuh."""
    vector, windows = 4 * shape.item, cut.block_windows
    stage = cut.tile * 4 * (cut.lanes + 2) * vector + windows * cut.tile * 5 * vector
    stage += (cut.tile if shape.coordinates else 1) * 4 * vector + 2 * windows * cut.tile * cut.lanes * shape.item
    sums = 33 * cut.threads * shape.item if cut.splits > 1 else 0
    return -(-max(2 * stage, sums) // 16) * 16


def shared_bytes(shape: Shape, cut: Cut) -> int:
    """Shared memory of a block, with what parents tell one another."""
    return stage_bytes(shape, cut) + 3 * cut.block_windows * shape.parents * shape.item


def sweep_bytes(shape: Shape, cut: Cut) -> int:
    """Shared memory of a block of the last sweep; as ``Window`` in sweep.cuh."""
    vector, children = 4 * shape.item, cut.sweep_children
    window = shape.factors * cut.lanes * vector + children * (4 + shape.iterations) * vector
    window += (children if shape.coordinates else 1) * 4 * vector
    window += 2 * max(1, shape.iterations - 1) * children * cut.lanes * shape.item
    return 2 * (-(-window // 16) * 16)


@lru_cache(maxsize=256)
def cut_for(shape: Shape, windows: int, limit: int = SHARED_LIMIT, wants_backward: bool = True) -> Cut:
    """The cut for so many windows, on a GPU whose blocks can have so many bytes of shared memory.

    The last sweep of a backward pass is what needs most; without one it may be more than there is.

    Raises:
        ValueError: a block's shared memory cannot hold what it must.
    """
    lanes = min(32, _power_of_two(shape.parents))
    sweep = {32: (256, 4, 1), 16: (128, 4, 2)}.get(lanes, (256, 1, 1))
    cut = Cut(lanes, 256, 1, 1, 8, *sweep[:2], 1 if shape.double else 2, 1 if shape.double else sweep[2])
    # windows of a block share the matrices that it fetches: the fewer splits the better, while all processors work
    while -(-windows // cut.block_windows) < _BLOCKS and cut.splits < min(cut.threads // lanes, shape.children):
        cut = replace(cut, splits=2 * cut.splits, tile=max(cut.tile, 2 * cut.splits))
    if -(-windows // cut.block_windows) < _BLOCKS:  # not enough for two blocks a processor: then more registers
        cut = replace(cut, resident=1)
    while shared_bytes(shape, cut) > limit and cut.tile > max(4, cut.splits):
        cut = replace(cut, tile=cut.tile // 2)
    while shared_bytes(shape, cut) > limit and cut.threads > max(32, lanes):  # fewer windows a block, or splits
        fewer = cut.threads // 2
        splits = min(cut.splits, fewer // lanes)
        cut = replace(cut, threads=fewer, splits=splits, tile=min(cut.tile, max(8, splits)))
    while shared_bytes(shape, cut) > limit and cut.tile > cut.splits:
        cut = replace(cut, tile=cut.tile // 2)
    while sweep_bytes(shape, cut) > limit and cut.sweep_each > 1:
        cut = replace(cut, sweep_each=cut.sweep_each // 2)
    while sweep_bytes(shape, cut) > limit and cut.sweep_threads > 32:
        cut = replace(cut, sweep_threads=cut.sweep_threads // 2)
    needed = max(shared_bytes(shape, cut), sweep_bytes(shape, cut) if wants_backward else 0)
    if needed > limit:
        raise ValueError(
            f"implementation='cuda' has {limit:,} bytes of shared memory a block on this GPU; got {shape.parents:,} "
            f"parents and {shape.iterations} iterations, which need {needed:,}: use fewer of them, or "
            "implementation='reference'"
        )
    return cut


def shape_of(inputs: RoutingInputs, options: OperatorOptions) -> Shape:
    """A routing's geometry, by the shapes of its tensors."""
    poses, weight = inputs.poses, inputs.weight
    height, width, types = poses.shape[1:4]
    kernel = (height, width) if inputs.is_class else (weight.shape[0], weight.shape[1])
    rows, columns = (
        (size - covered) // options.stride + 1 for size, covered in zip((height, width), kernel, strict=True)
    )
    children = kernel[0] * kernel[1] * types
    return Shape(
        height, width, types, weight.shape[-3], *kernel, options.stride, rows, columns, children,
        period=types if inputs.is_class else children,
        child_competition=options.child_competition and not inputs.is_class,
        coordinates=inputs.coordinates is not None,
        rule=options.activation_rule,
        iterations=len(inputs.inverse_temperature),
        double=poses.dtype == torch.float64,
    )  # fmt: skip


def constants(shape: Shape, cut: Cut) -> str:
    """C++ that gives the kernels their sizes."""
    values = asdict(shape) | asdict(cut)
    values |= {"stage_bytes": stage_bytes(shape, cut), "sweep_bytes": sweep_bytes(shape, cut)}
    is_double = values.pop("double")
    lines = [
        f"#define MATCAPS_CHILD_COMPETITION {int(shape.child_competition)}",
        f"typedef {'double' if is_double else 'float'} Real;",
    ]
    for name, value in values.items():
        constant = "k" + "".join(part.capitalize() for part in name.split("_"))
        kind = "bool" if isinstance(value, bool) else "int"
        lines.append(f"constexpr {kind} {constant} = {str(value).lower()};")
    return "\n".join(lines) + "\n"


_POINTERS = (
    "poses",
    "activations",
    "weight",
    "beta_use",
    "beta_activation",
    "inverse_temperature",
    "coordinates",
    "out_poses",
    "out_activations",
    "records",
    "logits",
    "partitions",
    "grad_out_poses",
    "grad_out_activations",
    "grad_record",
    "grad_data",
    "totals",
    "factors",
    "sums",
    "pose_copies",
    "active_copies",
    "weight_parts",
    "vote_parts",
    "grad_poses",
    "grad_activations",
)


class Arguments(ctypes.Structure):
    """What every kernel gets; as in common.cuh."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in _POINTERS),
        *((name, ctypes.c_longlong) for name in ("windows", "images", "kept", "part_windows")),
        ("variance_floor", ctypes.c_double),
        ("annealing", ctypes.c_double),
        ("iteration", ctypes.c_longlong),
    ]

    def point(self, **tensors: Tensor | None) -> None:
        """Set addresses."""
        for name, tensor in tensors.items():
            setattr(self, name, None if tensor is None else tensor.data_ptr())


Launch = Callable[[str, Arguments, tuple[int, int, int], int, int], None]
"""Starts a kernel by name: with its arguments, blocks, threads of a block and bytes of shared memory."""


@dataclass(frozen=True)
class Plan:
    """A routing of a batch."""

    shape: Shape
    cut: Cut
    images: int
    options: OperatorOptions

    @property
    def windows(self) -> int:
        """Windows of the batch."""
        return self.images * self.shape.rows * self.shape.columns

    @property
    def pairs(self) -> int:
        """Windows and parents."""
        return self.windows * self.shape.parents

    @property
    def all_children(self) -> int:
        """Children of the maps."""
        return self.images * self.shape.height * self.shape.width * self.shape.types

    @property
    def competitors(self) -> int:
        """Children that divide themselves: those of the maps, or those of each window on its own."""
        return self.all_children if self.shape.child_competition else self.windows * self.shape.children

    def parts(self) -> tuple[int, int]:
        """Into how many parts the last sweep cuts the windows, and how many windows a part has."""
        blocks = -(-self.shape.children // self.cut.sweep_children) * -(-self.shape.parents // self.cut.lanes)
        parts = min(self.windows, max(1, _SWEEP_BLOCKS // blocks))
        windows = -(-self.windows // parts)
        return -(-self.windows // windows), windows


_SWEEP_BLOCKS = 264
"""Blocks of the last sweep: two for each of the 132 processors of an H100."""


def plan_for(
    inputs: RoutingInputs, options: OperatorOptions, limit: int = SHARED_LIMIT, *, wants_backward: bool = True
) -> Plan:
    """The plan for tensors of these shapes, on a GPU whose blocks can have so many bytes of shared memory.

    Raises:
        ValueError: a block's shared memory, or what kernels count in 32 bits, does not suffice.
    """
    shape = shape_of(inputs, options)
    images = len(inputs.poses)
    plan = Plan(shape, cut_for(shape, images * shape.rows * shape.columns, limit, wants_backward), images, options)
    # what kernels reckon in 32 bits: children of an image, places in a window, blocks of a grid
    largest = max(
        shape.height * shape.width * shape.types * 16,
        shape.children * shape.parents * 16,
        shape.factors * shape.parents * 4,
        plan.images * shape.height * shape.width * shape.types,
    )
    if largest >= 2**31:
        raise ValueError(
            f"implementation='cuda' counts to {2**31 - 1:,}; got {plan.windows:,} windows of {shape.children:,} "
            f"children and {shape.parents:,} parents, which need {largest:,}: split the batch, or use "
            "implementation='reference'"
        )
    return plan


def forward(plan: Plan, tensors: dict[str, Tensor | None], launch: Launch) -> None:
    """Fill ``out_poses``, ``out_activations``, ``records``, ``logits`` and ``partitions``."""
    arguments = _arguments(plan, tensors)
    run = _runner(plan, arguments, launch)
    if not plan.shape.child_competition:
        run("route_windows", windows=True)
        return
    for t in range(plan.shape.iterations):
        run("iterate_later" if t else "iterate_first", t, windows=True)
        if t + 1 < plan.shape.iterations:
            run("compete", t)


def backward(plan: Plan, tensors: dict[str, Tensor | None], launch: Launch) -> list[Tensor]:
    """The gradients of poses, activations, weight, β_u, β_a and λ, and of ``coordinates`` where there are some."""
    shape, poses = plan.shape, tensors["poses"]
    assert poses is not None
    later, parts, part_windows = shape.iterations - 1, *plan.parts()
    blocks = -(-shape.parents // plan.cut.lanes)

    def empty(*size: int) -> Tensor:
        return poses.new_empty(size)

    made = {
        "grad_record": empty(GRAD_RECORD, plan.pairs),
        "grad_data": empty(later, plan.windows, shape.children, shape.parents),
        "totals": empty(later, plan.competitors),
        "factors": empty(plan.windows, shape.factors, shape.parents, 4),
        "sums": empty(shape.iterations, 3, plan.windows, shape.parents),
        "pose_copies": empty(blocks, plan.windows, shape.children, 16),
        "active_copies": empty(blocks, plan.windows, shape.children),
        "weight_parts": empty(parts, shape.children, shape.parents, 16),
        "vote_parts": empty(parts, shape.children, shape.parents, 16) if shape.coordinates else None,
        "grad_poses": empty(*poses.shape),
        "grad_activations": empty(*poses.shape[:4]),
    }
    arguments = _arguments(plan, tensors | made)
    arguments.part_windows = part_windows
    run = _runner(plan, arguments, launch)
    if not shape.child_competition:
        run("route_windows_back", windows=True)
    else:
        for t in reversed(range(shape.iterations)):
            run("iterate_back", t, windows=True)
            if t:
                run("compete_back", t - 1)
    grid = (-(-shape.children // plan.cut.sweep_children), blocks, parts)
    launch("sweep", arguments, grid, plan.cut.sweep_threads, sweep_bytes(shape, plan.cut))
    of_image = -(-4 * plan.all_children // plan.images // plan.cut.threads)
    launch("gather", arguments, (plan.images * of_image, 1, 1), plan.cut.threads, 0)
    sums = made["sums"].sum(dim=2)
    weight, coordinates = tensors["weight"], tensors["coordinates"]
    assert weight is not None
    grads = [
        made["grad_poses"],
        made["grad_activations"],
        _over_places(made["weight_parts"], shape).reshape(weight.shape),
        sums[:, 2].sum(dim=0),
        sums[:, 1].sum(dim=0),
        sums[:, 0].sum(dim=1),
    ]
    if coordinates is not None and made["vote_parts"] is not None:
        by_place = made["vote_parts"].sum(dim=(0, 2)).unflatten(0, (-1, shape.period)).sum(dim=1)
        grads.append(by_place.reshape(coordinates.shape))
    return grads


def _over_places(parts: Tensor, shape: Shape) -> Tensor:
    """``[parts, children, J, 16]`` to ``[children of a period, J, 16]``."""
    total = parts[0] if len(parts) == 1 else parts.sum(dim=0)
    return total if shape.period == shape.children else total.unflatten(0, (-1, shape.period)).sum(dim=0)


def _arguments(plan: Plan, tensors: dict[str, Tensor | None]) -> Arguments:
    options = {"variance_floor": plan.options.variance_floor, "annealing": plan.options.annealing}
    arguments = Arguments(windows=plan.windows, images=plan.images, **options)
    arguments.point(**tensors)
    logits = tensors["logits"]
    assert logits is not None
    arguments.kept = max(1, len(logits))
    return arguments


def _runner(plan: Plan, arguments: Arguments, launch: Launch) -> Callable[..., None]:
    cut = plan.cut
    shared = shared_bytes(plan.shape, cut)
    slots = cut.threads // cut.lanes * (4 if plan.shape.parents % 4 == 0 else 1)  # kBidSlots
    blocks_of_image = -(-plan.all_children // plan.images // slots)

    def run(name: str, t: int = 0, windows: bool = False) -> None:
        arguments.iteration = t
        if windows:
            launch(name, arguments, (-(-plan.windows // cut.block_windows), 1, 1), cut.threads, shared)
        else:
            launch(name, arguments, (plan.images * blocks_of_image, 1, 1), cut.threads, 0)

    return run
