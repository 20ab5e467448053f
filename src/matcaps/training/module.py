"""A network with its loss, its optimiser and checks that all numbers stay finite."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from matcaps.capsules import Capsules
from matcaps.data.loader import Batch
from matcaps.losses import (
    authors_margin,
    cross_entropy_loss,
    margin_loss,
    spread_loss,
    tutorial_margin,
)
from matcaps.models import BaselineCNN, EMCapsNet, PoseDecoder
from matcaps.models.modes import device_of, evaluation_mode
from matcaps.training.groups import parameter_groups
from matcaps.training.late_check import Broken, LateCheck
from matcaps.training.settings import LossSettings, TrainSettings
from matcaps.training.step import GraphedStep, StepLoss, StepResult


class TrainingDivergedError(RuntimeError):
    """A loss, an activation or a gradient is no longer finite; the message names the layer and the step."""


class _Mean(MeanMetric):
    """The mean of finite numbers, like torchmetrics' own, but without its check for NaN, which would wait for the
    GPU.
    """

    def update(self, value: Tensor, weight: float) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        self.mean_value += value.to(self.dtype) * weight
        self.weight += weight


class Training(nn.Module):
    """A network, its loss and its optimiser.

    On a GPU no step waits for the one before: whether loss and gradient are finite is checked some steps late
    (:class:`matcaps.training.late_check.LateCheck`), and the weights are protected meanwhile. On a CPU it is checked at

    Args:
        settings: the run's settings.
        network: an :class:`EMCapsNet` or :class:`BaselineCNN`.
        steps_per_epoch: optimiser steps in an epoch.
        decoder: trained with the network if ``settings.loss.reconstruction_weight`` is above 0.

    Attributes:
        global_step: optimiser steps so far.
        world_size: processes that train together.
        full_batch: number of images of every batch but an epoch's last.
        step_images: of several processes, images of all of them together in this step.
    """

    def __init__(
        self,
        settings: TrainSettings,
        network: EMCapsNet | BaselineCNN,
        steps_per_epoch: int,
        decoder: PoseDecoder | None = None,
    ):
        super().__init__()
        self.settings = settings
        self.network = network
        self.decoder = decoder
        self.steps_per_epoch = steps_per_epoch
        self.total_steps = steps_per_epoch * settings.epochs
        self.global_step = 0
        self.world_size = 1
        self.full_batch = 1
        self.step_images = 1
        num_classes = network.num_classes
        self.train_loss = _Mean()
        # validating arguments would wait for the GPU; labels are checked when the data are read
        self.train_accuracy = MulticlassAccuracy(num_classes, average="micro", validate_args=False)
        for metric in (self.train_loss, self.train_accuracy):
            metric.persistent(mode=True)  # so that an interrupted epoch still counts every image
        self.gradient_norm = torch.zeros(())  # of the last step
        self.validation_accuracy = MulticlassAccuracy(num_classes, average="micro", validate_args=False)
        self._late_check: LateCheck | None = None
        self._steps: list[
            StepLoss | GraphedStep
        ] = []  # one, after the first batch; in a list, so that it is no submodule
        self._shown: tuple[Tensor, Tensor] | None = None  # images and loss of this step, for the late check

    @property
    def device(self) -> torch.device:
        """The device on which it computes."""
        return device_of(self.network)

    def margin(self, step: int, total_steps: int | None = None) -> float:
        """The spread loss's margin at an optimiser step, of this run or of a run with ``total_steps``."""
        return margin_at(self.settings.loss, step, self.steps_per_epoch, total_steps or self.total_steps)

    def begin_epoch(self) -> None:
        """Reset the epoch's loss and accuracy."""
        self.train_loss.reset()
        self.train_accuracy.reset()

    def forward(self, batch: Batch) -> dict[str, Any]:
        """The loss of a batch, in training mode, with its gradient; adds loss and accuracy to the epoch's.

        With several processes the batch is a part of the step's, and the losses are scaled so that their mean over the
        processes is that of the whole.

        Returns:
            ``loss``, a scalar; ``predicted``, ``[B]``, the classes; ``margin``, a number; and ``reconstruction``,
            the decoder's part of the loss.
        """
        margin = self.margin(self.global_step)
        loss, scores, reconstruction = self._step(batch)(batch.images, batch.labels, margin)
        if self.world_size == 1:
            self.check_loss(batch.images, loss.detach())
        own = len(batch.labels) if self.world_size == 1 else self.step_images / self.world_size
        self.train_loss.update(loss.detach(), weight=own)
        self.train_accuracy.update(scores, batch.labels)
        predicted = scores.argmax(dim=1)
        return {"loss": loss, "predicted": predicted, "margin": margin, "reconstruction": reconstruction}

    def check_loss(self, images: Tensor, loss: Tensor) -> None:
        """Raise :class:`TrainingDivergedError` if a step's loss is not finite; on a GPU it is checked later.

        Args:
            images: ``[B, C, H, W]``, of this process.
            loss: a scalar, the same in all processes, so that all of them stop at the same step.
        """
        if self._checks_late:
            self._shown = images, loss
        elif not torch.isfinite(loss):
            raise TrainingDivergedError(self._describe_divergence(images, "the loss", loss.item(), self.global_step))

    def _step(self, batch: Batch) -> Callable[..., StepResult]:
        """The network with its loss; with ``cuda_graph`` as a graph, recorded at the first batch of full size."""
        if self._steps:
            step = self._steps[0]
            if isinstance(step, StepLoss):
                step.share = self._share_of(batch)
            return step
        chosen = self.settings.loss
        step = StepLoss(
            self.network,
            self.decoder,
            self.network.class_scores,
            self._loss,
            reconstruction_weight=chosen.reconstruction_weight,
            reduction=chosen.reduction,
        )
        step.share = self._share_of(batch)
        if self.settings.cuda_graph:
            if len(batch.labels) < self.full_batch:  # the last batch of an epoch in which a run was resumed
                return step
            self._steps.append(GraphedStep(step, batch.images, batch.labels))
        else:
            self._steps.append(step)
        return self._steps[0]

    def _share_of(self, batch: Batch) -> float:
        """The factor of this process's loss with which the processes' mean is the loss of the whole step."""
        if self.world_size == 1:
            return 1
        if self.settings.loss.reduction == "sum":
            return self.world_size
        return self.world_size * len(batch.labels) / self.step_images

    def finish_checks(self) -> None:
        """Wait for the steps so far, and raise :class:`TrainingDivergedError` if one was not finite."""
        if self._late_check is not None:
            self._stop_at(self._late_check.finish())

    @torch.no_grad()
    def check_finite(self, images: Tensor) -> None:
        """Raise :class:`TrainingDivergedError` if the class scores of some images are not finite."""
        with evaluation_mode(self.network):
            scores = self.network.class_scores(self.network(images))
            if not torch.isfinite(scores).all():
                broken = float(scores[~torch.isfinite(scores)][0])
                raise TrainingDivergedError(
                    self._describe_divergence(images, "a class score", broken, self.global_step)
                )

    @torch.no_grad()
    def validate(self, batches: Iterable[Batch]) -> tuple[Tensor, Tensor]:
        """Mean loss and accuracy of the present network, each a scalar."""
        total, count = torch.zeros((), device=self.device), 0
        self.validation_accuracy.reset()
        with evaluation_mode(self):
            for batch in batches:
                images = batch.images[:, 0] if batch.images.ndim == 5 else batch.images  # of several crops the centre
                output = self.network(images)
                scores = self.network.class_scores(output)
                self.validation_accuracy.update(scores, batch.labels)
                loss = self._loss(output, scores, batch.labels, margin=self.margin(self.global_step))
                total, count = total + loss.float() * len(batch.labels), count + len(batch.labels)
        return total / count, self.validation_accuracy.compute()

    def make_optimizer(self) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR]:
        """The optimiser, and the schedule of its learning rate by the step."""
        chosen = self.settings.optimizer
        optimizer_class = torch.optim.Adam if chosen.name == "adam" else torch.optim.AdamW
        optimizer = optimizer_class(
            parameter_groups(
                self,
                chosen.learning_rate,
                chosen.matrix_learning_rate,
                weight_decay=chosen.weight_decay,
                decoupled=chosen.name == "adamw",
            ),
            fused=True,  # one pass over the parameters: a step of the CNN takes two thirds of the time
        )
        return optimizer, torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: chosen.factor(step, self.total_steps)
        )

    def clip_gradient(self, optimizer: torch.optim.Optimizer) -> None:
        """Clip the gradient, and stop before a gradient that is not finite reaches the weights."""
        limit = self.settings.optimizer.gradient_clip
        gradients = [parameter.grad for parameter in self.parameters() if parameter.grad is not None]
        if self._checks_late:
            norm = self._norm_checked_late(gradients, optimizer)
        else:
            norm = nn.utils.get_total_norm(gradients)
            if not torch.isfinite(norm):
                broken = (place for place, one in enumerate(gradients) if not torch.isfinite(one).all())
                raise self._broken_gradient(next(broken, None), self.global_step)
        if limit is not None:
            nn.utils.clip_grads_with_norm_(self.parameters(), limit, norm)
        self.gradient_norm = norm.detach()

    @property
    def _checks_late(self) -> bool:
        return self.device.type == "cuda"

    def _norm_checked_late(self, gradients: list[Tensor], optimizer: torch.optim.Optimizer) -> Tensor:
        """The norm of all gradients; if one is not finite, the optimiser skips the step, and the check records it."""
        assert self._shown is not None
        if self._late_check is None or self._late_check.found_inf.device != self.device:
            self._late_check = LateCheck(self.device)
        norms = torch.stack(torch._foreach_norm(gradients))  # pyright: ignore[reportPrivateImportUsage]
        norm = torch.linalg.vector_norm(norms)
        self._stop_at(self._late_check.add(self.global_step, *self._shown, norm, norms))
        self._shown = None
        optimizer.found_inf = self._late_check.found_inf  # type: ignore[attr-defined]
        return norm

    def _stop_at(self, broken: Broken | None) -> None:
        if broken is None:
            return
        if math.isfinite(broken.loss):
            raise self._broken_gradient(broken.parameter, broken.step)
        raise TrainingDivergedError(self._describe_divergence(broken.images, "the loss", broken.loss, broken.step))

    def _broken_gradient(self, place: int | None, step: int) -> TrainingDivergedError:
        """The error for a gradient, by its number among the existing ones; None: no single gradient is the cause."""
        named = [name for name, parameter in self.named_parameters() if parameter.grad is not None]
        culprit = "all parameters" if place is None else named[place]
        return TrainingDivergedError(
            f"the gradient of {culprit} is not finite at step {step}: lower the "
            "learning rate; checkpoints from before, if any, are kept"
        )

    def _loss(self, output: Capsules | Tensor, scores: Tensor, labels: Tensor, margin: float | Tensor) -> Tensor:
        chosen = self.settings.loss
        if chosen.name == "spread":
            return spread_loss(scores, labels, margin, chosen.reduction)
        if chosen.name == "margin":
            return margin_loss(scores, labels, reduction=chosen.reduction)
        if isinstance(output, Capsules):
            return cross_entropy_loss(scores, labels, chosen.reduction)
        return F.cross_entropy(output, labels, reduction=chosen.reduction)

    @torch.no_grad()
    def _describe_divergence(self, images: Tensor, what: str, value: float, step: int) -> str:
        """Describe which layer's parameters or output are the first that are not finite."""
        culprit = "the loss itself"
        for name, parameter in self.named_parameters():
            if not torch.isfinite(parameter).all():
                culprit = f"parameter {name}"
                break
        else:
            if not torch.isfinite(images).all():
                culprit = "the input images"
            elif isinstance(self.network, EMCapsNet):
                for name, capsules in self.network.layer_outputs(images).items():
                    if not all(torch.isfinite(tensor).all() for tensor in capsules):
                        culprit = f"the output of layer {name}"
                        break
        return (
            f"{what} is {value} at step {step}, first in {culprit}: lower the "
            "learning rate; checkpoints from before, if any, are kept"
        )


def margin_at(settings: LossSettings, step: int, steps_per_epoch: int, total_steps: int) -> float:
    """The spread loss's margin at an optimiser step, by the chosen schedule scaled to the run."""
    if settings.margin_schedule == "constant":
        return settings.margin
    if settings.margin_schedule == "authors":
        return authors_margin(step, settings.margin_scale or max(1.0, total_steps / 40))
    return tutorial_margin(step, max(1, round(steps_per_epoch * settings.margin_epochs / 7)))
