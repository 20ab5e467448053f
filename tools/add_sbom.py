#!/usr/bin/env python3
"""Put a list of a wheel's dependencies (SBOM, CycloneDX) into it, where PEP 770 has it: ``.dist-info/sboms/``.

    python tools/add_sbom.py build/sbom.json dist/*.whl

scikit-build-core (1.1) has no option for it. The wheel's RECORD gets its line; all else stays as it was built.
"""

import base64
import hashlib
import json
import os
import sys
import zipfile
from pathlib import Path

NAME = "matcaps.cdx.json"


def add_sbom(wheel: Path, sbom: bytes) -> str:
    """Add the file, or replace it; return its name in the wheel."""
    partial = wheel.with_name(wheel.name + ".partial")
    with zipfile.ZipFile(wheel) as before, zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as after:
        (record,) = (one for one in before.namelist() if one.endswith(".dist-info/RECORD"))
        name = record.removesuffix("RECORD") + f"sboms/{NAME}"
        for entry in before.infolist():
            if entry.filename not in (name, record):
                after.writestr(entry, before.read(entry))
        digest = base64.urlsafe_b64encode(hashlib.sha256(sbom).digest()).rstrip(b"=").decode()
        lines = [line for line in before.read(record).decode().splitlines() if not line.startswith(f"{name},")]
        own = [f"{name},sha256={digest},{len(sbom)}"]
        stamp = before.getinfo(record).date_time
        after.writestr(_entry(name, stamp), sbom)
        after.writestr(_entry(record, stamp), "\n".join(lines[:-1] + own + lines[-1:]) + "\n")
    os.replace(partial, wheel)
    return name


def _entry(name: str, stamp: tuple[int, int, int, int, int, int]) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, stamp)
    entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
    return entry


def main() -> None:
    sbom = Path(sys.argv[1]).read_bytes()
    described = json.loads(sbom)
    assert described["bomFormat"] == "CycloneDX", f"{sys.argv[1]} is no CycloneDX"
    for wheel in map(Path, sys.argv[2:]):
        print(f"{wheel.name}: {add_sbom(wheel, sbom)}, {len(described['components'])} components")


if __name__ == "__main__":
    main()
