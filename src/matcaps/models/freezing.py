"""Keep parts of a network unchanged while the rest is trained."""

from torch import nn

from matcaps.models.modules import unwrap

_LEFT_OUT = "_capsules"
"""What a part's name may leave out: "primary" is primary_capsules, "conv1" is conv_capsules1."""


def freeze(network: nn.Module, *parts: str) -> tuple[str, ...]:
    """Freeze parts of a network: their parameters get no gradient, and calibration does not change them.

    Give the optimiser the other parameters: ``filter(lambda p: p.requires_grad, network.parameters())``, or
    :func:`matcaps.training.parameter_groups`, which leaves frozen ones out. ``network.requires_grad_(True)`` undoes it.

    Args:
        network: an :class:`EMCapsNet` or :class:`BaselineCNN`.
        *parts: of an :class:`EMCapsNet`: ``stem``, ``primary``, ``conv1``, ``conv2``, ``class``, or its layers' full
            names, such as ``primary_capsules``; of a :class:`BaselineCNN`: ``features``, ``classifier``.

    Returns:
        The frozen parts' full names, in the network's order.

    Raises:
        ValueError: there is no such part, or nothing would be left to train.

    Example:
        >>> from matcaps import from_pretrained
        >>> network = from_pretrained("paper-small-smallnorb")
        >>> freeze(network, "stem", "primary")
        ('stem', 'primary_capsules')
    """
    network = unwrap(network)
    names = [name for name, layer in network.named_children() if any(True for _ in layer.parameters())]
    by_part = {short_name(name): name for name in names} | {name: name for name in names}
    for part in parts:
        if part not in by_part:
            raise ValueError(
                f"parts to freeze must be names from {', '.join(map(short_name, names))}; got {part!r}: name the "
                "layers to keep unchanged"
            )
    frozen = [name for name in names if name in {by_part[part] for part in parts}]
    trainable = [
        parameter
        for name, layer in network.named_children()
        if name not in frozen
        for parameter in layer.parameters()
        if parameter.requires_grad
    ]
    if not trainable:
        raise ValueError(
            f"parts to freeze must leave at least one part to train; got {', '.join(parts)}, which is all of "
            f"{', '.join(map(short_name, names))}: leave one out"
        )
    for name in frozen:
        network.get_submodule(name).requires_grad_(False)
    return tuple(frozen)


def short_name(layer: str) -> str:
    """The name of a part as :func:`freeze` lists it."""
    return layer.replace(_LEFT_OUT, "")
