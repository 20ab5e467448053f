"""What torchrun tells the processes that it starts, and starts again after the loss of one."""

import os

import torch
from torch import distributed as processes
from torch._C._distributed_c10d import PrefixStore, TCPStore


def check_launcher(devices: int, num_nodes: int) -> None:
    """Refuse another number of processes than torchrun started, in each of them.

    Raises:
        ValueError: torchrun started this process, and not ``devices`` on each of ``num_nodes`` machines.
    """
    started = [_number(name) for name in ("LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE")]
    local, nodes = started
    if not _is_launched() or local is None or nodes is None or (devices, num_nodes) == (local, nodes):
        return
    raise ValueError(
        f"torchrun started {local} process{'es' if local > 1 else ''} on each of {nodes} "
        f"machine{'s' if nodes > 1 else ''}, but devices is {devices} and num_nodes {num_nodes}: "
        f"give --devices {local} --num_nodes {nodes}"
    )


def meet_after_restart(device: torch.device) -> None:
    """Make torch's process group if torchrun has started the processes of one machine again; otherwise do nothing.

    torchrun (2.13) keeps the store by which they meet. In it are the addresses of the processes before them, to which
    they would try to connect; so each start meets under a name of its own. Of several machines each counts its own
    starts, so that there is no common name.

    Args:
        device: where this process computes.
    """
    starts, world_size, rank, port = (
        _number(name) for name in ("TORCHELASTIC_RESTART_COUNT", "WORLD_SIZE", "RANK", "MASTER_PORT")
    )
    keeps_store = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True" and _number("GROUP_WORLD_SIZE") == 1
    if not _is_launched() or not keeps_store or not starts or world_size is None or rank is None or port is None:
        return
    if world_size == 1 or processes.is_initialized():
        return
    store = TCPStore(os.environ["MASTER_ADDR"], port, world_size, is_master=False)
    processes.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        store=PrefixStore(f"start-{starts}", store),
        rank=rank,
        world_size=world_size,
    )


def _is_launched() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ


def _number(name: str) -> int | None:
    value = os.environ.get(name, "")
    return int(value) if value.isdecimal() else None
