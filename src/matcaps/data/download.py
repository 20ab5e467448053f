"""Download published files: several mirrors, resumed after an interruption, checked, and put in place in one step."""

import errno
import http.client
import os
import urllib.error
import urllib.request
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from matcaps._paths import named_errors
from matcaps.data.files import FileStatus, check_file, file_sha256, new_md5
from matcaps.data.roots import data_root
from matcaps.data.sources import Archive, DataFile, DataSource, get_source

Progress = Callable[[str, int, int], None]
"""Called with a file's name, the bytes there so far and the bytes in all (0: unknown), after every piece."""

TIMEOUT = 30.0
"""Seconds without an answer, or without a further byte, before the next mirror is tried."""

_CHUNK = 1 << 17
_ATTEMPTS = 5


class DownloadError(OSError):
    """A file could not be downloaded from any mirror; the message gives every mirror's failure."""


class _MirrorError(Exception):
    """One mirror did not give the file."""


class _BrokenOffError(_MirrorError):
    """The connection broke before the end; the bytes received are kept."""


_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EFBIG, errno.EIO)
_FAILURES = (_MirrorError, OSError, http.client.HTTPException, zipfile.BadZipFile, zlib.error, EOFError)


def fetch(
    name: str,
    root: str | Path | None = None,
    *,
    progress: Progress | None = None,
    replace_different: bool = False,
    source: DataSource | None = None,
) -> list[FileStatus]:
    """Download the files of a published set that are missing into ``ROOT/<name>``.

    Each file is written to ``<file>.partial`` and, once its checksum agrees, renamed: an interrupted download leaves
    no half file under the real name, and goes on from there at the next call. Mirrors are tried in order. A file that
    exists is never changed, unless it differs and ``replace_different`` is set.

    Args:
        name: "mnist", "fashion-mnist" or "smallnorb".
        root: see :func:`matcaps.data.data_root`; made if it does not exist.
        progress: told how far each file is.
        replace_different: also download files that are there but differ from the published ones. Without it they
            stay, with a warning.
        source: where to get the set from, if not from the published mirrors.

    Returns:
        The status of every file, now that all are there.

    Raises:
        DownloadError: a file could not be downloaded from any mirror. Call it again to resume.
        ValueError: the name is unknown.
    """
    source = source or get_source(name)
    folder = data_root(root) / source.name
    folder.mkdir(parents=True, exist_ok=True)
    archives: set[Path] = set()
    for file in source.files:
        status = check_file(folder, file)
        if status.state == "ok":
            continue
        if status.state == "differs" and not replace_different:
            warnings.warn(
                f"{status.path} is not the published file ({status.detail}) and stays as it is: "
                "delete it, or fetch with replace_different, to have it replaced",
                UserWarning,
                stacklevel=2,
            )
            continue
        archives |= _download_file(folder, file, progress or (lambda *_: None))
        downloaded = folder / file.name
        if status.path is not None and status.path != downloaded and downloaded.is_file():  # else it was just replaced
            status.path.unlink()  # the differing uncompressed copy would be found first
    for archive in archives:
        archive.unlink(missing_ok=True)
    return [check_file(folder, file) for file in source.files]


def _download_file(folder: Path, file: DataFile, progress: Progress) -> set[Path]:
    """Download one file from the first mirror that has it; returns archives to delete at the end."""
    failures = []
    for url in file.urls:
        try:
            _download_checked(url, folder, file, progress)
            return set()
        except _FAILURES as error:
            _raise_if_here(error, folder)
            failures.append(f"{url}: {_reason(error)}")
    if file.archive is not None:
        try:
            return {_extract_from_archive(folder, file, file.archive, progress)}
        except _FAILURES as error:
            _raise_if_here(error, folder)
            # A zip file that did not serve once will not serve the next time.
            (folder / file.archive.name).unlink(missing_ok=True)
            failures.append(f"{file.archive.url}: {_reason(error)}")
    raise DownloadError(
        f"{file.name} could not be downloaded from any mirror:\n  "
        + "\n  ".join(failures)
        + f"\nTry again later (what has arrived is kept), or put the file in {folder} yourself"
    )


def _raise_if_here(error: Exception, folder: Path) -> None:
    """Raise errors of the local disk (full, or not writable), for which no other mirror would help."""
    if isinstance(error, OSError) and error.errno in _OF_THE_DISK:
        raise OSError(error.errno, os.strerror(error.errno), error.filename or str(folder)) from error


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answered {error.code} {error.reason}"
    if isinstance(error, urllib.error.URLError):
        return f"not reached ({error.reason})"
    return str(error) or type(error).__name__


def _download_checked(url: str, folder: Path, file: DataFile, progress: Progress) -> None:
    partial = folder / f"{file.name}.partial"
    resumed = _size(partial) > 0

    def attempt() -> None:
        _download_patiently(url, partial, file.size, lambda done: progress(file.name, done, file.size))
        _expect_checksum(partial, file)

    try:
        attempt()
    except _MirrorError as error:
        if not resumed or isinstance(error, _BrokenOffError):
            raise
        # the bytes from an earlier attempt may be wrong: try once more from the start
        partial.unlink(missing_ok=True)
        attempt()
    os.replace(partial, folder / file.name)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _remove_link(partial: Path) -> None:
    """A link in a folder that came from somebody else would have a file anywhere written over."""
    if partial.is_symlink():
        with named_errors(partial):
            partial.unlink()


def _download_patiently(url: str, partial: Path, limit: int, report: Callable[[int], None]) -> None:
    """Download; after a broken connection resume, as long as each attempt adds bytes."""
    _remove_link(partial)
    for attempts_left in reversed(range(_ATTEMPTS)):
        before = _size(partial)
        try:
            return _download(url, partial, limit, report)
        except _BrokenOffError:
            if not attempts_left or _size(partial) <= before:
                raise


def _expect_checksum(partial: Path, file: DataFile) -> None:
    size, digest = partial.stat().st_size, file_sha256(partial)
    if size == file.size and digest == file.sha256:
        return
    partial.unlink()
    raise _MirrorError(f"expected {file.size:,} bytes with sha256 {file.sha256}, got {size:,} with {digest}")


def _download(url: str, partial: Path, limit: int, report: Callable[[int], None]) -> None:
    """Append the missing bytes to ``partial``; if the server cannot start in the middle, start again.

    Raises:
        _BrokenOffError: the body breaks off.
        _MirrorError: the body is longer than ``limit`` bytes, or shorter than the existing part.
    """
    have = _size(partial)
    if have >= limit:
        return
    # A compressed transfer would change the bytes that are counted and checked.
    headers = {"User-Agent": "matcaps", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and have:
            partial.unlink()
            raise _MirrorError("it has fewer bytes than an earlier attempt left") from None
        raise
    with response:
        if response.status != 206 or not _starts_at(response.headers.get("Content-Range", ""), have):
            have = 0
        expected = response.headers.get("Content-Length")
        with named_errors(partial), partial.open("ab" if have else "wb") as target:
            done = start = have
            report(done)
            for chunk in _chunks(response):
                done += len(chunk)
                if done > limit:
                    break
                target.write(chunk)
                report(done)
    if done > limit:
        partial.unlink()
        raise _MirrorError(f"expected at most {limit:,} bytes, got more")
    if expected is not None and done - start < int(expected):
        raise _BrokenOffError(f"it broke off after {done:,} of {start + int(expected):,} bytes")


def _chunks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    while True:
        try:
            chunk = response.read1(_CHUNK)
        except (OSError, http.client.HTTPException) as error:
            raise _BrokenOffError(f"it broke off ({error or type(error).__name__})") from error
        if not chunk:
            return
        yield chunk


def _starts_at(content_range: str, have: int) -> bool:
    return content_range.startswith(f"bytes {have}-")


def _extract_from_archive(folder: Path, file: DataFile, archive: Archive, progress: Progress) -> Path:
    """Take one file's contents out of a zip file, which is downloaded first if it is not there yet."""
    path, partial = folder / archive.name, folder / f"{archive.name}.partial"
    if not path.exists():
        _download_patiently(archive.url, partial, archive.size_limit, lambda done: progress(archive.name, done, 0))
        if not zipfile.is_zipfile(partial):
            partial.unlink()
            raise _MirrorError("the download is not a zip file")
        os.replace(partial, path)
    target = folder / f"{file.content_name}.partial"
    _remove_link(target)
    with zipfile.ZipFile(path) as archived:
        names = [name for name in archived.namelist() if Path(name).name == file.content_name]
        if not names:
            raise _MirrorError(f"the zip file does not hold {file.content_name}")
        digest, done = new_md5(), 0
        # the member is written under our own file name, and never longer than it should be
        with named_errors(target), archived.open(names[0]) as member, target.open("wb") as output:
            while chunk := member.read(_CHUNK):
                done += len(chunk)
                if done > file.content_size:
                    break
                digest.update(chunk)
                output.write(chunk)
    if done != file.content_size or digest.hexdigest() != file.content_md5:
        target.unlink()
        raise _MirrorError(f"{names[0]} in the zip file is not the published file: its checksum differs")
    os.replace(target, folder / file.content_name)
    return path
