"""A forward and a backward operator under ``torch.func``: their rules for vmap and for gradients.

Torch's registered operators have a gradient for ordinary autograd only; a transform of ``torch.func`` needs an
``autograd.Function`` (torch/_library/autograd.py makes one without ``setup_context``). So each operator has one here.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from matcaps.routing.transforms import FORWARD_MODE, SECOND_ORDER, is_transformed

Mapped = tuple[tuple[Tensor, ...], tuple[int, ...]]
"""Results of a call over a mapped dimension, and where each has that dimension."""


def make_functional(
    forward: Any,
    backward: Any,
    setup_context: Callable,
    differentiate: Callable,
    refuse: Callable[[str], NotImplementedError],
    batch_dimensions: Sequence[int],
) -> Callable[..., Sequence[Tensor]]:
    """Give the operators rules for vmap; return a function that calls the forward one under any transform.

    Args:
        forward: the operator; its first two arguments are poses and activations, images first.
        backward: the operator of its gradients.
        setup_context: of ``forward``, as ``torch.library.register_autograd`` takes it.
        differentiate: its backward function; it is given the backward operator as its second argument.
        refuse: makes the error for a kind of derivative that is not supported.
        batch_dimensions: for each result of ``forward``, the dimension that holds the images, or the images' parts,
            image after image.
    """

    class Backward(torch.autograd.Function):
        @staticmethod
        def forward(*args: Any) -> tuple[Tensor, ...]:
            return tuple(backward(*args))

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            pass

        @staticmethod
        def backward(ctx: Any, *grads: Any) -> Any:
            raise refuse(SECOND_ORDER)

        @staticmethod
        def jvp(ctx: Any, *tangents: Any) -> Any:
            raise refuse(FORWARD_MODE)

        @staticmethod
        def vmap(info: Any, in_dims: Sequence[int | None], *args: Any) -> Mapped:
            return one_by_one(call_backward, info.batch_size, in_dims, args)

    class Forward(torch.autograd.Function):
        @staticmethod
        def forward(*args: Any) -> tuple[Tensor, ...]:
            return tuple(forward(*args))

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            setup_context(ctx, inputs, output)

        @staticmethod
        def backward(ctx: Any, *grads: Any) -> Any:
            return differentiate(ctx, call_backward, *grads)

        @staticmethod
        def jvp(ctx: Any, *tangents: Any) -> Any:
            raise refuse(FORWARD_MODE)

        @staticmethod
        def vmap(info: Any, in_dims: Sequence[int | None], *args: Any) -> Mapped:
            return over_images(call_forward, info.batch_size, in_dims, args, batch_dimensions)

    def call_forward(*args: Any) -> Sequence[Tensor]:
        return Forward.apply(*args) if is_transformed() else forward(*args)  # type: ignore[return-value]

    def call_backward(*args: Any) -> Sequence[Tensor]:
        return Backward.apply(*args) if is_transformed() else backward(*args)  # type: ignore[return-value]

    # for direct calls of an operator, which the backward pass makes where gradients are batched
    forward.register_vmap(
        lambda info, in_dims, *args: over_images(call_forward, info.batch_size, in_dims, args, batch_dimensions)
    )
    backward.register_vmap(lambda info, in_dims, *args: one_by_one(call_backward, info.batch_size, in_dims, args))
    return call_forward


def over_images(
    call: Callable[..., Sequence[Tensor]],
    size: int,
    in_dims: Sequence[int | None],
    args: Sequence[Any],
    batch_dimensions: Sequence[int],
) -> Mapped:
    """Call with the mapped dimension as more images, where only poses and activations have it; else one by one."""
    if any(dim is not None for dim in in_dims[2:]):
        return one_by_one(call, size, in_dims, args)
    folded = [
        (x.expand(size, *x.shape) if dim is None else x.movedim(dim, 0)).flatten(0, 1)
        for x, dim in zip(args[:2], in_dims[:2], strict=True)
    ]
    results = call(*folded, *args[2:])
    parts = zip(results, batch_dimensions, strict=True)
    return tuple(x.unflatten(dim, (size, x.shape[dim] // max(size, 1))) for x, dim in parts), tuple(batch_dimensions)


def one_by_one(
    call: Callable[..., Sequence[Tensor]], size: int, in_dims: Sequence[int | None], args: Sequence[Any]
) -> Mapped:
    """Call once for each place along the mapped dimension, and stack the results.

    Tensors are made contiguous: a state may have its images in the middle.
    """
    if size == 0:
        raise ValueError("matcaps: a mapped dimension (vmap) of the weights or gradients must not be empty; got size 0")
    results = [
        call(*(x if dim is None else x.select(dim, place).contiguous() for x, dim in zip(args, in_dims, strict=True)))
        for place in range(size)
    ]
    stacked = tuple(torch.stack(list(parts)) for parts in zip(*results, strict=True))
    return stacked, (0,) * len(stacked)
