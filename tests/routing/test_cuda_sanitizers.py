"""The sanitizers of ``make sanitize`` see what they are for: faults planted in copies of the CUDA kernels."""

import shutil
import subprocess

import pytest

from tests.support.cuda import COMPILER, edited_kernels
from tests.support.cuda.sanitize import sanitize
from tests.support.cuda_cases import needs_all

pytestmark = needs_all

ROUTING = "child competition, narrow"


@pytest.fixture
def check(tmp_path):
    """Compile with a fault and run; returns what went wrong."""

    def run(sanitizers: str, name: str, old: str, new: str) -> str:
        if not COMPILER:
            pytest.skip("no g++ or clang++ to compile the emulator of CUDA kernels with")
        (tmp_path / "empty.cpp").write_text("int main() { return 0; }")
        program = [COMPILER, f"-fsanitize={sanitizers}", str(tmp_path / "empty.cpp"), "-o", str(tmp_path / "empty")]
        if subprocess.run(program, capture_output=True).returncode != 0:
            pytest.skip(f"the compiler has no sanitizer of {sanitizers}")
        shutil.rmtree(tmp_path / "kernels", ignore_errors=True)
        kernels = edited_kernels(tmp_path / "kernels", {name: (old, new)})
        done = sanitize(ROUTING, sanitizers, tmp_path / "build", kernels)
        assert done.returncode != 0
        return done.stderr

    return run


def test_a_missing_barrier_is_a_race(check):
    """It remembers four accesses of a place, so that it sees a race of many threads in most runs, not in all."""
    fault = ("  synchronise();\n  activate(a, block, t);", "  activate(a, block, t);")
    assert any("ThreadSanitizer: data race" in check("thread", "forward.cuh", *fault) for _ in range(5))


def test_reading_global_memory_beyond_its_end_is_seen(check):
    fault = ("a.beta_use[parent]", "a.beta_use[parent + 1]")
    assert "AddressSanitizer: heap-buffer-overflow" in check("address,undefined", "forward.cuh", *fault)


def test_writing_shared_memory_beyond_its_end_is_seen(check):
    fault = ("+ which * (kBlockWindows", "+ (which + 1) * (kBlockWindows")
    assert "AddressSanitizer: heap-buffer-overflow" in check("address,undefined", "common.cuh", *fault)
