"""Settings of a recipe searched by Optuna: each trial is judged by the log-loss on objects that it never trained on.

A trial trains the folds of :func:`matcaps.experiments.fold_experiment`, one after the other; their mean log-loss is
what the search makes small. The test part stays closed. The study is a journal in the sweep's folder, so that several
processes, also of several machines, work on it, and any of them can be killed.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from matcaps._numbers import is_finite
from matcaps._paths import named_errors
from matcaps._progress import watched
from matcaps.experiments.folds import fold_experiment
from matcaps.experiments.plan import make_trials
from matcaps.experiments.records import held_out_log_loss
from matcaps.experiments.runner import run_trials
from matcaps.training.folder import RunBusyError, held
from matcaps.training.loop import Callback
from matcaps.training.record import write_json
from matcaps.training.settings import TrainSettings
from matcaps.training.yaml_files import read_yaml

try:
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend
except ImportError as error:
    raise ImportError('a sweep needs Optuna: pip install "matcaps[sweep]"') from error

JOURNAL_NAME = "journal.log"
BEST_NAME = "sweep.json"
_DIGITS = 4
"""Of a number that is tried: enough to find it again, few enough to read."""

_RUNNING, _DONE = optuna.trial.TrialState.RUNNING, optuna.trial.TrialState.COMPLETE

Say = Callable[[str], None]


@dataclass(frozen=True)
class Choice:
    """A setting that is one of some values."""

    values: tuple[bool | int | float | str, ...]

    def suggest(self, trial: optuna.Trial, name: str) -> bool | int | float | str:
        """A value to try."""
        return self.values[self.values.index(trial.suggest_categorical(name, self.values))]


@dataclass(frozen=True)
class Range:
    """A number from ``low`` to ``high``, both included: whole if both are; on a logarithmic scale if ``log``."""

    low: int | float
    high: int | float
    log: bool = False

    def suggest(self, trial: optuna.Trial, name: str) -> int | float:
        """A value to try, of few digits."""
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(name, self.low, self.high, log=self.log)
        value = trial.suggest_float(name, self.low, self.high, log=self.log)
        return min(max(float(f"{value:.{_DIGITS}g}"), self.low), self.high)


Space = Mapping[str, Choice | Range]
"""What is tried, by the setting's full name."""


def read_space(path: Path) -> Space:
    """Read a YAML file of settings to search.

    Args:
        path: a line each: ``optimizer.learning_rate: {low: 0.001, high: 0.1, log: true}`` or
            ``loss.name: [spread, cross-entropy]``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds something else.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}: give a YAML file of settings to search; docs/sweeps.md has one")
    entries = read_yaml(path)
    if not isinstance(entries, dict) or not entries:
        raise ValueError(f"{path} must have a line for each setting, such as loss.name: [spread, cross-entropy]")
    return {str(name): _read_entry(str(name), entry) for name, entry in entries.items()}


def _read_entry(name: str, entry: Any) -> Choice | Range:
    if isinstance(entry, list):
        if len(entry) < 2 or not all(isinstance(value, bool | int | float | str) for value in entry):
            raise ValueError(f"{name} must have two values or more, words or numbers; got {entry}")
        return Choice(tuple(entry))
    if not isinstance(entry, dict) or not {"low", "high"} <= entry.keys() <= {"low", "high", "log"}:
        raise ValueError(
            f"{name} must be a list of values, or low and high with log if wanted; got {entry!r}: for example "
            "{low: 0.001, high: 0.1, log: true}"
        )
    low, high, log = entry["low"], entry["high"], entry.get("log", False)
    for bound in (low, high):
        if isinstance(bound, bool) or not isinstance(bound, int | float) or not is_finite(bound):
            hint = ": YAML wants a dot in it, 1.0e-3" if isinstance(bound, str) else ""
            raise ValueError(f"{name} must have numbers as low and high; got {bound!r}{hint}")
    if not isinstance(log, bool):
        raise ValueError(f"log of {name} must be true or false; got {log!r}")
    if not low < high or (log and low <= 0):
        above = " and above 0, for a logarithmic scale" if log else ""
        raise ValueError(f"{name} must have low below high{above}; got {low} and {high}")
    return Range(low, high, log)


@dataclass(frozen=True)
class Sweep:
    """What is searched, and how each trial is judged.

    Attributes:
        name: of its folder, and of Optuna's study.
        folder: where its journal and its trainings lie.
        space: what is tried.
        settings: makes the settings of the values that are tried.
        recipe_name: makes a folder's name of them.
        seeds: of the trainings of each fold.
        epochs: of every training; None: the recipe's.
        groups: for a folder of images; see :func:`matcaps.experiments.fold_experiment`.
        folds: for such a folder how many.
        root: folder that holds the data sets.
        accelerator: what trains; None: as the recipe says.
        begun_with: what must not be changed while it lasts, beside the above: the recipe's settings.
    """

    name: str
    folder: Path
    space: Space
    settings: Callable[[Mapping[str, Any]], TrainSettings]
    recipe_name: Callable[[Mapping[str, Any]], str]
    seeds: Sequence[int] = (0,)
    epochs: int | None = None
    groups: str | None = None
    folds: int | None = None
    root: str | None = None
    accelerator: Any = None
    begun_with: Mapping[str, Any] | None = None


def open_study(sweep: Sweep) -> optuna.Study:
    """The sweep's study, begun or gone on with.

    Raises:
        ValueError: what is there was begun with another space, recipe, epochs or seeds.
    """
    sweep.folder.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    own = {
        "space": {name: repr(entry) for name, entry in sweep.space.items()},
        "epochs": sweep.epochs,
        "seeds": list(sweep.seeds),
        "groups": sweep.groups,
        "folds": sweep.folds,
        "settings": dict(sweep.begun_with or {}),
    }
    own = json.loads(json.dumps(own))
    with journal_named(sweep.folder), _alone(sweep):
        study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(sweep.folder / JOURNAL_NAME))),
            study_name=sweep.name,
            direction="minimize",
            pruner=optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=0),
            load_if_exists=True,
        )
        begun = study.user_attrs.get("matcaps")
        if begun is None:
            study.set_user_attr("matcaps", own)
        elif begun != own:
            names = ", ".join(name for name in own if begun.get(name) != own[name])
            raise ValueError(
                f"{sweep.folder} holds a sweep that was begun with other {names}: give another --name, or go on with "
                "it as it was"
            )
    return study


def run_sweep(
    sweep: Sweep,
    num_trials: int,
    *,
    seed: int = 0,
    callbacks: Sequence[Callback] = (),
    say: Say = lambda line: None,
) -> optuna.Study:
    """Try settings until the study has so many trials, those of other processes counted; return the study.

    What another process left behind when it was killed is gone on with first.

    Args:
        sweep: what is searched.
        num_trials: of the study, with those that are done.
        seed: of what is suggested; the same history and seed give the same suggestion.
        callbacks: called while networks train.
        say: takes a line about each trial.

    Raises:
        FileNotFoundError: data are missing.
        ValueError: the study was begun with something else, or settings and data do not fit.
    """
    study = open_study(sweep)
    tried_here: set[int] = set()
    with journal_named(sweep.folder):
        while True:
            with _alone(sweep):
                trial = _left_behind(study, sweep, tried_here) or _new(study, num_trials, seed)
            if trial is None:
                _write_best(study, sweep)  # a process may have ended between the last trial and this
                return study
            tried_here.add(trial.number)
            try:
                with held(_lock_of(sweep, trial.number), sweep.folder / f"trial {trial.number}"):
                    _judge(study, trial, sweep, num_trials, callbacks, say)
            except RunBusyError:  # its own process was quicker to come back
                continue
            _write_best(study, sweep)


def _new(study: optuna.Study, num_trials: int, seed: int) -> optuna.Trial | None:
    there = len(study.get_trials(deepcopy=False))
    if there >= num_trials:
        return None
    # a generator of its own for each number: a process that comes back, or another one, repeats nobody's suggestion
    study.sampler = optuna.samplers.TPESampler(seed=(seed * 1_000_003 + there) % 2**32, n_startup_trials=8)
    return study.ask()


def _left_behind(study: optuna.Study, sweep: Sweep, tried_here: set[int]) -> optuna.Trial | None:
    """A trial whose process is gone: its lock is free."""
    for frozen in study.get_trials(deepcopy=False, states=(_RUNNING,)):
        if frozen.number in tried_here:
            continue
        try:
            with held(_lock_of(sweep, frozen.number), sweep.folder):
                return optuna.Trial(study, frozen._trial_id)
        except RunBusyError:
            continue
    return None


def _judge(
    study: optuna.Study, trial: optuna.Trial, sweep: Sweep, num_trials: int, callbacks: Sequence[Callback], say: Say
) -> None:
    """Train a trial's folds, and tell the study what came of them."""
    values = {name: entry.suggest(trial, name) for name, entry in sweep.space.items()}
    say(f"trial {trial.number + 1} of {num_trials}: {', '.join(f'{name}={value}' for name, value in values.items())}")
    name = sweep.recipe_name(values)
    trial.set_user_attr("folder", name)
    trial.set_user_attr("values", values)
    experiment = fold_experiment(name, sweep.settings(values), groups=sweep.groups, count=sweep.folds)
    trainings = make_trials(
        experiment, seeds=sweep.seeds, epochs=sweep.epochs, root=sweep.root, accelerator=sweep.accelerator
    )
    reported = study.get_trials(deepcopy=False)[trial.number].intermediate_values
    losses: list[float] = []
    for number, training in enumerate(watched(trainings, "folds")):
        (outcome,) = run_trials(experiment, [training], sweep.folder, callbacks=callbacks)
        if outcome.state != "done":
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            say(f"trial {trial.number + 1}: {outcome.state}: {outcome.detail}")
            return
        losses.append(held_out_log_loss(training.training_folder(sweep.folder)))
        mean = sum(losses) / len(losses)
        if number not in reported:
            trial.report(mean, number)
        if number + 1 < len(trainings) and trial.should_prune():
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            say(f"trial {trial.number + 1}: given up after {len(losses)} of {len(trainings)} trainings: {mean:.4f}")
            return
    study.tell(trial, sum(losses) / len(losses))
    best = study.best_trial
    say(
        f"trial {trial.number + 1}: log-loss {sum(losses) / len(losses):.4f} on objects left out; the best so far "
        f"{best.value:.4f}, trial {best.number + 1}"
    )


def _write_best(study: optuna.Study, sweep: Sweep) -> None:
    """Note the best trial in a file, for people and programs."""
    if not study.get_trials(deepcopy=False, states=(_DONE,)):
        return
    best = study.best_trial
    states = [frozen.state.name.lower() for frozen in study.get_trials(deepcopy=False)]
    with _alone(sweep):
        write_json(
            sweep.folder / BEST_NAME,
            {
                "best": best.user_attrs["values"],
                "log_loss": best.value,
                "trial": best.number + 1,
                "trainings": best.user_attrs["folder"],
                "trials": {state: states.count(state) for state in sorted(set(states))},
                "looked_at_test_part": False,
            },
        )


def _lock_of(sweep: Sweep, number: int) -> Path:
    return sweep.folder / f".trial{number}.lock"


@contextmanager
def journal_named(folder: Path) -> Iterator[None]:
    """Let errors about Optuna's journal in a sweep's folder name it, for whatever asks a study, since each question
    reads it; of a lock that could not be given back Optuna makes a RuntimeError.
    """
    with named_errors(folder / JOURNAL_NAME):
        try:
            yield
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


@contextmanager
def _alone(sweep: Sweep) -> Iterator[None]:
    """One process at a time counts and asks, so that no trial is one too many."""
    lock = FileLock(sweep.folder / ".study.lock")
    try:
        lock.acquire(timeout=120)
    except (NotImplementedError, OSError) as error:
        if isinstance(error, TimeoutError):
            raise
    try:
        yield
    finally:
        lock.release()
