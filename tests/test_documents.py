"""What the documents say of results is what the records give."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.skipif(not (ROOT / "docs" / "records").is_dir(), reason="only a checkout has docs/records")
def test_tables_are_those_that_the_records_give():
    command = [sys.executable, ROOT / "tools" / "write_results.py", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(not (ROOT / "docs" / "records").is_dir(), reason="only a checkout has docs/records")
def test_records_name_no_path_of_a_machine():
    for path in (ROOT / "docs" / "records").rglob("*.*"):
        if path.suffix in (".json", ".yaml", ".md"):
            text = path.read_text(encoding="utf-8")
            found = re.search(r"(?<![^\s\"'(])(?:/\w[\w.-]*){2,}|\b[A-Z]:\\\\", text)
            assert found is None, f"{path} names {found[0]}"
