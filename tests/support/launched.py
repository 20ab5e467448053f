"""Processes that train together, started as torchrun starts them, but warm: each is a fork with everything imported."""

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.support.warm import WarmCommand


@dataclass(frozen=True)
class AsRank:
    """Make a process one of several on this machine, with what torchrun writes into its environment.

    Attributes:
        rank: which, from 0.
        world_size: how many.
        port: of the store by which they meet.
        max_restarts: how often torchrun would start them again.
        prepare: called afterwards.
    """

    rank: int
    world_size: int
    port: int
    max_restarts: int = 0
    prepare: Callable[[], None] | None = None

    def __call__(self) -> None:
        from lightning.fabric.utilities.rank_zero import rank_zero_only

        os.environ |= {
            "RANK": str(self.rank),
            "LOCAL_RANK": str(self.rank),
            "GROUP_RANK": "0",
            "WORLD_SIZE": str(self.world_size),
            "LOCAL_WORLD_SIZE": str(self.world_size),
            "GROUP_WORLD_SIZE": "1",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(self.port),
            "TORCHELASTIC_RUN_ID": "test",
            "TORCHELASTIC_MAX_RESTARTS": str(self.max_restarts),
            "TORCHELASTIC_RESTART_COUNT": "0",
            "OMP_NUM_THREADS": "1",
        }
        rank_zero_only.rank = self.rank  # which Lightning reads when it is imported
        if self.prepare is not None:
            self.prepare()


def launch(
    world_size: int,
    *arguments: str,
    folder: Path,
    max_restarts: int = 0,
    each: Callable[[], None] | None = None,
    last: Callable[[], None] | None = None,
) -> list[WarmCommand]:
    """Start ``matcaps`` in several processes, each in a folder ``0``, ``1``, ... of its own; ``each`` is called in
    every one first, ``last`` instead in the last one.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = []
    for rank in range(world_size):
        own = folder / str(rank)
        own.mkdir(exist_ok=True)
        prepare = AsRank(
            rank, world_size, port, max_restarts, last if last is not None and rank == world_size - 1 else each
        )
        started.append(WarmCommand(*arguments, folder=own, prepare=prepare))
    return started
