"""The user's checkouts: what is wrong with one, and which commit it is."""

import os
import subprocess
import tempfile
from pathlib import Path

from benchmarks.cpu.peers import PEERS

NO_COMMIT = "no git repository"


def parse_peer(text: str) -> tuple[str, Path]:
    """Split ``NAME=CHECKOUT`` and look whether the checkout has what the adapter needs.

    Raises:
        ValueError: the name is unknown, or the folder is not that peer's checkout.
    """
    name, equals, folder = text.partition("=")
    if name not in PEERS:
        raise ValueError(f"no adapter for a peer {name!r}; there are adapters for {', '.join(PEERS)}")
    peer = PEERS[name]
    if not equals or not folder:
        raise ValueError(f"expected {name}=CHECKOUT, the folder of a checkout of {peer.REPOSITORY}; got {text!r}")
    checkout = Path(folder).expanduser().resolve()
    if not checkout.is_dir():
        raise ValueError(f"the folder for {name} does not exist: {checkout}; git clone {peer.REPOSITORY} makes it")
    if not (checkout / peer.FILE).is_file():
        raise ValueError(f"{checkout} has no file {peer.FILE}: expected the top of a checkout of {peer.REPOSITORY}")
    return name, checkout


def commit_of(checkout: Path) -> str:
    """Return the checkout's commit, with ``+changes`` if Python files differ, or :data:`NO_COMMIT`."""

    def git(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        command = ["git", "-C", str(checkout), *arguments]
        return subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True, check=False)

    found = git("rev-parse", "--show-prefix", "HEAD")
    prefix, _, commit = found.stdout.partition("\n")
    if found.returncode or prefix:  # with a prefix the folder lies inside another repository, such as ours
        return NO_COMMIT
    # An index of our own: files are compared with the commit whatever the user's index holds, and that one stays.
    with tempfile.TemporaryDirectory() as folder:
        index = {"GIT_INDEX_FILE": str(Path(folder) / "index")}
        git("read-tree", "HEAD", **index)
        changes = git("status", "--porcelain", "--untracked-files=all", "--", "*.py", **index)
    return commit.strip() + ("+changes" if changes.stdout.strip() else "")
