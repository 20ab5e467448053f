"""MNIST and Fashion-MNIST: idx files of 28×28 grey images."""

from pathlib import Path

import torch

from matcaps.data.dataset import ImageDataset
from matcaps.data.files import describe_origin, find_files, new_md5
from matcaps.data.idx import read_idx
from matcaps.data.sources import get_source

CLASSES = {
    "mnist": tuple("0123456789"),
    "fashion-mnist": (
        "T-shirt/top",
        "trouser",
        "pullover",
        "dress",
        "coat",
        "sandal",
        "shirt",
        "sneaker",
        "bag",
        "ankle boot",
    ),
}
"""The classes' names, by label."""


def load_mnist(root: str | Path | None, split: str, *, name: str = "mnist") -> ImageDataset:
    """MNIST, or a set in its format, from ``ROOT/<name>``.

    Args:
        root: see :func:`matcaps.data.data_root`.
        split: ``"train"`` or ``"test"``.
        name: ``"mnist"`` or ``"fashion-mnist"``.

    Returns:
        Images ``[N, 1, 28, 28]``; N is 60,000 or 10,000 in the published files.

    Raises:
        FileNotFoundError: files are missing; the message says how to get them.
        ValueError: a file is malformed.
    """
    prefix = {"train": "train", "test": "t10k"}[split]
    files = [file for file in get_source(name).files if file.name.startswith(prefix)]
    paths = find_files(name, files, root)
    digests = [new_md5() for _ in files]
    images, labels = (read_idx(path, digest=digest) for path, digest in zip(paths, digests, strict=True))
    images_path, labels_path = paths
    if images.ndim != 3 or images.dtype != "uint8" or images.shape[1:] != (28, 28):
        raise ValueError(
            f"{images_path} must hold uint8 images [N, 28, 28]; got {images.dtype} {list(images.shape)}: "
            "delete it and fetch it again"
        )
    if labels.dtype != "uint8" or labels.shape != images.shape[:1] or (len(labels) and labels.max() > 9):
        raise ValueError(
            f"{labels_path} must hold {len(images):,} uint8 labels from 0 to 9, one for each image; got "
            f"{labels.dtype} {list(labels.shape)}, at most {labels.max(initial=0)}: delete it and fetch it again"
        )
    md5s = [digest.hexdigest() for digest in digests]
    return ImageDataset(
        name=name,
        split=split,
        images=torch.tensor(images)[:, None],
        labels=torch.tensor(labels, dtype=torch.int64),
        classes=CLASSES[name],
        indices=torch.arange(len(images)),
        origin=describe_origin(f"{name} {split}", list(zip(files, paths, md5s, strict=True))),
    )
