"""The layout of a record, which stands once in Python and once in each language of kernels, is one."""

import re
from pathlib import Path

import pytest

from matcaps.routing import record
from matcaps.routing.cuda_launch import GRAD_RECORD

JOB = Path(__file__).parents[2] / "native" / "src" / "job.h"
CUDA = Path(record.__file__).parent / "cuda_kernels" / "common.cuh"


def constants(path: Path) -> dict[str, int]:
    """What ``kName = number`` says in a header; a name that is said twice must say the same."""
    values: dict[str, int] = {}
    for name, value in re.findall(r"\bk([A-Z]\w*) = (\d+)\b", path.read_text(encoding="utf-8")):
        assert values.setdefault(name, int(value)) == int(value), f"{path}: k{name} has two values"
    return values


def width(part: slice | int) -> tuple[int, int]:
    return (part.start, part.stop - part.start) if isinstance(part, slice) else (part, 1)


@pytest.mark.parametrize("header", [JOB, CUDA], ids=["native", "cuda"])
def test_kernels_have_the_layout_that_python_reads(header):
    if not header.is_file():
        pytest.skip("no sources here")
    there = constants(header)
    names = ("Mean", "Spread", "Mass", "Description", "Evidence")
    parts = {name: width(getattr(record, name.upper())) for name in names}
    assert {name: there[name] for name in parts} == {name: start for name, (start, _) in parts.items()}
    assert there["Record"] == record.RECORD
    taken = [place for start, count in parts.values() for place in range(start, start + count)]
    assert len(taken) == len(set(taken))
    assert max(taken) < record.RECORD


def test_gradients_of_records_have_the_size_that_python_allocates():
    assert constants(CUDA)["GradRecord"] == GRAD_RECORD
