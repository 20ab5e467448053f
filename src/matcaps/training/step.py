"""A network with its loss as one function of tensors, and the same recorded as a CUDA graph."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from matcaps.capsules import Capsules
from matcaps.losses import reconstruction_loss


class StepResult(NamedTuple):
    """The results of a training step.

    Attributes:
        loss: a scalar with a gradient.
        scores: ``[B, classes]``, without a gradient.
        reconstruction: the decoder's part of the loss, before its weight, without a gradient; 0 without a decoder.
    """

    loss: Tensor
    scores: Tensor
    reconstruction: Tensor


class StepLoss(nn.Module):
    """Computes :class:`StepResult` from images, labels and margin.

    Args:
        network: maps images to capsules or logits.
        decoder: reconstructs images from the class poses; None: nothing is reconstructed.
        classify: maps the network's output to class scores.
        compare: the loss of output, scores, labels and margin.
        reconstruction_weight: of the decoder's loss.
        reduction: of the decoder's loss.

    Attributes:
        share: a factor of the loss, which may change from step to step.
    """

    def __init__(
        self,
        network: nn.Module,
        decoder: nn.Module | None,
        classify: Callable[[Any], Tensor],
        compare: Callable[[Any, Tensor, Tensor, Any], Tensor],
        *,
        reconstruction_weight: float,
        reduction: str,
    ):
        super().__init__()
        self.network = network
        self.decoder = decoder
        self._classify = classify
        self._compare = compare
        self.share: float = 1
        self._weight = reconstruction_weight
        self._reduction = reduction

    def forward(self, images: Tensor, labels: Tensor, margin: float | Tensor) -> StepResult:
        output = self.network(images)
        scores = self._classify(output)
        loss = self.share * self._compare(output, scores, labels, margin)
        reconstruction = loss.detach().new_zeros(())
        if self.decoder is not None and isinstance(output, Capsules):
            part = self.share * reconstruction_loss(self.decoder(output.poses, labels), images, self._reduction)
            loss = loss + self._weight * part
            reconstruction = part.detach()
        return StepResult(loss, scores.detach(), reconstruction)


class GraphedStep:
    """A :class:`StepLoss` that a GPU replays, forward and backward, as two CUDA graphs.

    Recording runs the step a few times; afterwards buffers, such as running statistics, and the GPU's random state are
    restored, so that a run is the same with it. Batches of another size than the first run without the graph.

    Args:
        step: in training mode, on a CUDA device.
        images: ``[B, C, H, W]``, a batch of the size to record.
        labels: ``[B]``, int64.
    """

    def __init__(self, step: StepLoss, images: Tensor, labels: Tensor):
        self._plain = step
        self._shapes = images.shape, labels.shape
        device = images.device
        buffers = [(buffer, buffer.clone()) for buffer in step.buffers()]
        random_state = torch.cuda.get_rng_state(device)
        precision = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else None
        sample = images.clone(), labels.clone(), torch.full((), 0.5, device=device)
        # torch records on its own stream, and would warn of it at the first backward pass
        torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(False)
        with torch.autocast("cuda", enabled=False):  # the recorded function has its own, without a cache
            recorded: Any = torch.cuda.make_graphed_callables(_Flat(step, precision), sample, allow_unused_input=True)
        self._recorded = recorded
        self._margin = sample[2]
        for buffer, before in buffers:
            buffer.copy_(before)
        torch.cuda.set_rng_state(random_state, device)

    def __call__(self, images: Tensor, labels: Tensor, margin: float) -> StepResult:
        """Compute what the step computes."""
        if (images.shape, labels.shape) != self._shapes:
            return self._plain(images, labels, margin)
        with torch.autocast("cuda", enabled=False):
            results = self._recorded(images, labels, torch.full_like(self._margin, margin))
        return StepResult(results[0], results[1].detach().clone(), results[2].detach().clone())


class _Flat(nn.Module):
    """The step with plain tensors as inputs and outputs, in its own precision, for recording."""

    def __init__(self, step: StepLoss, precision: torch.dtype | None):
        super().__init__()
        self.step = step
        self._precision = precision

    def forward(self, images: Tensor, labels: Tensor, margin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with torch.autocast("cuda", dtype=self._precision, enabled=self._precision is not None, cache_enabled=False):
            return tuple(self.step(images, labels, margin))  # pyright: ignore[reportReturnType]
