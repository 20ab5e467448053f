"""What the components of a class capsule's pose stand for: the reconstruction as each is moved."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from matcaps.capsules import POSE_COMPONENTS
from matcaps.data.devices import send
from matcaps.data.loader import Batch
from matcaps.inspection.door import inspects
from matcaps.models import EMCapsNet, PoseDecoder
from matcaps.models.modes import device_of

RANGE = (0.02, 0.98)
"""A component's range: from this quantile to that of what it is on images of the class."""


@dataclass(frozen=True, eq=False)
class PoseTraversal:
    """Reconstructions of one image as each component of its class's pose is moved, the others kept.

    Attributes:
        label: the class whose pose is moved.
        image: ``[C, H, W]``, what the network saw.
        reconstruction: ``[C, H, W]``, from the pose as it is.
        pose: ``[16]``, the pose as it is.
        values: ``[16, S]``, what each component is set to: evenly over its range.
        reconstructions: ``[16, S, C, H, W]``.
        effect: ``[16]``, root mean square change of a pixel between the two ends of the component's range, in units
            of the network's input.
    """

    label: int
    image: Tensor
    reconstruction: Tensor
    pose: Tensor
    values: Tensor
    reconstructions: Tensor
    effect: Tensor


@inspects
def true_poses(network: EMCapsNet, batches: Iterable[Batch]) -> tuple[Tensor, Tensor]:
    """Return the true classes' poses, ``[N, 16]``, and the labels, ``[N]``.

    Args:
        network: on any device; what is found comes to the host.
        batches: labelled images; see :func:`matcaps.data.make_loader`.

    Raises:
        ValueError: there are no images.
    """
    poses, labels = [], []
    for batch in batches:
        every_class = network(send(batch.images, device_of(network))).poses.flatten(2).cpu()
        of_batch = batch.labels.cpu()
        poses.append(every_class[torch.arange(len(of_batch)), of_batch])
        labels.append(of_batch)
    if not poses:
        raise ValueError("batches must hold at least one image; got none")
    return torch.cat(poses), torch.cat(labels)


@inspects
def pose_traversal(
    network: EMCapsNet,
    decoder: PoseDecoder,
    image: Tensor,
    label: int,
    seen: Tensor,
    *,
    num_steps: int = 7,
) -> PoseTraversal:
    """Move each of the 16 components of a class's pose through the range that it has in data, and decode.

    Args:
        network: on any device; what is found comes to the host.
        decoder: trained on the network's poses; on the same device.
        image: ``[1, C, H, W]``, prepared as the network takes it.
        label: the class whose pose is moved, the predicted one for an image without a label.
        seen: ``[N, 16]``, poses of that class on images that show it: their 2nd and 98th percentile are the range.
        num_steps: values of each component, S.

    Raises:
        ValueError: no poses were seen, or the decoder does not fit.
    """
    if seen.ndim != 2 or seen.shape[1] != POSE_COMPONENTS or not len(seen):
        raise ValueError(f"seen must have shape [N, {POSE_COMPONENTS}] with N at least 1; got {list(seen.shape)}")
    poses, device = network(image).poses, device_of(network)
    own = poses[0, label].flatten()
    low, high = seen.quantile(seen.new_tensor(RANGE), dim=0)
    values = low[:, None] + (high - low)[:, None] * torch.linspace(0, 1, num_steps, device=device)
    moved = own.repeat(POSE_COMPONENTS, num_steps, 1)
    components = torch.arange(POSE_COMPONENTS, device=device)
    moved[components, :, components] = values
    every_class = poses.flatten(2).repeat(POSE_COMPONENTS * num_steps, 1, 1)
    every_class[:, label] = moved.flatten(0, 1)
    classes = torch.full((len(every_class),), label, device=device)
    decoded = decoder(every_class.view(-1, *poses.shape[1:]), classes).unflatten(0, (POSE_COMPONENTS, num_steps))
    return PoseTraversal(
        label=label,
        image=image[0],
        reconstruction=decoder(poses, classes[:1])[0],
        pose=own,
        values=values,
        reconstructions=decoded,
        effect=((decoded[:, -1] - decoded[:, 0]) ** 2).flatten(1).mean(1).sqrt(),
    )
