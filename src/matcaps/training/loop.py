"""The training loop: batches, measurements after an epoch, logging and saving."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor
from torch import distributed as processes
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter
from torchmetrics import Metric

from matcaps.data.loader import Batch, EpochSampler
from matcaps.layers.shared_batch import Share, shared_batch
from matcaps.training.averaging import FEW_BATCHES, AveragedWeights
from matcaps.training.checkpoint_files import AFTER_EPOCH, CHECKPOINTS_NAME, WITHIN_EPOCH, write_checkpoint
from matcaps.training.module import Training
from matcaps.training.random_states import check_random_states, random_states, set_random_states
from matcaps.training.record import METRICS_NAME, read_metrics, write_metrics
from matcaps.training.stopping import Halt, StopRequest


class Callback:
    """Base class of callbacks; override the methods you need. Callbacks are called in the order in which they are
    given.

    Every method gets the :class:`Loop` and its :class:`~matcaps.training.Training`. An exception ends the training.
    The result of :meth:`state_dict`, tensors and plain values, is restored when a run is resumed; of several processes
    each has its own.
    """

    def on_train_start(self, loop: "Loop", training: Training, /) -> None:
        """Before the first step, or the first after an interruption; not if no step is left."""

    def on_train_epoch_start(self, loop: "Loop", training: Training, /) -> None:
        """Before an epoch's first step, or the first after an interruption within it."""

    def on_train_batch_start(self, loop: "Loop", training: Training, batch: Batch, batch_idx: int, /) -> None:
        """Before a step."""

    def on_after_backward(self, loop: "Loop", training: Training, /) -> None:
        """After the backward pass, before the gradient is clipped."""

    def on_train_batch_end(
        self, loop: "Loop", training: Training, outputs: dict[str, Any], batch: Batch, batch_idx: int, /
    ) -> None:
        """After a step, with the outputs of :class:`~matcaps.training.Training`; ``loop.global_step`` includes it."""

    def on_validation_start(self, loop: "Loop", training: Training, /) -> None:
        """After an epoch's last step, before the validation."""

    def on_validation_batch_end(self, loop: "Loop", training: Training, batch: Batch, batch_idx: int, /) -> None:
        """After each batch of the validation."""

    def on_validation_end(self, loop: "Loop", training: Training, /) -> None:
        """After the validation."""

    def on_train_epoch_end(self, loop: "Loop", training: Training, /) -> None:
        """After the validation, before the epoch's metrics and checkpoint are written; :meth:`Loop.log` adds
        metrics.
        """

    def on_train_end(self, loop: "Loop", training: Training, /) -> None:
        """After the last epoch, with the final weights in the network."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        pass


class Loop:
    """Train, from the training's present step to its last epoch.

    Args:
        fabric: already launched.
        training: the network and its loss.
        loader: the training images' batches, on the device, by an :class:`EpochSampler`.
        validation: the validation images' batches; None: there are none.
        folder: the run's folder.
        averaging: the mean of the weights over the steps; None: no averaging.
        request: notes a signal that asks the training to end, which it does after writing a checkpoint.
        facts: plain values to store in the checkpoint: the settings and the network's description.
        commit: of the code that runs; None if it is not known.
        callbacks: called in this order.

    Attributes:
        global_step: optimiser steps so far.
        current_epoch: from 0.
        max_epochs: of the whole run.
        num_training_batches: steps in an epoch.
        metrics: this epoch's scalars so far, by name.
        should_stop: set by a callback, ends the training after this step as if it were the last.
        writer: TensorBoard's; None in all processes but the first.
        optimizer: torch's.
        world_size: processes; the first ``is_global_zero``.
        seconds: time spent on training, over all interruptions.
        extensions: changes of the run's number of epochs, over all interruptions, as plain values.
        commits: of the code that ran, in order, over all interruptions; None for one that is not known.
        images_per_second: in the steps of the last epoch.
    """

    def __init__(
        self,
        fabric: Fabric,
        training: Training,
        loader: DataLoader[Batch],
        validation: DataLoader[Batch] | None,
        folder: Path,
        *,
        averaging: AveragedWeights | None,
        request: StopRequest,
        facts: dict[str, Any],
        commit: str | None,
        writer: SummaryWriter | None,
        callbacks: Sequence[Callback],
    ) -> None:
        self.fabric, self.training, self.folder, self.callbacks = fabric, training, folder, callbacks
        self.loader, self.validation = loader, validation
        self.averaging = averaging
        self.optimizer, self.scheduler = training.make_optimizer()
        self.model, self._stepping = fabric.setup(training, self.optimizer)
        self.world_size, self.is_global_zero = fabric.world_size, fabric.is_global_zero
        self.num_training_batches, self.max_epochs = len(loader), training.settings.epochs
        self.current_epoch = 0
        self.metrics: dict[str, Tensor] = {}
        self.should_stop = False
        self.writer = writer
        self.images_per_second: float | None = None
        self.seconds = 0.0
        self.extensions: list[dict[str, int]] = []
        self.commits = [commit]
        self._request = request
        self._facts = facts
        self._began = self._saved = time.perf_counter()
        self._random_states: Mapping[str, Any] = {}

    @property
    def global_step(self) -> int:
        return self.training.global_step

    def run(self) -> None:
        """Train to the end.

        Raises:
            TrainingDivergedError: a loss, gradient or class score is not finite.
            Halt: a signal asked for the end; there is a checkpoint.
        """
        training, length = self.training, self.num_training_batches
        sampler: EpochSampler = self.loader.batch_sampler  # type: ignore[assignment]
        rows: list[dict[str, Any]] = [*read_metrics(self.folder / METRICS_NAME)]
        rows = [row for row in rows if int(row["epoch"]) * length <= self.global_step]  # later epochs are repeated
        if rows and rows[-1].get("train/images_per_second"):  # of a run that was stopped after its last epoch
            self.images_per_second = float(rows[-1]["train/images_per_second"])
        self._began = self._saved = time.perf_counter()
        if self.global_step < training.total_steps:
            set_random_states(self._random_states, self.fabric.device)
            self._call("on_train_start")

        while self.global_step < training.total_steps and not self.should_stop:
            self.current_epoch, first = divmod(self.global_step, length)
            if self._is_asked_to_end():
                raise Halt
            if first == 0:
                training.begin_epoch()  # within an epoch the counts came with the checkpoint
            self.metrics, of_steps, num_images = {}, {}, 0
            self._call("on_train_epoch_start")
            sampler.resume_at(self.current_epoch, first)
            started = stopped = time.perf_counter()
            for index, batch in enumerate(self.loader, first):
                training.step_images = sampler.step_size(index)
                self._call("on_train_batch_start", batch, index)
                outputs, of_steps = self._step(batch)
                self.metrics |= of_steps
                if self.global_step % min(training.settings.log_every_steps, length) == 0:
                    self._write_scalars(of_steps)
                self._call("on_train_batch_end", outputs, batch, index)
                if index + 1 == length or self.should_stop:
                    training.finish_checks()  # waits for the GPU, which may not have finished the steps
                num_images, stopped = num_images + training.step_images, time.perf_counter()
                if self.should_stop:
                    break
                if index + 1 < length:  # otherwise the checkpoint after the epoch follows
                    self._save_within_epoch()
            if stopped > started:  # the clock may be coarse
                self.images_per_second = num_images / (stopped - started)
                self.log("train/images_per_second", self.images_per_second)

            if self.validation is not None:
                self._validate(self.validation)
            self.log("train/loss", training.train_loss.compute())
            self.log("train/accuracy", training.train_accuracy.compute())
            self._call("on_train_epoch_end")
            self._write_scalars({name: value for name, value in self.metrics.items() if name not in of_steps})
            if self.is_global_zero:
                values = {name: float(value) for name, value in sorted(self.metrics.items())}
                rows.append({"epoch": self.current_epoch + 1, "step": self.global_step, **values})
                write_metrics(self.folder / METRICS_NAME, rows)
            self._save(AFTER_EPOCH)

        if self.averaging is not None:
            self.averaging.finish()
        self._call("on_train_end")
        self.seconds = self._elapsed()

    def log(self, name: str, value: float | Tensor) -> None:
        """Add a scalar of this epoch to metrics.csv and TensorBoard."""
        self.metrics[name] = torch.as_tensor(value, dtype=torch.float32)

    def restore(self, checkpoint: Mapping[str, Any], extension: dict[str, int] | None = None) -> None:
        """Continue from a checkpoint, perhaps to another number of epochs."""
        self.training.load_state_dict(checkpoint["state_dict"])
        if self.averaging is not None:
            self.averaging.load(dict(checkpoint))
        own = checkpoint["matcaps"]
        of_processes = own.get("processes")  # an earlier version's checkpoint has only the first one's
        ours = None if of_processes is None else of_processes[self.fabric.global_rank]
        if ours is not None:
            for name, metric in self._epochs_metrics():
                metric.load_state_dict(ours["metrics"][name])
        self.training.to(self.fabric.device)  # torchmetrics leaves its loaded counts on the CPU
        self.optimizer.load_state_dict(checkpoint["optimizer_states"][0])
        self.scheduler.load_state_dict(checkpoint["lr_schedulers"][0])
        of_callbacks = checkpoint["callbacks"] if ours is None else ours["callbacks"]
        for callback in self.callbacks:
            if type(callback).__qualname__ in of_callbacks:
                callback.load_state_dict(of_callbacks[type(callback).__qualname__])
        self.training.global_step = checkpoint["global_step"]
        self.current_epoch = checkpoint["epoch"]
        self.seconds = own["seconds"]
        self.extensions = [*own.get("extensions", []), *([] if extension is None else [extension])]
        before = own.get("commits", [None])  # an earlier version's checkpoint has none
        self.commits = [*before, *(one for one in self.commits if one != before[-1])]
        if ours is None:
            earlier = {"torch": "random_state", "cuda": "cuda_random_state"}
            self._random_states = {name: own[before] for name, before in earlier.items() if before in own}
        else:
            self._random_states = ours["random"]
        check_random_states(self._random_states)
        # the loaded learning rate is that of the earlier number of epochs; compute the one of the present number
        scheduler = self.scheduler
        rated = zip(self.optimizer.param_groups, scheduler.base_lrs, scheduler.lr_lambdas, strict=True)
        for group, rate, factor in rated:
            group["lr"] = rate * factor(scheduler.last_epoch)

    def _step(self, batch: Batch) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """One step of the optimiser; returns the network's outputs, and the scalars to log."""
        training = self.training
        if self.world_size == 1:
            outputs: dict[str, Any] = self.model(batch)
            self.optimizer.zero_grad()
            self.fabric.backward(outputs["loss"])
        else:
            outputs = self._backward_of_all(batch)
        self._call("on_after_backward")
        training.clip_gradient(self.optimizer)
        self._stepping.step()
        self.scheduler.step()
        training.global_step += 1
        if self.averaging is not None:
            self.averaging.update()
        logged = {
            "train/step_loss": outputs["loss"].detach(),
            "train/margin": torch.tensor(outputs["margin"], dtype=torch.float32),
            "train/gradient_norm": training.gradient_norm,
        }
        if training.decoder is not None:
            logged["train/reconstruction_loss"] = outputs["reconstruction"]
        return outputs, logged

    def _backward_of_all(self, batch: Batch) -> dict[str, Any]:
        """Forward and backward of one of several processes; gradients and losses are then those of the whole step.

        They are added up in one piece. DDP divides them, and otherwise in its first step than in the next ones, so that
        after an interruption three or more processes would add in another order.
        """
        training, count = self.training, self.world_size
        share = Share(self.fabric.global_rank, count, training.step_images)
        with self.fabric.no_backward_sync(self.model):  # type: ignore[arg-type]
            with shared_batch(share):
                outputs: dict[str, Any] = self.model(batch)
            self.optimizer.zero_grad()
            self.fabric.backward(outputs["loss"])
        with torch.no_grad():
            losses = [outputs[name].detach() for name in ("loss", "reconstruction")]
            parts = [*losses, *(one.grad for one in training.parameters() if one.grad is not None)]
            whole = torch.cat([one.flatten().float() for one in parts])
            processes.all_reduce(whole)
            whole /= count
            for part, mean in zip(parts, whole.split([one.numel() for one in parts]), strict=True):
                part.copy_(mean.view(part.shape))
        outputs |= {"loss": losses[0], "reconstruction": losses[1]}
        training.check_loss(batch.images, losses[0])
        return outputs

    def _validate(self, batches: DataLoader[Batch]) -> None:
        """Validate the averaged weights, if there are any; every process validates on all images."""
        self._call("on_validation_start")
        averaged = nullcontext() if self.averaging is None else self.averaging.applied(FEW_BATCHES)
        with averaged, self.fabric.autocast():
            loss, accuracy = self.training.validate(self._with_callbacks(batches))
        self.log("validation/loss", loss)
        self.log("validation/accuracy", accuracy)
        self._call("on_validation_end")

    def _with_callbacks(self, batches: DataLoader[Batch]) -> Iterator[Batch]:
        for index, batch in enumerate(batches):
            yield batch
            self._call("on_validation_batch_end", batch, index)

    def _call(self, hook: str, *arguments: Any) -> None:
        for callback in self.callbacks:
            getattr(callback, hook)(self, self.training, *arguments)

    def _write_scalars(self, values: Mapping[str, Tensor]) -> None:
        """Write scalars to TensorBoard, at the number of the last step, from 0."""
        if self.writer is not None:
            for name, value in (*values.items(), ("epoch", self.current_epoch)):
                self.writer.add_scalar(name, float(value), self.global_step - 1)

    def _save_within_epoch(self) -> None:
        """Save a checkpoint when it is due, and after a signal, which then ends the training."""
        is_due = time.perf_counter() - self._saved >= self.training.settings.checkpoint_minutes * 60
        is_asked, must_save = self._agreed(self._request.number is not None, is_due and self.is_global_zero)
        if is_asked or must_save:
            self._save(WITHIN_EPOCH)
            self._saved = time.perf_counter()
        if is_asked:
            raise Halt

    def _is_asked_to_end(self) -> bool:
        return self._agreed(self._request.number is not None)[0]

    def _agreed(self, *are_true: bool) -> list[bool]:
        """Whether each is true in any process, so that all processes do the same at the same step."""
        if self.world_size == 1:
            return [*are_true]
        counts = self.fabric.all_reduce(torch.tensor(are_true, device=self.fabric.device).int(), reduce_op="sum")
        return [one > 0 for one in counts.tolist()]  # type: ignore[union-attr]

    def _save(self, name: str) -> None:
        self.training.finish_checks()  # so that only finite numbers are saved
        callbacks = {type(one).__qualname__: state for one in self.callbacks if (state := one.state_dict())}
        own: dict[str, Any] = {
            "random": random_states(self.fabric.device),
            "metrics": {name: metric.state_dict() for name, metric in self._epochs_metrics()},
            "callbacks": callbacks,
        }
        of_processes = [own] * self.world_size
        if self.world_size > 1:
            processes.all_gather_object(of_processes, own)
        checkpoint = {
            "epoch": self.current_epoch,
            "global_step": self.global_step,
            "state_dict": self.training.state_dict(),
            "optimizer_states": [self.optimizer.state_dict()],
            "lr_schedulers": [self.scheduler.state_dict()],
            "callbacks": callbacks,
            "matcaps": {
                "processes": of_processes,
                "random_state": own["random"]["torch"],  # for earlier versions, as the next one
                "seconds": self._elapsed(),
                "extensions": self.extensions,
                "commits": self.commits,
                **self._facts,
            },
        }
        if self.fabric.device.type == "cuda":
            checkpoint["matcaps"]["cuda_random_state"] = own["random"]["cuda"]
        if self.averaging is not None:
            self.averaging.save(checkpoint)
        if self.writer is not None:
            self.writer.flush()  # what a checkpoint has behind it is not logged again
        if self.is_global_zero:
            write_checkpoint(self.folder / CHECKPOINTS_NAME / f"{name}.ckpt", checkpoint)
        self.fabric.barrier()

    def _epochs_metrics(self) -> list[tuple[str, Metric]]:
        """What counts this epoch's images: of several processes each its own."""
        return [("loss", self.training.train_loss), ("accuracy", self.training.train_accuracy)]

    def _elapsed(self) -> float:
        return self.seconds + time.perf_counter() - self._began
