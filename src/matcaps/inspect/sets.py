"""Measures over a labelled set, all in one pass of the images through the network."""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

from matcaps._progress import watched
from matcaps.data.devices import send
from matcaps.data.loader import Batch
from matcaps.inspect.access import inspects, on_host
from matcaps.inspect.agreement import AgreementTally, RoutingAgreement
from matcaps.inspect.contrast import ContrastTally, VoteContrast
from matcaps.inspect.health import LayerHealth
from matcaps.inspect.votes import distances_of
from matcaps.models import EMCapsNet
from matcaps.models.modes import device_of


@dataclass(frozen=True, eq=False)
class Survey:
    """The result of :func:`survey`.

    Attributes:
        agreement: how routing treats the true class, as :func:`matcaps.inspect.routing_agreement` measures it.
        contrast: how far votes lie from their mean, for the true class and for the strongest wrong one.
        health: of each layer, as :func:`matcaps.inspect.capsule_health` measures it.
    """

    agreement: RoutingAgreement
    contrast: VoteContrast
    health: "OrderedDict[str, LayerHealth]"


@inspects
def survey(network: EMCapsNet, batches: Iterable[Batch]) -> Survey:
    """Measure agreement, vote distances and the capsules' health over a labelled set.

    The votes are held in memory; :func:`matcaps.inspect.routing_agreement` does not need them and is faster.

    Args:
        network: on any device; the results are on the CPU.
        batches: see :func:`matcaps.data.make_loader`; of several crops of an image the first, the centre, is taken.

    Raises:
        ValueError: there are no images, or a vote is not finite.
    """
    agreement, contrast = AgreementTally(network), ContrastTally()
    for batch in watched(batches, "images"):
        images = batch.images[:, 0] if batch.images.ndim == 5 else batch.images
        if len(images) == 0:
            continue
        images = send(images, device_of(network))
        outputs, coordinates = network.layer_outputs(images), network.class_coordinates(images)
        states = agreement.add(outputs, coordinates, batch.labels)
        distances = on_host(distances_of(network, outputs["conv_capsules2"], coordinates, states))
        contrast.add(distances, batch.labels.cpu())
    return Survey(agreement.result(), contrast.result(), agreement.health())
