"""Groups of parameters for an optimiser: transformation matrices learn in proportion to their size."""

from typing import Any

from torch import nn

from matcaps.layers import ClassCapsules, ConvCapsules

_SMALLEST_SIZE = 1e-6
_ADAM_EPS = 1e-8


def parameter_groups(
    network: nn.Module,
    learning_rate: float,
    matrix_learning_rate: float | None = None,
    *,
    weight_decay: float = 0.0,
    decoupled: bool = False,
) -> list[dict[str, Any]]:
    """Divide a network's parameters into groups for ``torch.optim.Adam`` or ``AdamW``.

    A step of Adam changes every number by about the learning rate, whatever its size. Full calibration leaves
    transformation matrices with standard deviations of 3 to 60, because the mean of hundreds of votes that do not
    agree yet is small; with steps of 3e-3 they would hardly change (docs/log.md has the cost).
    With ``matrix_learning_rate`` each layer's matrices change as if they were stored as a scale, their present root
    mean square, times numbers near 1 that learn at that rate.

    Args:
        network: any network with :class:`ConvCapsules` or :class:`ClassCapsules` in it, calibrated before. Frozen
            parameters, those without ``requires_grad``, are left out.
        learning_rate: of all parameters except the matrices.
        matrix_learning_rate: of the matrices, relative to their present size; None: ``learning_rate``, unscaled.
        weight_decay: of all parameters; with ``matrix_learning_rate``, of the numbers near 1. The groups carry it, so
            that a decay given to the optimiser has no effect: it would shrink the matrices to 0 within some hundred
            steps.
        decoupled: whether the optimiser is ``AdamW``, whose decay is separate from the gradient.

    Returns:
        One group; with ``matrix_learning_rate`` one for the other parameters, if any, and one for each routed layer.

    Raises:
        ValueError: every parameter is frozen.

    Example:
        >>> import torch
        >>> import matcaps
        >>> network = matcaps.create_model("annealed-small")
        >>> calibrated = network.calibrate(torch.rand(32, 2, 32, 32))
        >>> optimizer = torch.optim.Adam(parameter_groups(network, 3e-3, matrix_learning_rate=1e-2))
    """
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if not parameters:
        raise ValueError("network must have a parameter to train; all are frozen: leave one out, requires_grad_(True)")
    if matrix_learning_rate is None:
        return [{"params": parameters, "lr": learning_rate, "weight_decay": weight_decay}]
    matrices = [
        module.weight
        for module in network.modules()
        if isinstance(module, ConvCapsules | ClassCapsules) and module.weight.requires_grad
    ]
    groups = []
    for weight in matrices:
        size = max(weight.detach().square().mean().sqrt().item(), _SMALLEST_SIZE)
        groups.append(
            {
                "params": [weight],
                "lr": matrix_learning_rate * size,
                "eps": _ADAM_EPS / size,
                "weight_decay": weight_decay / (size if decoupled else size**2),
            }
        )
    known = {id(weight) for weight in matrices}
    others = [parameter for parameter in parameters if id(parameter) not in known]
    rest = {"params": others, "lr": learning_rate, "weight_decay": weight_decay}
    return [*([rest] if others else []), *groups]
