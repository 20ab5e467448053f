"""Which implementation routes: ``"auto"`` is resolved here, and an explicit choice that cannot run is refused here."""

import warnings
from functools import lru_cache

import torch

from matcaps.capsules import POSE_COMPONENTS
from matcaps.routing import cuda, native
from matcaps.routing.operators import lacks
from matcaps.routing.spec import RoutingInputs, RoutingSpec
from matcaps.routing.transforms import SECOND_ORDER, lacking

IMPLEMENTATIONS = ("reference", "native", "cuda")
"""The implementations that this version of matcaps has, whether or not this machine can run them."""


def available_implementations() -> tuple[str, ...]:
    """Name the implementations that can run here, the reference first.

    ``"cuda"`` needs an NVIDIA GPU that torch can use, and NVIDIA's compiler: ``pip install 'matcaps[cuda]'``.

    Example:
        >>> "reference" in available_implementations()
        True
    """
    here = ["reference"]
    if native.MISSING is None:
        here.append("native")
    if cuda.EMULATOR is not None or (torch.cuda.is_available() and cuda.why_not(torch.device("cuda")) is None):
        here.append("cuda")
    return tuple(here)


def resolve_implementation(device: torch.device | str, dtype: torch.dtype, *, vector_poses: bool = False) -> str:
    """Name the implementation that ``implementation="auto"`` takes for tensors of this device and dtype.

    The result depends on the arguments and on what is installed alone. It holds for ``conv_em_routing`` and
    ``class_em_routing``; ``em_routing``, whose votes are already in memory, has only the reference.

    Args:
        device: where the tensors are, such as ``"cpu"`` or ``"cuda"``.
        dtype: their floating-point dtype.
        vector_poses: whether the weights are 16×16 matrices, which transform poses as vectors; the reference alone
            has those.

    Returns:
        For matrix poses, ``"native"`` on the CPU where the compiled core is installed, and ``"cuda"`` on CUDA where the
        kernels can be compiled; otherwise ``"reference"``, with one warning on CUDA, where that is slow.

    Raises:
        TypeError: ``dtype`` is not floating point.

    Example:
        >>> resolve_implementation("cuda", torch.float32, vector_poses=True)
        'reference'
        >>> resolve_implementation("cpu", torch.float32, vector_poses=True)
        'reference'
    """
    device = torch.device(device)
    if not dtype.is_floating_point:
        raise TypeError(f"dtype must be floating point; got {dtype}")
    computing_dtype = torch.promote_types(dtype, torch.float32)
    if native.MISSING is None and not vector_poses and native.supports(device, computing_dtype):
        return "native"
    if not vector_poses and device.type == "cuda":
        reason = cuda.why_not(device)
        if reason is None:
            return "cuda"
        _warn_of_slow_routing(reason)
    return "reference"


@lru_cache(maxsize=8)  # once
def _warn_of_slow_routing(reason: str) -> None:
    warnings.warn(
        f"matcaps: routing on the GPU uses the reference, which is slow and needs much memory: {reason}",
        stacklevel=4,
    )


def choose_implementation(inputs: RoutingInputs, spec: RoutingSpec) -> str:
    """Resolve ``"auto"``, and refuse an implementation that cannot run, with the reason; its name is already checked.

    Args:
        inputs: of the call, in the computing dtype.
        spec: of the call; its ``implementation`` is what the caller asks for.
    """
    implementation, weight = spec.implementation, inputs.weight
    device, dtype = inputs.poses.device, inputs.poses.dtype
    vector_poses = weight.shape[-1] == POSE_COMPONENTS
    lacks_rule = lacking(inputs.tensors())
    if implementation == "auto":
        return "reference" if lacks_rule else resolve_implementation(device, dtype, vector_poses=vector_poses)
    # a second-order gradient may be possible but never asked for; if it is asked for, the operator refuses
    if implementation != "reference" and lacks_rule and lacks_rule != SECOND_ORDER:
        raise NotImplementedError(lacks(implementation, lacks_rule) + ", or 'auto', which chooses it here")
    if implementation != "reference" and vector_poses:
        raise ValueError(
            f"implementation={implementation!r} transforms poses by 4×4 matrices; got weight "
            f"{list(weight.shape)}, 16×16 matrices for vector poses, which only the reference has: "
            "use implementation='auto' or 'reference'"
        )
    require_implementation(implementation, device, dtype)
    return implementation


def require_implementation(implementation: str, device: torch.device, dtype: torch.dtype) -> None:
    """Refuse an implementation that cannot compute tensors of this device and dtype on this machine.

    Raises:
        ValueError: the device or the dtype is not one of the implementation's.
        RuntimeError: it is not installed, or cannot be loaded; the message gives the reason.
    """
    if implementation == "native":
        if native.MISSING is not None:
            raise RuntimeError(f"implementation='native' is not available: {native.MISSING}")
        if not native.supports(device, dtype):
            raise ValueError(
                f"implementation='native' computes in float32 or float64 on the CPU; got {dtype} on {device}: "
                "move the tensors, or use implementation='auto'"
            )
    if implementation == "cuda":
        if not cuda.supports(device, dtype):  # first, as no package would help
            raise ValueError(
                f"implementation='cuda' computes in float32 or float64 on CUDA devices; got {dtype} on {device}: "
                "move the tensors, or use implementation='auto'"
            )
        reason = cuda.why_not(device) if device.type == "cuda" else None
        if reason is not None:
            raise RuntimeError(f"implementation='cuda' is not available: {reason}")


def check_implementation(implementation: str) -> None:
    """Refuse a name that is not one of ``IMPLEMENTATIONS``."""
    if implementation != "auto" and implementation not in IMPLEMENTATIONS:
        raise ValueError(
            f"implementation must be 'auto' or one of {IMPLEMENTATIONS}; got {implementation!r}: "
            "this version of matcaps has no other"
        )
