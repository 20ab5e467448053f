#!/usr/bin/env python3
"""Make the slice of Fashion-MNIST that comes with matcaps; the same source gives the same bytes.

    python tools/make_embedded_slice.py --source FOLDER [--output FOLDER]

FOLDER holds Fashion-MNIST's four original files, compressed or not. The Debian package ``dataset-fashion-mnist``
installs them under /usr/share/datasets; ``matcaps data fetch fashion-mnist`` brings them too.
"""

import argparse
import hashlib
from pathlib import Path

import numpy as np

from matcaps.data.embedded import FOLDER, PARTS
from matcaps.data.files import content_md5, find_file
from matcaps.data.idx import read_idx, write_idx
from matcaps.data.random import make_keys
from matcaps.data.sources import get_source

SEED = 2018
COUNTS = {"train": 5_000, "test": 1_000}
PREFIXES = {"train": "train", "test": "t10k"}


def read_official(source: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The official images and labels by split, after a check of their checksums."""
    paths = {}
    for file in get_source("fashion-mnist").files:
        path = find_file(source, file)
        if path is None:
            raise SystemExit(f"{source} must hold {file.name} or {file.content_name}; it holds neither")
        if content_md5(path) != file.content_md5:
            raise SystemExit(f"{path} is not the published file: its checksum differs")
        paths[file.content_name] = path
    return {
        split: (
            read_idx(paths[f"{prefix}-images-idx3-ubyte"]),
            read_idx(paths[f"{prefix}-labels-idx1-ubyte"]),
        )
        for split, prefix in PREFIXES.items()
    }


def choose(labels: np.ndarray, allowed: np.ndarray, count: int) -> np.ndarray:
    """Of each class the ``count / 10`` allowed images with the smallest keys; positions in ascending order."""
    keys = make_keys(SEED, 0, np.arange(len(labels)))
    chosen = []
    for label in range(10):
        members = np.flatnonzero((labels == label) & allowed)
        chosen.append(members[np.argsort(keys[members], kind="stable")[: count // 10]])
    return np.sort(np.concatenate(chosen))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True, help="folder with Fashion-MNIST's four files")
    parser.add_argument("--output", type=Path, default=FOLDER, help="folder to write to")
    arguments = parser.parse_args()
    official = read_official(arguments.source)
    # A training picture that is, pixel for pixel, also a test picture would be a leak.
    tests = {image.tobytes() for image in official["test"][0]}
    arguments.output.mkdir(parents=True, exist_ok=True)
    total = 0
    for split, (images, labels) in official.items():
        repeated = np.array([split == "train" and image.tobytes() in tests for image in images])
        chosen = choose(labels, ~repeated, COUNTS[split])
        print(f"{split}: {len(chosen):,} images; {repeated.sum()} equal to a test image were passed over")
        for part, array in zip(PARTS, (images[chosen], labels[chosen], chosen.astype(np.int32)), strict=True):
            path = arguments.output / f"{split}-{part}"
            write_idx(path, array)
            total += path.stat().st_size
            print(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.stat().st_size:>9,}  {path.name}")
    print(f"{total:,} bytes")


if __name__ == "__main__":
    main()
