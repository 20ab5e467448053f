"""What experiments measure on trained networks in addition to the test accuracy."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from matcaps.data import load_data, make_loader
from matcaps.data.splits import limit_images
from matcaps.experiments.attacks import AttackSettings, attack_networks
from matcaps.experiments.distortions import measure_distortions
from matcaps.experiments.plan import Experiment, Trial, make_trials
from matcaps.inspect.agreement import routing_agreement
from matcaps.models import EMCapsNet
from matcaps.models.modes import device_of
from matcaps.models.pretrained import from_pretrained
from matcaps.training.devices import place
from matcaps.training.record import command_line, describe_machine, source_commit

_HELD_OUT_IMAGES = 500


@dataclass(frozen=True)
class Measure:
    """A measurement on a trial's network.

    Attributes:
        measure: makes the record, in a form that JSON can hold.
        also_needed: other trials whose networks it needs.
    """

    measure: Callable[[Experiment, Trial, Path], dict[str, Any]]
    also_needed: Callable[[Experiment, Trial], list[Trial]] = lambda experiment, trial: []


def _source_trial(experiment: Experiment, trial: Trial) -> Trial:
    """The trial of the CNN with the same seed, which makes the black box's adversarial images."""
    data = trial.settings.data
    return make_trials(
        experiment,
        rows=["cnn"],
        seeds=[trial.settings.seed],
        epochs=trial.asked_epochs,
        root=data.root,
        max_train_images=data.max_train_images,
        max_test_images=data.max_test_images,
        accelerator=trial.settings.accelerator,
    )[0]


def _attacks(experiment: Experiment, trial: Trial, base: Path) -> dict[str, Any]:
    source = _source_trial(experiment, trial)
    bundle = load_data(trial.settings.data, trial.settings.seed)
    networks = {one.row.name: from_pretrained(one.training_folder(base)) for one in (source, trial)}
    for network in networks.values():
        place(network, trial.settings.accelerator)
    started = time.perf_counter()
    attacked = attack_networks(
        networks, source.row.name, bundle.test, bundle.transform, AttackSettings(seed=trial.settings.seed)
    )
    return _record(trial, bundle.test.origin, started, attacks=attacked)


def _distortions(experiment: Experiment, trial: Trial, base: Path) -> dict[str, Any]:
    bundle = load_data(trial.settings.data, trial.settings.seed)
    network = from_pretrained(trial.training_folder(base))
    place(network, trial.settings.accelerator)
    started = time.perf_counter()
    distorted = measure_distortions(network, bundle.test, bundle.transform)
    return _record(trial, bundle.test.origin, started, distortions=distorted)


def _held_out(experiment: Experiment, trial: Trial, base: Path) -> dict[str, Any]:
    """On objects of the training part that were left out: how routing treats the true class, and distorted images."""
    bundle = load_data(trial.settings.data, trial.settings.seed)
    assert trial.settings.data.split.source == "train", "what is measured here must not be the test part"
    network = from_pretrained(trial.training_folder(base))
    place(network, trial.settings.accelerator)
    images = limit_images(bundle.test, _HELD_OUT_IMAGES, trial.settings.data.split.seed)
    started = time.perf_counter()
    agreement = None
    if isinstance(network, EMCapsNet):
        loader = make_loader(images, bundle.transform, train=False, batch_size=50, device=device_of(network))
        agreement = routing_agreement(network, loader).to_dict()
    distorted = measure_distortions(network, images, bundle.transform, rotations=(0, 10, 20, 30), shifts=(0, 2, 4))
    return _record(trial, images.origin, started, agreement=agreement, distortions=distorted)


def _record(trial: Trial, origin: str, started: float, **measured: Any) -> dict[str, Any]:
    """The measured values, with everything needed to repeat the measurement."""
    return {
        "experiment": trial.experiment,
        "row": trial.row.name,
        "seed": trial.settings.seed,
        "data_origin": origin,
        "seconds": round(time.perf_counter() - started, 1),
        "command": command_line(),
        "commit": source_commit(),
        "machine": describe_machine(),
        "finished": datetime.now().astimezone().isoformat(timespec="seconds"),
        **measured,
    }


MEASURES: dict[str, Measure] = {
    "attacks": Measure(_attacks, lambda experiment, trial: [_source_trial(experiment, trial)]),
    "distortions": Measure(_distortions),
    "held_out": Measure(_held_out),
}
"""The measures, by :attr:`Experiment.measure`."""
