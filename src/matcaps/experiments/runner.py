"""Run an experiment's trials one after the other; they can be stopped, resumed and divided among processes."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from matcaps._progress import watched
from matcaps.experiments.differences import differences
from matcaps.experiments.measures import MEASURES
from matcaps.experiments.plan import DIVERGED_NAME, MEASURE_FILES, Experiment, Trial
from matcaps.experiments.records import read_measured, weights_digests
from matcaps.training.folder import RunBusyError, held
from matcaps.training.loop import Callback
from matcaps.training.module import TrainingDivergedError
from matcaps.training.record import RESULTS_NAME, SETTINGS_NAME, read_run_settings, write_json
from matcaps.training.run import train
from matcaps.training.settings import TrainSettings

State = Literal["done", "diverged", "busy"]


@dataclass(frozen=True)
class Outcome:
    """The outcome of a trial.

    Attributes:
        trial: the trial.
        folder: the folder of its record.
        state: "done", now or earlier; "diverged", its numbers became not finite; "busy",
            another process is working on it.
        detail: an explanation.
    """

    trial: Trial
    folder: Path
    state: State
    detail: str = ""


def run_trials(
    experiment: Experiment,
    trials: Sequence[Trial],
    base: Path,
    *,
    callbacks: Sequence[Callback] = (),
    report: Callable[[str], None] = lambda line: None,
) -> list[Outcome]:
    """Finish every trial: finished ones are kept, interrupted ones continue, missing ones are run.

    Args:
        experiment: the trials' experiment.
        trials: see :func:`matcaps.experiments.make_trials`.
        base: folder of all experiments; a trial's record is in ``base/EXPERIMENT/TRIAL``.
        callbacks: called while they train; see :class:`matcaps.training.Callback`.
        report: called with lines about each trial.

    Returns:
        The outcome of each trial, in order.

    Raises:
        FileNotFoundError: data are missing.
        ValueError: a folder holds a run with other settings, or settings and data do not fit.
    """
    outcomes = []
    for number, trial in enumerate(watched(trials, "trials") if len(trials) > 1 else trials, 1):
        report(f"trial {number} of {len(trials)}: {experiment.name}/{trial.name}: {trial.row.title}")
        outcome = _run_trial(experiment, trial, base, callbacks)
        report(f"{outcome.state}: {outcome.folder}{f': {outcome.detail}' if outcome.detail else ''}")
        outcomes.append(outcome)
    return outcomes


def _run_trial(experiment: Experiment, trial: Trial, base: Path, callbacks: Sequence[Callback]) -> Outcome:
    folder = trial.folder(base)
    measure = None if experiment.measure is None else MEASURES[experiment.measure]
    needed = [trial] if measure is None else [*measure.also_needed(experiment, trial), trial]
    try:
        for one in needed:
            with _held(one.training_folder(base)):
                _train(one.settings, one.training_folder(base), callbacks)
        if measure is not None:
            with _held(folder):
                path = folder / MEASURE_FILES[str(experiment.measure)]
                if not read_measured(path, base):
                    values = measure.measure(experiment, trial, base)
                    values["weights"] = weights_digests([one.training_folder(base) for one in needed], base)
                    folder.mkdir(parents=True, exist_ok=True)
                    write_json(path, values)
    except RunBusyError as busy:
        return Outcome(trial, folder, "busy", str(busy))
    except TrainingDivergedError as error:
        return Outcome(trial, folder, "diverged", str(error))
    return Outcome(trial, folder, "done")


def _train(settings: TrainSettings, folder: Path, callbacks: Sequence[Callback]) -> None:
    """Train, or continue a training, unless it is finished."""
    resume = (folder / SETTINGS_NAME).is_file()
    if resume:
        earlier = read_run_settings(folder)
        differing = differences(earlier, settings)
        if differing:
            raise ValueError(
                f"{folder} holds a run with other settings ({'; '.join(differing)}): choose another --folder, or "
                "remove that run"
            )
        settings = earlier.with_incidentals_of(settings)
    if (folder / DIVERGED_NAME).is_file():
        raise TrainingDivergedError(f"it diverged before; remove {folder} to try again")
    if (folder / RESULTS_NAME).is_file():
        return
    try:
        train(settings, folder, resume=resume, callbacks=callbacks)
    except TrainingDivergedError as error:
        write_json(folder / DIVERGED_NAME, {"message": str(error)})
        raise


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Lock a trial's folder against other processes; the lock is beside the folder, which may not exist yet."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with held(folder.with_name(f".{folder.name}.lock"), folder):
        yield
