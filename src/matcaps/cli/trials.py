"""What the commands that run trials share: they list them, or bring them to their ends and say what came of each."""

from collections.abc import Sequence
from pathlib import Path

from matcaps.cli.parsing import PLAIN, out
from matcaps.experiments.plan import Experiment, Trial


def list_trials(trials: Sequence[Trial], base: Path) -> int:
    """Print each trial's folder and title."""
    for trial in trials:
        out.print(f"{trial.folder(base)}: {trial.row.title}", **PLAIN)
    return 0


def carry_out(experiment: Experiment, trials: Sequence[Trial], base: Path) -> int:
    """Run the trials, print what came of them, and return the command's status."""
    from matcaps.cli.steps import EpochSteps
    from matcaps.experiments.runner import run_trials
    from matcaps.training.progress import EpochLines

    def write(line: str) -> None:
        out.print(line, **PLAIN)

    with EpochSteps() as steps:
        outcomes = run_trials(experiment, trials, base, callbacks=[EpochLines(write), steps], report=write)
    counts = {state: sum(outcome.state == state for outcome in outcomes) for state in ("done", "diverged", "busy")}
    out.print(", ".join(f"{count} {state}" for state, count in counts.items() if count), **PLAIN)
    if experiment.caveat:
        out.print(experiment.caveat, **PLAIN)
    return 1 if counts["diverged"] else 0
