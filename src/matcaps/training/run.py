"""Train a network from settings, in a folder that records everything about the run."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import torch
from lightning.fabric import Fabric, seed_everything
from lightning.fabric.utilities.rank_zero import rank_zero_only
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from matcaps._paths import named_errors, user_path
from matcaps.data import DataBundle, ImageDataset, appearance
from matcaps.data.build import Part
from matcaps.data.loader import PreparedImages
from matcaps.data.names import check_class_names
from matcaps.models import BaselineCNN, EMCapsNet, PoseDecoder, create_model, model_config
from matcaps.models.config import BaselineCNNConfig
from matcaps.models.freezing import freeze
from matcaps.models.pretrained import describe_model, from_pretrained, save_weights
from matcaps.models.sources import DECODER_NAME
from matcaps.models.statistics import has_statistics
from matcaps.training.agreement_watch import AgreementWatch
from matcaps.training.averaging import AveragedWeights
from matcaps.training.callbacks import CapsuleHealth, CapsuleViews, WatchedParts
from matcaps.training.checkpoint_files import CHECKPOINTS_NAME, read_checkpoint
from matcaps.training.data_record import begin_with_data, check_folder_exists, load_for_training
from matcaps.training.devices import resolve_device
from matcaps.training.evaluation import Evaluation, evaluate
from matcaps.training.folder import claimed_folder
from matcaps.training.guards import lost_processes_named, processes_end, quiet, stoppable
from matcaps.training.launchers import check_launcher, meet_after_restart
from matcaps.training.loop import Callback, Loop
from matcaps.training.module import Training
from matcaps.training.record import (
    RESULTS_NAME,
    SETTINGS_NAME,
    command_line,
    describe_machine,
    read_json,
    read_run_settings,
    source_commit,
    write_json,
)
from matcaps.training.resuming import prepare_to_resume, restoring
from matcaps.training.settings import TrainSettings
from matcaps.training.stuck import StuckWatch
from matcaps.training.tuning import describe_origin, settle, start_from_pretrained
from matcaps.training.unfinished import check_finished

TENSORBOARD_NAME = "tensorboard"
_STATISTICS_BATCH = 64
_WATCHED_IMAGES = 64
_VIEWED_IMAGES = 256
"""The number of images for the views in TensorBoard, and for the measures of agreement."""
_TEST_BATCH = 200
_BROKEN_DOWN_BY = ("instance", "group")


@dataclass(frozen=True)
class TrainResult:
    """The result of a training.

    Attributes:
        folder: the run's folder.
        test: the final weights on the test images; None if the settings' test is "never", and in all but the first of
            several processes.
        seconds: time spent training, over all interruptions.
        speaks: whether this process is the first of several, which writes and prints.
    """

    folder: Path
    test: Evaluation | None
    seconds: float
    speaks: bool = True


def train(
    settings: TrainSettings,
    folder: str | os.PathLike[str] | None = None,
    *,
    resume: bool | Literal["if-begun"] = False,
    callbacks: Sequence[Callback] = (),
) -> TrainResult:
    """Train a network, test it, and write weights, metrics and results to a folder.

    Args:
        settings: of the training.
        folder: the run's folder, new or empty; by default ``runs/RECIPE-DATE-TIME``.
        resume: continue the run in ``folder`` from its newest checkpoint, to the same result as without interruption.
            With another number of epochs it continues to that number, finished or not: from then on learning rate and
            margin are those at that step in a run of that many epochs (the schedules are stretched or shortened).
            "if-begun": continue it if it has begun, with these settings, and begin it otherwise; for what is started
            again by a launcher, such as torchrun after the loss of a process.
        callbacks: called while it trains; see :class:`matcaps.training.Callback`.

    Returns:
        The folder and the test's results.

    Raises:
        TypeError: a callback is not a :class:`matcaps.training.Callback`.
        FileExistsError: the folder is not empty, and ``resume`` is false.
        FileNotFoundError: data are missing; or ``resume`` is true and there is no run.
        RunBusyError: another process is using the run in ``folder``.
        ValueError: settings, data or checkpoint do not fit.
        TrainingDivergedError: a loss or gradient was not finite; the last checkpoint before it is kept.
        StoppedBySignal: SIGTERM, SIGHUP or SIGINT (Ctrl+C; it is a KeyboardInterrupt) ended it, after the
            current step, with a checkpoint to resume from.
        OSError: a file cannot be written, for example because the disk is full; the run can be resumed.
    """
    _check_devices(settings)
    for callback in callbacks:
        if not isinstance(callback, Callback):
            raise TypeError(
                f"callbacks must be of matcaps.training.Callback; got {type(callback).__module__}."
                f"{type(callback).__qualname__}: derive it from that class, whose methods are called as Lightning's"
            )
    has_begun = folder is not None and (user_path(folder) / SETTINGS_NAME).is_file()
    may_begin = resume is not True
    resume = has_begun if resume == "if-begun" else resume
    run = user_path(folder) if resume and has_begun and folder is not None else None
    settings = settle(settings) if run is None else settings.with_weights_of(read_run_settings(run))
    restored = run is not None and any((run / CHECKPOINTS_NAME).glob("*.ckpt"))
    commit = source_commit()  # now, because the checkout may change while the training runs
    if resume and folder is not None:
        check_folder_exists(settings.data, Path(folder), "restore it, or write its present path into settings.yaml")
    settings = replace(settings, data=settings.data.with_whole_paths())
    settings, bundle = load_for_training(settings, resume=not may_begin, rank=_rank())
    seed_everything(settings.seed, workers=True, verbose=False)
    network = make_network(settings, bundle, restored=restored)
    device = _device(settings)
    loader = bundle.loader("train", rank=_rank(), world_size=_world_size(settings), device=device)
    training = _make_training(settings, network, bundle, len(loader))
    watched = {
        part: bundle.loader(cast(Part, part), batch_size=_TEST_BATCH, device=device) for part in settings.watched_parts
    }
    described_input = describe_input(bundle)
    described = {**describe_model(network), **described_input}
    facts = {"settings": settings.to_dict(), "config": json.loads(json.dumps(described))}  # only plain values
    prepared = cast(PreparedImages, loader.dataset)
    # last, so that refused settings leave no folder behind
    with claimed_folder(settings, folder, resume=resume, rank=_rank()) as place:
        begin_with_data(place, bundle, resume=resume, rank=_rank())
        start, extension = prepare_to_resume(place, training, speaks=_rank() == 0) if resume else (None, None)
        fabric = _make_fabric(settings)
        with (
            quiet(),
            named_errors(place),
            stoppable(place) as request,
            processes_end(fabric, request),
            lost_processes_named(fabric, place),
            ExitStack() as tensorboard,
        ):
            meet_after_restart(device)
            fabric.launch()
            training.to(fabric.device)
            training.world_size = fabric.world_size
            training.full_batch = min(settings.data.batch_size, len(prepared))
            batches = partial(_statistics_batches, prepared) if has_statistics(network) else None
            decay = settings.optimizer.ema_decay
            averaging = None if decay is None else AveragedWeights(training, decay, batches)
            shown = bundle.transform.evaluate(_watched(bundle, _WATCHED_IMAGES).images)
            stuck, agreement = StuckWatch(shown, bundle.classes), _agreement(settings, bundle, averaging)
            watching = [
                CapsuleHealth(shown),
                stuck,
                *([WatchedParts(watched, bundle.classes, settings.watch_every, averaging)] if watched else []),
                *agreement,
                *_views(settings, bundle, averaging),
            ]
            checkpoint = None if start is None else read_checkpoint(start)
            writer = _make_writer(place, checkpoint) if fabric.is_global_zero else None
            if writer is not None:
                tensorboard.enter_context(writer)
            loop = Loop(
                fabric,
                training,
                loader,
                None if bundle.validation is None else bundle.loader("validation", device=device),
                place,
                averaging=averaging,
                request=request,
                facts=facts,
                commit=commit,
                writer=writer,
                callbacks=[*watching, *callbacks],
            )
            if start is not None and checkpoint is not None:
                with restoring(start):
                    loop.restore(checkpoint, None if extension is None else vars(extension))
            loop.run()
        if not fabric.is_global_zero:
            return TrainResult(place, None, loop.seconds, speaks=False)
        network.eval()
        network.save_pretrained(place, **described_input)
        if training.decoder is not None:
            save_weights(training.decoder, place / DECODER_NAME)
        test = None
        if settings.test == "end":
            by = [name for name in _BROKEN_DOWN_BY if name in bundle.test.attributes]
            test = evaluate(network, bundle.loader("test", device=device), bundle.classes, by)
        before = read_json(place / RESULTS_NAME) if resume and (place / RESULTS_NAME).is_file() else None
        if before is not None and extension is None and before.get("epochs") in (None, settings.epochs):
            if test is not None and before.get("test", test) is None:  # except for a test that was missing
                write_json(place / RESULTS_NAME, before | _tested(settings, bundle, test))
            return TrainResult(place, test, loop.seconds)  # the run was already finished: its record stays
        count = sum(parameter.numel() for parameter in network.parameters())
        results = _results(settings, bundle, test, loop.seconds, loop.images_per_second, count, commit)
        if len(loop.commits) > 1:
            results["commits"] = loop.commits
        if loop.extensions:
            results["extensions"] = loop.extensions
        for watch in agreement:
            if (measured := watch.measure(network)) is not None:
                results["agreement"] = measured
        if stuck.warnings:
            results["warnings"] = list(stuck.warnings.values())
        write_json(place / RESULTS_NAME, results | describe_origin(settings))
        return TrainResult(place, test, loop.seconds)


def load_run(folder: str | os.PathLike[str]) -> tuple[EMCapsNet | BaselineCNN, TrainSettings]:
    """Return a finished run's network, in evaluation mode, and its settings.

    Raises:
        FileNotFoundError: the folder holds no run, or one that has not finished.
        ValueError: its files are malformed.
    """
    folder = user_path(folder)
    settings = read_run_settings(folder)
    check_finished(folder)
    network = from_pretrained(folder)
    assert isinstance(network, EMCapsNet | BaselineCNN)
    return network, settings


def make_network(settings: TrainSettings, bundle: DataBundle, *, restored: bool = False) -> EMCapsNet | BaselineCNN:
    """Make the network of some settings, for some data, and calibrate it on the first training images.

    Args:
        settings: with pretrained weights, the result of :func:`matcaps.training.tuning.settle`.
        bundle: the data.
        restored: whether its weights will come from a checkpoint, so that pretrained ones are no longer needed.
    """
    if len(bundle.classes) < 2:
        raise ValueError(f"the data must have at least two classes; got only {', '.join(bundle.classes)}")
    check_class_names(bundle.classes)
    changes: dict[str, Any] = {
        "in_channels": bundle.num_channels,
        "num_classes": len(bundle.classes),
        **settings.model.changes(),
    }
    if isinstance(model_config(settings.model.preset), BaselineCNNConfig):
        changes["image_size"] = (bundle.image_size, bundle.image_size)
    if settings.model.pretrained is None or restored:
        network = create_model(settings.model.preset, **changes)
        if settings.model.freeze:
            freeze(network, *settings.model.freeze)
    else:
        network = start_from_pretrained(settings, bundle, changes)
    if isinstance(network, EMCapsNet):
        images = _first_images(bundle, settings.calibration_images)
        new = network.new_layers()
        if new:
            anew = settings.model.recalibrate and "class_capsules" in new
            network.calibrate(images, "all" if anew else None)
        network.class_coordinates(images)  # checks that they fit, also if nothing is new
    return network


def describe_input(bundle: DataBundle) -> dict[str, Any]:
    """What must be saved for classifying new images: the classes' names, the preprocessing, the images' appearance."""
    return {
        "classes": list(bundle.classes),
        "data": bundle.settings.name,
        "preprocessing": bundle.transform.to_dict(),
        "appearance": {name: round(value, 4) for name, value in vars(appearance(bundle.train)).items()},
        "reading": {"fit": bundle.settings.fit, "transparency": bundle.settings.transparency},
    }


def _device(settings: TrainSettings) -> torch.device:
    """This process's device."""
    implementation = settings.model.changes().get("implementation", "auto")
    return resolve_device(settings.accelerator, settings.devices, implementation=implementation)


def _check_devices(settings: TrainSettings) -> None:
    """Refuse devices that this machine lacks, or that contradict the launcher, before anything is written."""
    check_launcher(settings.devices, settings.num_nodes)
    if _world_size(settings) == 1 and _rank() != 0:
        raise ValueError(
            f"this is process {_rank()} of several, by RANK, LOCAL_RANK or SLURM_PROCID in the environment, but "
            "devices and num_nodes are 1: give --devices and --num_nodes for one training by all, or remove these "
            "variables (env -u) for a separate training"
        )
    device = _device(settings)
    if settings.cuda_graph and (device.type != "cuda" or _world_size(settings) > 1):
        raise ValueError(
            f"cuda_graph is for a training on one GPU; got {_world_size(settings)} "
            f"process{'es' if _world_size(settings) > 1 else ''} on {device.type}: leave --cuda_graph out, or give "
            "--accelerator gpu and one device"
        )


def _make_fabric(settings: TrainSettings) -> Fabric:
    return Fabric(
        accelerator=_device(settings).type,
        devices=settings.devices,
        num_nodes=settings.num_nodes,
        strategy="ddp" if _world_size(settings) > 1 else "auto",
        precision=settings.precision,
    )


def _make_writer(folder: Path, checkpoint: dict[str, Any] | None) -> SummaryWriter:
    """TensorBoard's; of a run that goes on it hides what was logged after the checkpoint, and is logged again."""
    done = 0 if checkpoint is None else checkpoint["global_step"]
    return SummaryWriter(folder / TENSORBOARD_NAME, purge_step=done or None)


def _make_training(
    settings: TrainSettings, network: EMCapsNet | BaselineCNN, bundle: DataBundle, steps_per_epoch: int
) -> Training:
    decoder = None
    if settings.loss.reconstruction_weight > 0:
        if not isinstance(network, EMCapsNet):
            raise ValueError("reconstruction_weight must be 0 for a CNN: it has no poses to reconstruct from")
        size = bundle.image_size
        decoder = PoseDecoder(len(bundle.classes), (bundle.num_channels, size, size))
    return Training(settings, network, steps_per_epoch, decoder)


def _first_images(bundle: DataBundle, count: int) -> torch.Tensor:
    """The run's first training images, whatever the number of processes."""
    return next(iter(bundle.loader("train", batch_size=min(count, len(bundle.train))))).images


def _statistics_batches(prepared: PreparedImages, count: int) -> Iterator[Tensor]:
    """Some training images, prepared as in evaluation, on which the statistics of averaged weights are computed.

    With these, held-out toys of smallNORB were classified better than with distorted images (docs/log.md).
    """
    order = torch.randperm(len(prepared), generator=torch.Generator().manual_seed(prepared.seed))
    size = min(_STATISTICS_BATCH, len(order))
    for part in order[: count * size].split(size):
        yield prepared.unvaried(part)


def _watched(bundle: DataBundle, count: int) -> ImageDataset:
    """Some images to measure the capsules on, evenly spread over the validation part, or else the training part."""
    part = bundle.train if bundle.validation is None else bundle.validation
    count = min(count, len(part))
    return part.subset(torch.arange(count) * len(part) // count)


def _agreement(settings: TrainSettings, bundle: DataBundle, averaging: AveragedWeights | None) -> list[AgreementWatch]:
    if not settings.agreement_every:
        return []
    part = "train" if bundle.validation is None else "validation"
    images = _watched(bundle, _VIEWED_IMAGES)
    return [AgreementWatch(part, images, bundle.transform, settings.agreement_every, averaging)]


def _views(settings: TrainSettings, bundle: DataBundle, averaging: AveragedWeights | None) -> list[CapsuleViews]:
    if not settings.views_every:
        return []
    return [CapsuleViews(_watched(bundle, _VIEWED_IMAGES), bundle.transform, settings.views_every, averaging)]


def _results(
    settings: TrainSettings,
    bundle: DataBundle,
    test: Evaluation | None,
    seconds: float,
    images_per_second: float | None,
    num_parameters: int,
    commit: str | None,
) -> dict[str, Any]:
    return {
        "recipe": settings.recipe,
        "data": settings.data.name,
        "data_origin": (bundle.train if test is None else bundle.test).origin,
        "num_train_images": len(bundle.train),
        "num_parameters": num_parameters,
        "epochs": settings.epochs,
        "seed": settings.seed,
        **_tested(settings, bundle, test),
        "train_seconds": round(seconds, 1),
        "images_per_second": images_per_second,
        "command": command_line(),
        "commit": commit,
        "machine": describe_machine(),
        "finished": datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def _tested(settings: TrainSettings, bundle: DataBundle, test: Evaluation | None) -> dict[str, Any]:
    """The test's results, None without a test, and whether the run used images of the published test part at all."""
    looked = test is not None or bool(settings.watched_parts)
    return {
        "test": None if test is None else test.to_dict(),
        "looked_at_test_part": looked and bundle.test.split == "test",
    }


def _rank() -> int:
    return getattr(rank_zero_only, "rank", None) or 0


def _world_size(settings: TrainSettings) -> int:
    return settings.devices * settings.num_nodes
