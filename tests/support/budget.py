"""How far an implementation in float32 may be from the truth: one budget for the tests and the benchmarks' checks.

The truth is the reference in float64. What rounding to float32 must cost is not read off a run in float32: that is one
throw of the dice, a different one on every processor. It is estimated by Monte Carlo arithmetic (Stott Parker, 1997):
the reference runs in float64, and every result of an elementary operation, forward and backward, is multiplied by
1 + u·e·d, where u = 2^-24 is float32's unit of rounding, d is drawn evenly from [-1, 1], and e is the square root of
the number of roundings on the way from a term to the result: 1, or for a sum of n terms log2 n, as pairwise
summation has. Several draws give the size of the error that the equations themselves make of rounding, on these
inputs, on any processor: cancellation and hard assignments magnify it, and the draws with it.

An implementation's error is compared with that size case by case, so that one case in which rounding is magnified a
thousandfold does not hide the others; over the cases the geometric mean of the ratios is held, and the largest ratio.
Both of the compiled core and of the reference in float32 lie at about a half.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

UNIT = 2.0**-24
"""Float32's unit of rounding: half the distance from 1 to the next number."""

LOG_MEAN, LOG_DEVIATION = -0.57, 1.14
"""Mean and standard deviation of the logarithm of a ratio where an implementation rounds as the draws do, for a result
that is a single number, the worst there is: (ψ(1/2) − ln 1/2 − ψ(4) + ln 4) / 2 and √(ψ'(1/2) + ψ'(4)) / 2, of one
normal deviate over the root mean square of eight. Larger results scatter less, if their elements err apart."""

DEVIATIONS = 4.5
"""How many deviations the mean of the logarithms may lie above: three in a million, where a run of the tests has some
hundred results."""

WORST = 32.0
"""The largest single ratio. One normal deviate over the root mean square of eight exceeds this once in 10^9; hard
assignments have heavier tails (5.8 was seen). A fault that only a rare branch makes is larger than that."""

FEW, DRAWS = 2, 8
"""Draws of rounding: few first; what they do not clear is judged by many."""

DOUBLE = 1e-9
"""Allowed in float64, relative to the largest element: four million units of rounding, for the magnification of hard
assignments, which was a thousandfold in float32. An error that is not rounding is larger."""

RESULTS = ("poses", "activations")
INPUTS = ("poses", "activations", "weight", "beta_use", "beta_activation", "inverse_temperature", "coordinates")

Case = tuple[list[Tensor], dict[str, Any]]
"""The tensors of a routing, in the order of :data:`INPUTS`, and its options."""

# What moves or compares numbers, and rounds nothing.
_EXACT = frozenset(
    [
        "_to_copy",
        "_unsafe_view",
        "alias",
        "as_strided",
        "cat",
        "clone",
        "copy_",
        "detach",
        "diagonal",
        "expand",
        "fill_",
        "flip",
        "full",
        "full_like",
        "gather",
        "index",
        "index_select",
        "linspace",
        "maximum",
        "neg",
        "new_empty",
        "new_empty_strided",
        "new_full",
        "new_ones",
        "new_zeros",
        "ones",
        "ones_like",
        "permute",
        "rand",
        "randn",
        "repeat",
        "scalar_tensor",
        "select",
        "select_backward",
        "slice",
        "slice_backward",
        "split",
        "squeeze",
        "stack",
        "t",
        "transpose",
        "unbind",
        "unsqueeze",
        "view",
        "where",
        "zero_",
        "zeros",
        "zeros_like",
    ]
)

# What adds n terms up: n from its inputs and its result.
_SUMS = frozenset(["sum", "mean", "logsumexp", "cumsum", "embedding_dense_backward"])
_PRODUCTS = frozenset(["mm", "bmm", "addmm", "baddbmm", "mv", "dot"])


class RandomRounding(TorchDispatchMode):
    """Within it, every operation in float64 rounds its result by chance as float32 would.

    Args:
        seed: of the rounding.
        unit: the unit of rounding.
    """

    def __init__(self, seed: int, unit: float = UNIT):
        super().__init__()
        self._random = torch.Generator().manual_seed(seed)
        self._unit = unit

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Call the operation, then round."""
        results = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name not in _EXACT:
            terms = _number_of_terms(name, args, results)
            for result in results if isinstance(results, tuple | list) else (results,):
                if isinstance(result, Tensor) and result.dtype == torch.float64:
                    self._round(result, math.sqrt(max(1.0, math.log2(terms))))
        return results

    def _round(self, result: Tensor, scale: float) -> None:
        noise = torch.rand(result.shape, generator=self._random, dtype=torch.float64).mul_(2).sub_(1)
        result.mul_(noise.mul_(self._unit * scale).add_(1))


def _number_of_terms(name: str, args: tuple[Any, ...], result: Any) -> int:
    if name in _SUMS:
        return max(1, args[0].numel() // max(1, result.numel()))
    if name in _PRODUCTS:
        return args[-1].shape[-2] if args[-1].ndim > 1 else args[-1].shape[-1]
    return 1


def run(
    function: Callable[..., Any],
    inputs: Sequence[Tensor],
    dtype: torch.dtype,
    implementation: str,
    device: str = "cpu",
    **options: Any,
) -> dict[str, Tensor]:
    """Results and gradients of one random projection of the results, by name, in float64 on the CPU.

    Args:
        function: ``conv_em_routing``, ``class_em_routing``, or what is called as they are.
        inputs: as in :data:`INPUTS`.
        dtype: to compute in.
        implementation: as in the operator.
        device: to compute on.
        options: of the operator.
    """
    inputs = [tensor.to(device, dtype).detach().clone().requires_grad_() for tensor in inputs]
    arguments, temperature, *coordinates = inputs[:5], inputs[5], *inputs[6:]
    options = dict(options, inverse_temperature=temperature, implementation=implementation)
    if coordinates:
        options["coordinates"] = coordinates[0]
    results = function(*arguments, **options)
    random = torch.Generator().manual_seed(99)
    along = [torch.randn(r.shape, generator=random, dtype=torch.float64).to(device, dtype) for r in results]
    total = sum((result * direction).sum() for result, direction in zip(results, along, strict=True))
    grads = torch.autograd.grad(total, inputs)
    named = dict(zip(RESULTS, results, strict=True))
    named.update({f"grad {name}": grad for name, grad in zip(INPUTS, grads, strict=False)})
    return {name: tensor.detach().cpu().double() for name, tensor in named.items()}


def rounded_inputs(inputs: Iterable[Tensor]) -> list[Tensor]:
    """Inputs that float32 holds exactly, in float64: what rounding them costs is no implementation's error."""
    return [tensor.float().double() for tensor in inputs]


def truth_of(function: Callable[..., Any], inputs: Sequence[Tensor], **options: Any) -> dict[str, Tensor]:
    """What :func:`run` gives of the reference in float64."""
    return run(function, inputs, torch.float64, "reference", **options)


class Rounding:
    """The error that rounding to float32 makes of a computation, by the name of its results.

    Args:
        compute: gives the results by name, computed in float64 by plain operations of torch.
        truth: what it gives; None: compute it.
    """

    def __init__(self, compute: Callable[[], dict[str, Tensor]], truth: dict[str, Tensor] | None = None):
        self._compute = compute
        self.truth = compute() if truth is None else truth
        self.num_draws = 0
        self._squares = dict.fromkeys(self.truth, 0.0)

    def draw(self, count: int) -> None:
        """Have at least so many draws."""
        while self.num_draws < count:
            with RandomRounding(self.num_draws):
                drawn = self._compute()
            for name, error in self._relative(drawn).items():
                self._squares[name] += error**2
            self.num_draws += 1

    def ratios(self, results: dict[str, Tensor]) -> dict[str, float]:
        """By name, the root mean square error of results over that of rounding, to which a unit is granted."""
        allowed = self.allowed()
        return {name: error / allowed[name] for name, error in self._relative(results).items()}

    def allowed(self) -> dict[str, float]:
        """By name, the root mean square error of rounding, in largest elements of the truth."""
        return {name: math.hypot(math.sqrt(total / self.num_draws), UNIT) for name, total in self._squares.items()}

    def _relative(self, results: dict[str, Tensor]) -> dict[str, float]:
        """Root mean square errors, in largest elements of the truth."""
        errors = {}
        for name, truth in self.truth.items():
            if truth.numel() == 0:
                continue
            scale = truth.abs().max().item() + 1e-30
            errors[name] = ((results[name].detach().cpu().double() - truth) / scale).square().mean().sqrt().item()
        return errors


Compute = Callable[[Sequence[Tensor], dict[str, Any]], dict[str, Tensor]]
"""Gives what :func:`run` does, from inputs and options."""


def roundings_of(function: Callable[..., Any], cases: Sequence[Case]) -> list[Rounding]:
    """The truth and its rounding for each case, by which several computations can be judged."""
    exact = [(rounded_inputs(inputs), options) for inputs, options in cases]
    return [
        Rounding(lambda inputs=inputs, options=options: truth_of(function, inputs, **options))
        for inputs, options in exact
    ]


def judge(
    function: Callable[..., Any],
    cases: Sequence[Case],
    compute: Compute,
    compute_double: Compute | None = None,
    draws: Sequence[int] = (FEW, DRAWS),
    roundings: Sequence[Rounding] | None = None,
) -> list[str]:
    """Say where an implementation is out of its budget; an empty list if nowhere.

    Args:
        function: ``conv_em_routing`` or ``class_em_routing``.
        cases: inputs and options; sixteen or more, to see a fault in a result that is a single number.
        compute: the implementation in float32.
        compute_double: the implementation in float64, where it has one.
        draws: of rounding; the next number where one does not clear the results.
        roundings: of these cases, by :func:`roundings_of`; None: make them.
    """
    complaints: list[str] = []
    judged: list[tuple[Rounding, dict[str, Tensor]]] = []
    for (inputs, options), rounding in zip(cases, roundings or roundings_of(function, cases), strict=True):
        inputs = rounded_inputs(inputs)
        judged.append((rounding, compute(inputs, options)))
        if compute_double is not None:
            complaints += _complaints_of_double(compute_double(inputs, options), rounding.truth)
    in_float: list[str] = []
    for count in draws:
        ratios: dict[str, list[float]] = {}
        for rounding, results in judged:
            rounding.draw(count)
            for name, ratio in rounding.ratios(results).items():
                ratios.setdefault(name, []).append(ratio)
        in_float = [line for name, values in ratios.items() if (line := _complaint(name, values))]
        if not in_float:
            break
    return complaints + in_float


def _complaints_of_double(results: dict[str, Tensor], truths: dict[str, Tensor]) -> list[str]:
    complaints = []
    for name, truth in truths.items():
        if truth.numel() == 0:
            continue
        scale, error = truth.abs().max().item(), (results[name] - truth).abs().max().item()
        if not error <= DOUBLE * scale + 1e-13:
            complaints.append(f"{name} in float64 is off by {error:.1e} where its largest element is {scale:.1e}")
    return complaints


def largest_typical(num_cases: int) -> float:
    """The largest geometric mean of the ratios of so many cases: 2.0 of sixteen, 4.6 of six."""
    return math.exp(LOG_MEAN + DEVIATIONS * LOG_DEVIATION / math.sqrt(num_cases))


def _complaint(name: str, ratios: list[float]) -> str:
    typical = math.exp(sum(math.log(max(ratio, 1e-3)) for ratio in ratios) / len(ratios))
    limit = largest_typical(len(ratios))
    if typical <= limit and max(ratios) <= WORST:  # NaN is neither
        return ""
    return (
        f"{name}: errors are {typical:.2f} times those of rounding to float32 (at most {limit:.2f}), "
        f"at worst {max(ratios):.2f} times (at most {WORST:g})"
    )


def assert_within_budget(
    function: Callable[..., Any],
    cases: Sequence[Case],
    implementation: str = "native",
    device: str = "cpu",
    in_double: bool = True,
) -> None:
    """Hold an implementation's results and gradients, in float32 and if wanted in float64, to the budget."""

    def compute(dtype: torch.dtype) -> Compute:
        return lambda inputs, options: run(function, inputs, dtype, implementation, device, **options)

    double = compute(torch.float64) if in_double and implementation in ("native", "cuda") else None
    complaints = judge(function, cases, compute(torch.float32), double)
    assert not complaints, "; ".join(complaints)
