"""Public implementations of matrix capsules, each behind an adapter of ours.

An adapter is a module with

- ``REPOSITORY``: where the implementation is published;
- ``FILE``: a file that every checkout of it has, and that the adapter needs;
- ``NOTE``: what it does less or otherwise than the paper, in a sentence for the table;
- ``build(checkout, configuration, batch)``: a network of the peer's own code that maps images to class scores
  ``[B, classes]``; :class:`benchmarks.cpu.peers.common.CannotBuildError` says why there is none.

The peers' code is never copied: an adapter imports it from the user's unmodified checkout, in a process that runs
nothing else, because what it must set aside (CUDA, torchvision) concerns the whole process.
"""

from types import ModuleType

from benchmarks.cpu.peers import fabio_deep, officium, ours, sr_capsnet, yl_1993

OURS = "matcaps"

PEERS: dict[str, ModuleType] = {
    "officium": officium,
    "yl-1993": yl_1993,
    "fabio-deep": fabio_deep,
    "sr-capsnet": sr_capsnet,
}

CONTENDERS: dict[str, ModuleType] = {OURS: ours, **PEERS}
