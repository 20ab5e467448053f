"""The exponential mean of the weights over the steps, which is what is validated, tested and saved."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn

from matcaps.models.modes import device_of
from matcaps.models.statistics import update_statistics
from matcaps.training.module import Training

MANY_BATCHES, FEW_BATCHES = 64, 20
"""By which averaged weights find their statistics: where they are looked at, and what would take time every epoch."""


class AveragedWeights:
    """Average the weights of a training.

    Frozen weights are their own average. Where the network has running statistics, the average finds its own before
    it is looked at or saved.

    Args:
        training: whose weights; on its device already.
        decay: share of the average that each optimiser step keeps.
        batches: gives so many batches of images to find statistics by, the same each time; None: the network has none.
    """

    def __init__(
        self, training: Training, decay: float, batches: Callable[[int], Iterable[Tensor]] | None = None
    ) -> None:
        device = device_of(training.network)
        self._average = AveragedModel(training, device=device, use_buffers=False, avg_fn=get_ema_avg_fn(decay))
        self._training = training
        self._decay = decay
        self._batches = batches
        self._found = (-1, 0)  # at which optimiser step, by how many batches

    @property
    def _pairs(self) -> list[tuple[Tensor, Tensor]]:
        """Each parameter's average and itself."""
        return [*zip(self._average.module.parameters(), self._training.parameters(), strict=True)]

    @torch.no_grad()
    def update(self) -> None:
        """Count in the weights after an optimiser step."""
        if device_of(self._training.network).type == "cuda":
            self.update_without_waiting()
            return
        self._average.update_parameters(self._training)
        for average, current in self._pairs:
            if not current.requires_grad:  # the mean of a frozen number with itself is not always that number
                average.copy_(current)

    @torch.no_grad()
    def update_without_waiting(self) -> None:
        """The same mean in a few launches; torch's own asks the GPU every step whether it is the first."""
        is_first = self._training.global_step == 1
        moving = [] if is_first else [(own, current) for own, current in self._pairs if current.requires_grad]
        copied = [(own, current) for own, current in self._pairs if is_first or not current.requires_grad]
        copied += zip(self._average.module.buffers(), self._training.buffers(), strict=True)
        if moving:
            owned, currents = zip(*moving, strict=True)
            torch._foreach_lerp_(owned, currents, 1 - self._decay)  # pyright: ignore[reportPrivateImportUsage]
        for own, current in copied:
            own.copy_(current, non_blocking=True)
        self._average.n_averaged += 1

    @contextmanager
    def applied(self, batches: int = MANY_BATCHES) -> Iterator[None]:
        """Put the average into the network for a while."""
        self._find_statistics(batches)
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def finish(self) -> None:
        """Leave the average in the network."""
        self._find_statistics(MANY_BATCHES)
        for average, current in self._tensors():
            current.data.copy_(average.data)

    def save(self, checkpoint: dict[str, Any]) -> None:
        """Give a checkpoint the average as its weights, and the weights as they are beside them."""
        self._find_statistics(FEW_BATCHES)
        state = self._average.state_dict()
        own = {name.removeprefix("module."): value for name, value in state.items() if name.startswith("module.")}
        checkpoint["current_model_state"] = checkpoint["state_dict"]
        checkpoint["state_dict"] = own
        checkpoint["averaging_state"] = {name: value for name, value in state.items() if not name.startswith("module.")}

    def load(self, checkpoint: dict[str, Any]) -> None:
        """Take both from a checkpoint."""
        own = {f"module.{name}": value for name, value in checkpoint["state_dict"].items()}
        self._average.load_state_dict(own | checkpoint["averaging_state"])
        self._training.load_state_dict(checkpoint["current_model_state"])

    def _tensors(self) -> Iterator[tuple[Tensor, Tensor]]:
        average: nn.Module = self._average.module
        yield from zip(
            itertools.chain(average.parameters(), average.buffers()),
            itertools.chain(self._training.parameters(), self._training.buffers()),
            strict=True,
        )

    def _swap(self) -> None:
        for average, current in self._tensors():
            before = average.data.clone()
            average.data.copy_(current.data)
            current.data.copy_(before)

    def _find_statistics(self, count: int) -> None:
        """Give the average its statistics, from those of the weights as they are now and from the same batches.

        They depend on nothing else, so that a resumed run finds the same.
        """
        done = (self._training.global_step, count)
        if self._batches is None or self._found >= done:
            return
        self._found = done
        for own, current in zip(self._average.module.buffers(), self._training.buffers(), strict=True):
            own.data.copy_(current.data)
        device = device_of(self._training.network)
        network = self._average.module.get_submodule("network")
        update_statistics(network, (images.to(device) for images in self._batches(count)))
