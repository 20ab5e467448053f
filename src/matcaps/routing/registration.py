"""What every implementation that is an operator of torch needs to have gradients; it knows no kernel."""

from typing import Any

import torch

NUM_OPTIONS = 6
"""Arguments of a forward operator after its tensors; the last says whether the state for a backward pass is kept."""


def register_gradients(forward: Any, backward: Any, name: str) -> None:
    """Tie a forward operator to its backward operator, which has no derivative.

    ``forward(*tensors, *options, keep_state)`` returns poses, activations and the parts of a state;
    ``backward(grad_poses, grad_activations, *state, *tensors, *options)`` the gradients of the tensors that are there:
    the last tensor may be None. ``name`` is the implementation's, for messages.
    """

    def setup_context(ctx, inputs, output) -> None:
        tensors, (*ctx.options, ctx.keep_state) = inputs[:-NUM_OPTIONS], inputs[-NUM_OPTIONS:]
        ctx.set_materialize_grads(False)
        ctx.num_tensors = len(tensors)
        ctx.save_for_backward(*tensors, *output)

    def differentiate(ctx, grad_poses, grad_activations, *_):
        if not ctx.keep_state:
            raise RuntimeError("this routing ran without gradients and kept no state: call it with gradients on")
        saved = ctx.saved_tensors  # once: activation checkpointing unpacks each tensor only once
        tensors, results = saved[: ctx.num_tensors], saved[ctx.num_tensors :]
        out_poses, out_activations, *state = results
        if grad_poses is None:
            grad_poses = torch.zeros_like(out_poses)
        if grad_activations is None:
            grad_activations = torch.zeros_like(out_activations)
        grads = backward(grad_poses, grad_activations, *state, *tensors, *ctx.options)
        if tensors[-1] is None:
            grads = [*grads, None]
        return *grads, *[None] * NUM_OPTIONS

    def refuse_second_order(ctx, *grads):
        raise NotImplementedError(
            f"implementation={name!r} has no second-order gradients: use implementation='reference' for them"
        )

    forward.register_autograd(differentiate, setup_context=setup_context)
    backward.register_autograd(refuse_second_order)
