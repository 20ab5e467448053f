"""yl-1993/Matrix-Capsules-EM-PyTorch: its network, ``model.capsules.CapsNet``.

It allocates with ``torch.cuda.FloatTensor``, which is made the CPU's here. Its first convolution takes one padded
channel; ours replaces it where the configuration differs, before its batch normalisation.

Less than the paper: parents compete within one position's window only. Otherwise: the M-step normalises assignment
times activation over the parents, so that the children's activations cancel; the inverse temperature is 0.001
throughout; batch normalisation follows the first convolution.
"""

from pathlib import Path

import torch
from torch import nn

from benchmarks.cpu.peers.common import Configuration, first_convolution, import_from

REPOSITORY = "https://github.com/yl-1993/Matrix-Capsules-EM-PyTorch"
FILE = "model/capsules.py"
NOTE = "no competition between positions; the children's activations cancel"


def build(checkout: Path, configuration: Configuration, batch: int) -> nn.Module:
    torch.cuda.FloatTensor = torch.FloatTensor
    network = import_from(checkout, "model.capsules").CapsNet(
        A=configuration.stem_channels,
        B=configuration.primary_capsules,
        C=configuration.conv_capsules1,
        D=configuration.conv_capsules2,
        E=configuration.num_classes,
        iters=configuration.iterations,
    )
    if configuration.in_channels != 1 or not configuration.padded:
        network.conv1 = first_convolution(configuration)
    return network
