"""What the commands with trials share: list the trials, or run them and print each outcome."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matcaps._paths import user_path
from matcaps.cli.parsing import PLAIN, add_accelerator, err, out
from matcaps.experiments.plan import Experiment, Trial, make_trials, parse_seeds, parse_shard

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace
    from matplotlib.figure import Figure

    from matcaps.experiments.runner import Outcome
    from matcaps.training.loop import Callback


def add_trial_options(parser: "ArgumentParser", folder: str, *, of: str, own: str, seeds: str = "0") -> None:
    """Give a command the options that say which trials run, where, and in which folder.

    Args:
        parser: the command's.
        folder: what the folder is where nothing is said.
        of: what is kept in it.
        own: how many epochs a training has where nothing is said.
        seeds: the seeds where nothing is said.
    """
    parser.add_argument("--seeds", type=str, default=seeds, help="seeds of the trainings, such as 0,1,2")
    parser.add_argument("--epochs", type=int | None, help=f"epochs of every training; default: {own}")
    parser.add_argument("--shard", type=str, default="1/1", help="k/n: the k-th of n parts of the trials, from 1")
    parser.add_argument("--folder", type=str, default=folder, help=f"folder of all {of}")
    parser.add_argument("--root", type=str | None, help="folder that holds the data sets")
    add_accelerator(parser, None)
    parser.add_argument("--list", action="store_true", help="print the trials and do nothing")


def run_or_list(experiment: Experiment, parsed: "Namespace", **chosen: Any) -> int:
    """Run the trials that the options above, and ``chosen``, say, or print each one's folder and title."""
    seeds, shard, base = parse_seeds(parsed.seeds), parse_shard(parsed.shard), user_path(parsed.folder)
    chosen |= {name: parsed[name] for name in ("epochs", "root", "accelerator")}
    trials = make_trials(experiment, seeds=seeds, shard=shard, **chosen)
    if not parsed.list:
        return _run(experiment, trials, base)
    for trial in trials:
        out.print(f"{trial.folder(base)}: {trial.row.title}", **PLAIN)
    return 0


def _run(experiment: Experiment, trials: Sequence[Trial], base: Path) -> int:
    """Run the trials, print their outcomes, and return the command's status."""
    from matcaps.experiments.runner import run_trials

    with epoch_lines() as callbacks:
        outcomes = run_trials(
            experiment, trials, base, callbacks=callbacks, report=lambda line: out.print(line, **PLAIN)
        )
    return conclude(outcomes, experiment.caveat)


@contextmanager
def epoch_lines() -> "Iterator[list[Callback]]":
    """Callbacks that print a line after each epoch, and bars of its steps where somebody looks on."""
    from matcaps.cli.steps import EpochSteps
    from matcaps.training.progress import EpochLines

    with EpochSteps() as steps:
        yield [EpochLines(lambda line: out.print(line, **PLAIN)), steps]


def conclude(outcomes: "Sequence[Outcome]", caveat: str = "") -> int:
    """Print how many trials are in which state, and return the command's status."""
    counts = {state: sum(outcome.state == state for outcome in outcomes) for state in ("done", "diverged", "busy")}
    out.print(", ".join(f"{count} {state}" for state, count in counts.items() if count), **PLAIN)
    if caveat:
        out.print(caveat, **PLAIN)
    return 1 if counts["diverged"] else 0


def write_table(folder: Path, name: str, text: str, figure: "Figure | None") -> None:
    """Print a table, write it and its figure, and say where they are."""
    from matcaps.inspect.style import save_figure
    from matcaps.training.record import write_text

    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / f"{name}.md", text)
    drawn = [] if figure is None else save_figure(figure, folder / name)
    print(text)
    for path in [folder / f"{name}.md", *drawn]:
        err.print(f"written: {path}", **PLAIN)
