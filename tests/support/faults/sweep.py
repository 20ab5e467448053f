"""Have each call of a command fail in turn, and judge what it says, what it leaves, and what comes of it afterwards."""

import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tests.support.faults.files import contents, read, results
from tests.support.faults.scenarios import Scenario
from tests.support.faults.server import Ended, Server
from tests.support.faults.shim import FAULTS, LOOK, Fault


class Sweep:
    """One command and one fault.

    Args:
        server: runs it.
        scenario: what is run.
        fault: of :data:`FAULTS`.
        base: a folder for this sweep alone.

    Attributes:
        calls: the calls that can fail, in an undisturbed run.
        resumed: how often it was continued; what was left is continued once if it was left the same before.
    """

    def __init__(self, server: Server, scenario: Scenario, fault: str, base: Path):
        self.server, self.scenario, self.name, self.fault = server, scenario, fault, FAULTS[fault]
        self._template, self._trial = base / "template", base / "trial"
        self._template.mkdir(parents=True)
        scenario.prepare(server, self._template)
        shutil.copytree(self._template, self._trial)  # in one place with the trials, whose settings may name it
        ended = server.run(scenario.arguments, self._trial, fault)
        assert ended.status == 0, ended.errors
        self.calls = ended.calls
        self._output = _printed(ended)
        self._before, self._whole = contents(self._template / "run"), contents(self._trial / "run")
        self._continued: dict[str, list[str]] = {}

    @property
    def resumed(self) -> int:
        return len(self._continued)

    def run(self, numbers: Iterable[int], tell: Callable[[str], None] = lambda line: None) -> list[str]:
        """Have each of these calls fail, from 1; return what was wrong."""
        wrong = []
        for number in numbers:
            for problem in self._try(number):
                wrong.append(f"{self.name} at {number}: {problem}")
                tell(wrong[-1])
        return wrong

    def _try(self, number: int) -> list[str]:
        place = self._trial
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(self._template, place)
        ended = self.server.run(self.scenario.arguments, place, self.name, number)
        hit = next((line for line in ended.calls if line.endswith(" !")), None)
        if hit is None:  # TensorBoard's thread may be a call behind
            return [] if ended.status == 0 else [f"it ended with {ended.status} and met nothing: {ended.errors}"]
        problems = [*self._of_its_words(ended), *self._of_its_files(place / "run", done=ended.status == 0)]
        if ended.status == 0:
            if self.scenario.reads_alone and _printed(ended) != self._output:
                problems.append(f"it ended well, but printed something else: {ended.output!r}")
            if not self.scenario.reads_alone and not self.scenario.goes_without:
                problems += self._differences(place / "run", "it ended well")
        else:
            problems += self._of_what_follows(place)
        return [f"{hit}: {problem}" for problem in problems]

    def _of_its_words(self, ended: Ended) -> list[str]:
        problems, fault = [], self.fault
        if ended.status not in (0, 1):
            problems.append(f"the status is {ended.status}")
        if any(mark in ended.errors for mark in ("Traceback", "Exception ignored", "Error in atexit")):
            problems.append(f"a traceback: {ended.errors}")
        lines = [line for line in ended.errors.splitlines() if not line.startswith("matcaps 0.")]
        if ended.status == 1:
            if fault.harmless:
                problems.append(f"it did not survive: {ended.errors.strip()!r}")
            elif len(lines) != 1 or not _is_clear(lines[0], fault):
                problems.append(f"no clear line: {lines}")
        return problems

    def _of_its_files(self, folder: Path, *, done: bool) -> list[str]:
        problems = []
        for path in results(folder):
            try:
                read(path)
            except Exception as error:
                problems.append(f"{path.relative_to(folder)} is not whole: {type(error).__name__}: {error}")
        if self.scenario.in_one and not self.fault.lasting and contents(folder) not in (self._before, self._whole):
            problems.append("some of the files are the new ones, not all")
        if done:
            problems += [f"{path.relative_to(folder)} stays" for path in folder.rglob("*.partial")]
        return problems

    def _of_what_follows(self, place: Path) -> list[str]:
        """Continue it; the same state is continued only once."""
        try:
            state = repr([(name, _shape(value)) for name, value in sorted(contents(place / "run").items())])
        except Exception:
            state = ""
        if state and state in self._continued:
            return self._continued[state]
        ended = self.server.run(self.scenario.after(place), place)
        if ended.status != 0:
            found = [f"it cannot be continued: {ended.errors.strip()!r}"]
        elif self.scenario.reads_alone:
            found = []
        else:
            found = self._differences(place / "run", "continued")
            found += [f"{path.relative_to(place)} stays" for path in place.rglob("*.partial")]
        self._continued[state] = found
        return found

    def _differences(self, folder: Path, when: str) -> list[str]:
        try:
            found = contents(folder)
        except Exception as error:
            return [f"{when}: {error!r}"]
        names = found.keys() | self._whole.keys()
        other = [name for name in names if found.get(name) != self._whole.get(name)]
        other = [name for name in other if not name.endswith("within-epoch.ckpt")]  # a resumed run writes fewer
        return [f"{when}, but {', '.join(sorted(other))} differ"] if other else []


def _is_clear(line: str, fault: Fault) -> bool:
    """Whether a line says where, what, and what to do; of a look that failed, only what is missing then."""
    if fault.calls == LOOK:
        return line.startswith("matcaps ") and "run" in line
    said = os.strerror(fault.error)
    if " could not be classified: " in line:  # images that cannot be read are named, the others are classified
        return line.endswith(said)
    return line.startswith("matcaps ") and "run" in line and said + ": " in line


def _printed(ended: Ended) -> str:
    return "\n".join(line for line in ended.output.splitlines() if "images a second" not in line)


def _shape(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)
