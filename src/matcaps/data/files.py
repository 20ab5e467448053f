"""Find the files of a published set on disk, and check whether they are the published ones."""

import hashlib
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from matcaps._paths import named_errors
from matcaps.data.idx import DECOMPRESSION_ERRORS, is_gzip, open_maybe_gzip
from matcaps.data.roots import data_root
from matcaps.data.sources import DataFile, get_source

FileState = Literal["ok", "differs", "missing"]


@dataclass(frozen=True)
class FileStatus:
    """The status of one published file.

    Attributes:
        name: the published name.
        path: the local file, compressed or not; None if there is none.
        state: "ok" if it has the published contents, "differs" if not, "missing" if there is none.
        detail: an explanation.
    """

    name: str
    path: Path | None
    state: FileState
    detail: str


def find_file(folder: Path, file: DataFile) -> Path | None:
    """The file in the folder, compressed or not; None if neither is there."""
    for name in (file.content_name, file.name):
        if (folder / name).is_file():
            return folder / name
    return None


def missing_files(name: str, root: str | Path | None = None) -> list[str]:
    """The published files of a set that are not there, neither compressed nor not; reads none of them.

    Args:
        name: "mnist", "fashion-mnist" or "smallnorb".
        root: see :func:`matcaps.data.data_root`.

    Raises:
        ValueError: the name is unknown.
    """
    folder = data_root(root) / name
    return [file.name for file in get_source(name).files if find_file(folder, file) is None]


def find_files(name: str, files: list[DataFile], root: str | Path | None) -> list[Path]:
    """Where the files of a set are.

    Raises:
        FileNotFoundError: some are missing; the message says which, where they were looked for and how to get them.
    """
    folder = data_root(root) / name
    paths = [find_file(folder, file) for file in files]
    missing = [file.name for file, path in zip(files, paths, strict=True) if path is None]
    if missing:
        raise FileNotFoundError(
            f"{name} is not complete in {folder}: missing {', '.join(missing)} (uncompressed copies also count): "
            f"run `matcaps data fetch {name} --root {folder.parent}`, or give another root"
        )
    return [path for path in paths if path is not None]


def file_sha256(path: Path) -> str:
    """The sha256 of a file on disk, hexadecimal."""
    digest = hashlib.sha256()
    with named_errors(path), path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def new_md5() -> "hashlib._Hash":
    """An MD5 digest to compare with the published one; it guards against accidents, not against an attacker."""
    return hashlib.md5(usedforsecurity=False)


def content_md5(path: Path) -> str:
    """The md5 of a file's uncompressed contents, hexadecimal.

    Raises:
        ValueError: the compression is damaged.
    """
    digest = new_md5()
    try:
        with named_errors(path), open_maybe_gzip(path) as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
    except DECOMPRESSION_ERRORS as error:
        raise ValueError(f"its compression is damaged ({error})") from error
    return digest.hexdigest()


def check_file(folder: Path, file: DataFile) -> FileStatus:
    """Compare one file with the published one."""
    path = find_file(folder, file)
    if path is None:
        return FileStatus(file.name, None, "missing", f"not in {folder}")
    if is_gzip(path) and path.stat().st_size == file.size and file_sha256(path) == file.sha256:
        return FileStatus(file.name, path, "ok", "the published file")
    try:
        digest = content_md5(path)
    except ValueError as error:
        return FileStatus(file.name, path, "differs", str(error))
    if digest == file.content_md5:
        how = "the published contents, compressed again" if is_gzip(path) else "the published contents"
        return FileStatus(file.name, path, "ok", how)
    return FileStatus(file.name, path, "differs", f"md5 of the contents {digest}, published {file.content_md5}")


def verify(name: str, root: str | Path | None = None) -> list[FileStatus]:
    """Compare a set's files with the published ones; reads every byte.

    Args:
        name: "mnist", "fashion-mnist" or "smallnorb".
        root: see :func:`matcaps.data.data_root`.

    Returns:
        One status for each published file, in the published order.

    Raises:
        ValueError: the name is unknown.
    """
    source = get_source(name)
    folder = data_root(root) / name
    return [check_file(folder, file) for file in source.files]


def describe_origin(name: str, checks: list[tuple[DataFile, Path, str]]) -> str:
    """A line about the origin of images; warns about files that are not the published ones.

    Args:
        name: the set's name.
        checks: for each file read: the published one, the path, and the md5 of the contents just read.
    """
    folder = checks[0][1].parent
    different = [path.name for file, path, md5 in checks if md5 != file.content_md5]
    if not different:
        return f"{name} from {folder}: checksums as published"
    warnings.warn(
        f"{', '.join(different)} in {folder}: the checksum differs from the published one; the file is well formed "
        f"and is used as it is. Results on it are not results on the published {name}.",
        UserWarning,
        stacklevel=3,
    )
    return f"{name} from {folder}: checksums differ from the published ones for {', '.join(different)}"
