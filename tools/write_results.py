#!/usr/bin/env python3
"""Write the tables and figures of docs/results and the README's table of results from the records in docs/records.

.venv/bin/python tools/write_results.py          # writes
.venv/bin/python tools/write_results.py --check  # says whether what is written is what the records give
"""

import argparse
import json
import statistics
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from matcaps.experiments import gather, get_experiment, list_experiments, make_table
from matcaps.experiments.figures import draw_experiment
from matcaps.experiments.fold_figure import draw_folds
from matcaps.experiments.fold_records import Gathered, gather_folds
from matcaps.experiments.fold_table import make_fold_table
from matcaps.experiments.folds import FOLDS
from matcaps.experiments.routing_bench import ROUTINGS
from matcaps.experiments.routing_figure import draw_routings
from matcaps.experiments.routing_table import GatheredBench, gather_bench, make_routing_table
from matcaps.experiments.tables import distinct, markdown, spread
from matcaps.inspect.style import save_figure
from matcaps.training.record import RESULTS_NAME, SETTINGS_NAME, write_text

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- results: written by tools/write_results.py -->", "<!-- results: end -->"


def results_page(records: Path) -> str:
    """All experiments' tables, with their figures where there are any."""
    parts = [
        "# Results of the experiments",
        "Written by `tools/write_results.py` from the records in [docs/records](../records), which hold settings, "
        "metrics, command, commit, seed, machine and time of every run. `matcaps experiment NAME` runs what is "
        "missing, and `matcaps table NAME` writes the same tables from runs of your own. smallNORB is a JPEG copy "
        "here: the real photographs, but recompressed, some 2.3 grey levels off at 96 pixels; figures on it are not "
        "figures on the published files.",
    ]
    for name in list_experiments():
        experiment = get_experiment(name)
        gathered = gather(experiment, records)
        parts.append(make_table(experiment, gathered).rstrip())
        if draw_experiment(experiment, gathered) is not None:
            parts.append(f"![{experiment.title}]({name}.png)")
    recipes = fold_records(records)
    if recipes is not None:
        parts += [make_fold_table(recipes).rstrip(), f"![Objects left out, by recipe]({FOLDS}.png)"]
    bench = bench_records(records)
    if bench is not None:
        parts += [
            make_routing_table(bench).rstrip(),
            f"![Routings, on toys left out, and what they cost]({ROUTINGS}.png)",
        ]
    return "\n\n".join(parts) + "\n"


def bench_records(records: Path) -> GatheredBench | None:
    """The bench of routings; None if it was not run."""
    return gather_bench(records / ROUTINGS) if (records / ROUTINGS).is_dir() else None


def fold_records(records: Path) -> Gathered | None:
    """The recipes that were judged on left-out objects; None if none was."""
    return gather_folds([records / FOLDS]) if (records / FOLDS).is_dir() else None


def readme_table(records: Path) -> str:
    """One line for each training, its seeds together; of a data set those of most seeds first, then by error.

    A folder's ``note.md`` stands beside the figure: what a reader must know to take it for what it is.
    """
    trainings: dict[str, list[tuple[Path, dict[str, Any]]]] = {}
    for path in sorted(records.glob(f"*/{RESULTS_NAME}")) + sorted(records.glob(f"*/*/{RESULTS_NAME}")):
        settings = Path(path.parent, SETTINGS_NAME).read_text(encoding="utf-8")
        results = json.loads(path.read_text(encoding="utf-8"))
        if "rule: official" in settings and results["test"] is not None:  # others are not tested on all viewpoints
            folder = path.parent.relative_to(records)
            name = folder.as_posix().rpartition("-seed")[0] or folder.as_posix()
            trainings.setdefault(name, []).append((folder, results))
    order = {"smallnorb": 0, "mnist": 1}
    rows = []
    for name, runs in trainings.items():
        runs.sort(key=lambda run: run[1]["seed"])
        all_results = [results for _, results in runs]
        errors = [results["test"]["error_percent"] for results in all_results]
        cells = [
            name,
            "; ".join([f"{spread(errors)} %", *_notes(records / folder for folder, _ in runs)]),
            f"{all_results[0]['data']}, {all_results[0]['test']['num_images']:,}",
            str(all_results[0]["epochs"]),
            ", ".join(f"[{results['seed']}](docs/records/{folder.as_posix()})" for folder, results in runs),
            f"{statistics.mean(results['train_seconds'] for results in all_results) / 60:.0f}",
            distinct((results["commit"] or "–")[:7] for results in all_results),
        ]
        rows.append((order.get(all_results[0]["data"], 9), -len(runs), statistics.mean(errors), cells))
    rows.sort(key=lambda row: row[:3])
    header = ["training", "test error", "test images", "epochs", "seeds and their records", "minutes", "commit"]
    return markdown(header, [cells for *_, cells in rows])


def _notes(folders: Iterable[Path]) -> list[str]:
    paths = [folder / "note.md" for folder in folders]
    return list(dict.fromkeys(path.read_text(encoding="utf-8").strip() for path in paths if path.is_file()))


def with_table(readme: str, table: str) -> str:
    """The README with a table between the two marks."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{table}\n\n{END}{after}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail where something would change")
    check = parser.parse_args().check
    records, page, readme = ROOT / "docs" / "records", ROOT / "docs" / "results" / "README.md", ROOT / "README.md"
    wanted = {
        page: results_page(records),
        readme: with_table(readme.read_text(encoding="utf-8"), readme_table(records)),
    }
    stale = [path for path, text in wanted.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    if check:
        for path in stale:
            print(f"{path.relative_to(ROOT)} is not what the records give: run make results")
        return 1 if stale else 0
    page.parent.mkdir(parents=True, exist_ok=True)
    for path in stale:
        write_text(path, wanted[path])
    for name in list_experiments():
        experiment = get_experiment(name)
        if (figure := draw_experiment(experiment, gather(experiment, records))) is not None:
            save_figure(figure, page.parent / name)
    recipes = fold_records(records)
    if recipes is not None and (figure := draw_folds(recipes.recipes)) is not None:
        save_figure(figure, page.parent / FOLDS)
    bench = bench_records(records)
    if bench is not None and (figure := draw_routings(bench)) is not None:
        save_figure(figure, page.parent / ROUTINGS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
