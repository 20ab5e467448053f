"""How long the bench of routings takes: the trainings that are left, and each row's speed, measured on this machine."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from matcaps.experiments.plan import DIVERGED_NAME, Trial
from matcaps.experiments.routing_bench import Bench, Configuration, configurations, final_jobs, search_jobs
from matcaps.experiments.routing_runs import best_configuration
from matcaps.experiments.tables import markdown
from matcaps.losses import spread_loss
from matcaps.models import EMCapsNet, create_model
from matcaps.training.devices import resolve_device
from matcaps.training.groups import parameter_groups
from matcaps.training.record import RESULTS_NAME

_TRAINING_IMAGES = 24_300
"""smallNORB's training part, of which each fold leaves out a fifth."""

_STEPS = 3


@dataclass(frozen=True)
class Rate:
    """How fast a row trains.

    Attributes:
        images_per_second: in training steps, the fastest of a few.
        num_parameters: of its network.
    """

    images_per_second: float
    num_parameters: int


def measure_rate(configuration: Configuration, accelerator: Any = "auto") -> Rate:
    """Time some training steps of a configuration on images of noise."""
    settings = configuration.settings
    device, size = resolve_device(accelerator), settings.data.batch_size
    torch.manual_seed(0)
    network: Any = create_model(settings.model.preset, **settings.model.changes())
    images, labels = torch.randn(size, 2, 32, 32, device=device), torch.arange(size, device=device) % 5
    network.to(device)
    if isinstance(network, EMCapsNet):
        network.calibrate(images)
    optimizer = torch.optim.Adam(parameter_groups(network, settings.optimizer.learning_rate))
    seconds = []
    for _ in range(1 + _STEPS):
        start = _now(device)
        optimizer.zero_grad()
        spread_loss(network.class_scores(network(images)), labels, 0.2).backward()
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(_now(device) - start)
    count = sum(parameter.numel() for parameter in network.parameters())
    return Rate(size / min(seconds[1:]), count)


def _now(device: torch.device) -> float:
    """Seconds; on a CPU those that an idle one would have taken."""
    return time.perf_counter() if device.type == "cuda" else time.process_time() / torch.get_num_threads()


def images_of(trials: Sequence[Trial]) -> int:
    """The images that trainings pass through their networks, every epoch counted."""
    total = 0
    for trial in trials:
        share = 4 / 5 * (1 / 3 if trial.settings.data.split.rule == "elevation" else 1)
        own = round(share * _TRAINING_IMAGES)
        limit = trial.settings.data.max_train_images
        total += trial.settings.epochs * (own if limit is None else min(own, limit))
    return total


def make_plan(bench: Bench, base: Path, accelerator: Any = "auto") -> str:
    """What is left to train, and how many hours that takes one process here, as Markdown.

    Args:
        bench: what is compared.
        base: its folder; what is done there is not counted.
        accelerator: where to compute.
    """
    lines, all_left, all_hours = [], 0, 0.0
    for contender in bench.contenders:
        own = replace(bench, contenders=(contender,))
        first = configurations(own, contender)[0]
        rate = measure_rate(first, accelerator)
        best = best_configuration(own, contender, base) or first
        trials = [trial for _, (_, trial) in search_jobs(own)]
        # of the search's trainings those of the best configuration are the first seed's
        others = [trial for _, trial in final_jobs(own, best)]
        places = {trial.training_folder(base): trial for trial in (*trials, *others)}
        left = [
            trial
            for place, trial in places.items()
            if not any((place / name).is_file() for name in (RESULTS_NAME, DIVERGED_NAME))
        ]
        hours = images_of(left) / rate.images_per_second / 3600
        lines.append(
            [
                contender.name,
                f"{rate.num_parameters:,}",
                f"{rate.images_per_second:.0f}",
                str(len(left)),
                f"{hours:.1f}",
            ]
        )
        all_left, all_hours = all_left + len(left), all_hours + hours
    lines.append(["together", "", "", str(all_left), f"{all_hours:.1f}"])
    table = markdown(["row", "parameters", "images/s", "trainings left", "hours of training"], lines)
    threads = torch.get_num_threads()
    return (
        f"{table}\n\nThe fastest of {_STEPS} training steps on images of noise, {threads} "
        f"thread{'s' if threads > 1 else ''}, {resolve_device(accelerator)}, as on an idle machine. Tests and measures "
        "after training come on top. Trainings of one row do not wait for each other: several processes, each with a "
        "--shard k/n, divide them."
    )
