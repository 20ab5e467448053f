"""What the commands that run trials share: they list them, or bring them to their ends and say what came of each."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from matcaps.cli.parsing import PLAIN, err, out
from matcaps.experiments.plan import Experiment, Trial

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def list_trials(trials: Sequence[Trial], base: Path) -> int:
    """Print each trial's folder and title."""
    for trial in trials:
        out.print(f"{trial.folder(base)}: {trial.row.title}", **PLAIN)
    return 0


def carry_out(experiment: Experiment, trials: Sequence[Trial], base: Path) -> int:
    """Run the trials, print what came of them, and return the command's status."""
    from matcaps.cli.bar import StepsBar
    from matcaps.experiments.runner import run_trials
    from matcaps.training.progress import EpochLines

    def write(line: str) -> None:
        out.print(line, **PLAIN)

    with StepsBar() as bar:
        outcomes = run_trials(experiment, trials, base, callbacks=[EpochLines(write), bar], report=write)
    counts = {state: sum(outcome.state == state for outcome in outcomes) for state in ("done", "diverged", "busy")}
    out.print(", ".join(f"{count} {state}" for state, count in counts.items() if count), **PLAIN)
    if experiment.caveat:
        out.print(experiment.caveat, **PLAIN)
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
