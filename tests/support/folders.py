"""Folders of images, and tables beside them."""

import csv
from pathlib import Path

import numpy as np
from PIL import Image


def make_folder(base: Path, images: dict[str, int], parts: str = "") -> list[str]:
    """So many different images in each class's folder; returns their paths in the folder."""
    random, names = np.random.default_rng(len(images)), []
    for name, count in images.items():
        for number in range(count):
            path = base / parts / name / f"{name}{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(0, 256, (8, 8), dtype=np.uint8)).save(path)
            names.append(path.relative_to(base).as_posix())
    return names


def write_table(path: Path, rows, header=("file", "group"), delimiter=",", encoding="utf-8") -> Path:
    with path.open("w", newline="", encoding=encoding) as file:
        csv.writer(file, delimiter=delimiter).writerows([header, *rows] if header else rows)
    return path
