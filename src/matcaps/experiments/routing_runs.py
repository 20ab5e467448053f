"""Run the bench of routings: find each row's best configuration, then train it with more seeds."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from matcaps.experiments.plan import DIVERGED_NAME
from matcaps.experiments.records import held_out_log_loss
from matcaps.experiments.routing_bench import (
    BENCH_NAME,
    Bench,
    Configuration,
    Contender,
    Job,
    configurations,
    final_jobs,
    search_jobs,
)
from matcaps.experiments.runner import Outcome, run_trials
from matcaps.training.loop import Callback
from matcaps.training.record import RESULTS_NAME, read_json, write_json
from matcaps.training.settings import Accelerator

Say = Callable[[str], None]


def begin(bench: Bench, base: Path) -> None:
    """Note in the folder how the bench was begun.

    Raises:
        ValueError: what is there was begun otherwise.
    """
    own, path = bench.begun_with(), base / BENCH_NAME
    begun = read_json(path) if path.is_file() else own
    if begun != own:
        names = ", ".join(name for name in own if begun.get(name) != own[name])
        raise ValueError(
            f"{base} holds a bench that was begun with other {names}: give another --folder, or go on with it as it was"
        )
    base.mkdir(parents=True, exist_ok=True)
    write_json(path, own)


def losses(bench: Bench, configuration: Configuration, base: Path) -> list[float | None]:
    """For each fold the log-loss of the search's training, in nats: None: not done; infinite: it diverged."""
    found: list[float | None] = []
    for training in _search_folders(bench, configuration, base):
        if (training / DIVERGED_NAME).is_file():
            found.append(float("inf"))
        else:
            found.append(held_out_log_loss(training) if (training / RESULTS_NAME).is_file() else None)
    return found


def _search_folders(bench: Bench, configuration: Configuration, base: Path) -> list[Path]:
    jobs = search_jobs(replace(bench, contenders=(configuration.contender,)))
    return [trial.training_folder(base) for own, (_, trial) in jobs if own.name == configuration.name]


def best_configuration(bench: Bench, contender: Contender, base: Path) -> Configuration | None:
    """The configuration of a row with the lowest log-loss on the toys left out; None: not all done, or all diverged.

    The test part has no share in it. A configuration that diverged is the worst; the first of equals is taken.
    """
    means = []
    for configuration in configurations(bench, contender):
        own = losses(bench, configuration, base)
        known = [loss for loss in own if loss is not None]
        if len(known) < len(own):
            return None
        means.append((sum(known) / len(known), configuration))
    mean, best = min(means, key=lambda pair: pair[0])
    return None if mean == float("inf") else best


def run_bench(
    bench: Bench,
    base: Path,
    *,
    shard: tuple[int, int] = (1, 1),
    root: str | None = None,
    accelerator: Accelerator | None = None,
    callbacks: Sequence[Callback] = (),
    say: Say = lambda line: None,
) -> list[Outcome]:
    """Run what is missing, or this process's part of it; the same call again goes on.

    Rows whose search other processes have not finished are left for a later call.

    Args:
        bench: what is compared.
        base: the folder of all its trainings.
        shard: ``(k, n)``: the k-th of n parts of the trainings, from 1.
        root: folder that holds the data sets.
        accelerator: where to compute.
        callbacks: called while networks train.
        say: takes a line about each training.

    Returns:
        The outcomes.

    Raises:
        FileNotFoundError: data are missing.
        ValueError: the folder was begun with another bench, or settings and data do not fit.
    """
    begin(bench, base)
    part, parts = shard
    outcomes = []

    def run(jobs: Sequence[Job]) -> None:
        own = jobs[part - 1 :: parts]
        for number, (experiment, trial) in enumerate(own, 1):
            say(f"training {number} of {len(own)}: {experiment.name}/{trial.name}: {trial.row.title}")
            (outcome,) = run_trials(experiment, [trial], base, callbacks=callbacks)
            say(f"{outcome.state}: {outcome.folder}{f': {outcome.detail}' if outcome.detail else ''}")
            outcomes.append(outcome)

    run([job for _, job in search_jobs(bench, root=root, accelerator=accelerator)])
    left = list(bench.contenders)
    while left:
        found = {one.name: best_configuration(bench, one, base) for one in left}
        known = [configuration for configuration in found.values() if configuration is not None]
        if not known:
            break
        for configuration in known:
            say(f"the best of {configuration.contender.name}: {configuration.name}")
            run(list(final_jobs(bench, configuration, root=root, accelerator=accelerator)))
        left = [one for one in left if found[one.name] is None]  # others may have finished them meanwhile
    for contender in left:
        say(f"{contender.name}: no configuration is known to be the best: not all are done, or all diverged")
    return outcomes
