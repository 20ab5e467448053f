"""fabio-deep/Variational-Capsule-Routing: its network, ``capsnet.CapsuleNet``.

It moves tensors with ``.cuda()``, which does nothing here. Its first convolution has no padding; the configuration's is
set on it. It squeezes away a batch of one image.

Otherwise than the paper: another algorithm of the same shape, variational Bayes in place of EM, three iterations with
digamma functions and priors; batch normalisation after every layer. Competition is the paper's, across positions. Its
own training uses cross-entropy; here it has everybody's spread loss.
"""

from pathlib import Path
from types import SimpleNamespace

import torch
from torch import nn

from benchmarks.cpu.peers.common import CannotBuildError, Configuration, import_from

REPOSITORY = "https://github.com/fabio-deep/Variational-Capsule-Routing"
FILE = "src/capsnet.py"
NOTE = "variational Bayes in place of EM, batch normalisation; competition across positions, as in the paper"


def build(checkout: Path, configuration: Configuration, batch: int) -> nn.Module:
    if batch < 2:
        raise CannotBuildError(f"its layers squeeze a batch of one image away; got batch {batch}, needs at least 2")
    torch.Tensor.cuda = lambda self, *arguments, **options: self
    arguments = SimpleNamespace(
        arch=[
            configuration.stem_channels,
            configuration.primary_capsules,
            configuration.conv_capsules1,
            configuration.conv_capsules2,
            configuration.num_classes,
        ],
        n_channels=configuration.in_channels,
        pose_dim=4,
        routing_iter=configuration.iterations,
    )
    network = import_from(checkout / "src", "capsnet").CapsuleNet(arguments)
    network.Conv_1.padding = (configuration.stem_padding, configuration.stem_padding)
    return network
