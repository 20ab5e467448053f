#!/usr/bin/env python3
"""Write the tables and figures of docs/results and the README's table of results from the records in docs/records.

.venv/bin/python tools/write_results.py          # writes
.venv/bin/python tools/write_results.py --check  # says whether what is written is what the records give
"""

import argparse
import json
import sys
from pathlib import Path

from matcaps.experiments import gather, get_experiment, list_experiments, make_table
from matcaps.experiments.tables import markdown
from matcaps.training.record import RESULTS_NAME, write_text
from matcaps.viz.experiments import draw_experiment
from matcaps.viz.style import save_figure

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
        found = gather(experiment, records)
        parts.append(make_table(experiment, found).rstrip())
        if draw_experiment(experiment, found):
            parts.append(f"![{experiment.title}]({name}.png)")
    return "\n\n".join(parts) + "\n"


def readme_table(records: Path) -> str:
    """One line for each single run, the best of each data set first."""
    found = []
    for path in sorted(records.glob(f"*/{RESULTS_NAME}")) + sorted(records.glob(f"*/*/{RESULTS_NAME}")):
        results = json.loads(path.read_text(encoding="utf-8"))
        test = results["test"]
        split = Path(path.parent, "settings.yaml").read_text(encoding="utf-8")
        if "rule: official" in split:  # others are not tested on all viewpoints
            found.append((results["data"], test["error_percent"], results, path.parent.relative_to(records)))
    order = {"smallnorb": 0, "mnist": 1}
    rows = [
        [
            f"[{folder}](docs/records/{folder})",
            f"{error:.2f} %",
            f"{data}, {results['test']['num_images']:,}",
            str(results["epochs"]),
            str(results["seed"]),
            f"{results['train_seconds'] / 60:.0f}",
            (results["commit"] or "–")[:7],
        ]
        for data, error, results, folder in sorted(found, key=lambda one: (order.get(one[0], 9), one[1]))
    ]
    return markdown(["record", "test error", "test images", "epochs", "seed", "minutes", "commit"], rows)


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
        for figure_name, figure in draw_experiment(experiment, gather(experiment, records)).items():
            save_figure(figure, page.parent / figure_name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
