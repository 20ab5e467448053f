"""How well networks withstand adversarial attacks, as in the paper's section 5.1, with checks of the attacks."""

import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from matcaps._progress import step, work
from matcaps.data.dataset import ImageDataset
from matcaps.data.transforms import Transform
from matcaps.experiments.attacks.images import AttackImages, choose_images
from matcaps.experiments.attacks.masking import Curves, masking_checks
from matcaps.experiments.attacks.methods import bim, fgsm, pgd, random_noise
from matcaps.experiments.attacks.objectives import margins_and_gradients, prepared
from matcaps.experiments.attacks.settings import AttackSettings
from matcaps.experiments.attacks.square import square_attack
from matcaps.models.modes import device_of
from matcaps.models.scores import class_scores

AIMS = ("untargeted", "targeted")

_UNITS = {
    "scale": "the full range of grey levels",
    "image": "the stored image's standard deviation",
    "crop": "the crop's standard deviation",
}


def attack_networks(
    networks: Mapping[str, nn.Module],
    source: str,
    dataset: ImageDataset,
    transform: Transform,
    settings: AttackSettings | None = None,
) -> dict[str, Any]:
    """Attack networks in the white box, and in the black box with images made against one of them.

    The cost, in forward and backward passes of each network's images: ``2·E·(1 + bim_steps)·num_images`` for the
    curves over E values of ε above 0, and for the stronger attacks on S of them, in float64 where a network gives
    capsules, at most ``(S·(2·bim_steps + 1 + pgd_restarts·pgd_steps) + pgd_restarts·pgd_steps)·num_strong_images``,
    and ``S·square_queries·num_strong_images`` forward alone. The default settings make that 35,200, 8,100 and 50,000;
    images whose attack succeeds early cost less. Measured on one thread (AVX-512, smallNORB): 265 s of processor time
    for ``paper-small`` and the baseline CNN together.

    Args:
        networks: by name, each giving :class:`~matcaps.Capsules` or logits; all take the same input.
        source: name of the network that makes the black box's images.
        dataset: images as stored, with labels.
        transform: makes the networks' input (:meth:`Transform.evaluate`).
        settings: None: the defaults.

    Returns:
        Plain values: ``settings``; ``source``; ``data``; ``epsilon``, the curves' ε in words and in grey levels; and
        for each of ``networks``

        - ``clean_accuracy``, ``seconds``;
        - ``curves[attack][aim][box]``, one number for each ε: for ``fgsm`` and ``bim``, ``untargeted`` the accuracy,
          ``targeted`` the share of images for which the target is predicted; ``white_box``, made on the network itself,
          and ``black_box``, made on the source (for the source itself, both are the same);
        - ``gradients[objective]``: shares of images, and of values, whose gradient is exactly 0, and the median over
          the images of the gradient's largest value. Values at the edge that no kernel reaches count: with
          ``paper-small`` and 32×32 the last three rows and columns, 18 %;
        - ``strong``: accuracies under untargeted attacks in the white box, on fewer images: ``fgsm`` and ``bim`` on the
          loss, ``bim_logits``, ``pgd`` on logits, ``square``, and ``noise`` as a control;
        - ``masking``: see :func:`matcaps.experiments.attacks.masking.masking_checks`.

    Raises:
        ValueError: no networks, an unknown source, no images, or images that do not fit the transform or a network.
    """
    settings = settings or AttackSettings()
    _check(networks, source, dataset)
    many = choose_images(dataset, transform, settings.num_images, settings.seed)
    few = choose_images(dataset, transform, settings.num_strong_images, settings.seed)

    for name, network in networks.items():
        num_classes = _scores(network, many.inputs[:1], settings).shape[1]
        if num_classes != dataset.num_classes:
            raise ValueError(
                f"networks must have the {dataset.num_classes} classes of the data set; got {num_classes} in {name!r}"
            )

    with work("attacks", _num_steps(len(networks), len(many.labels), len(few.labels), settings)):
        started = time.perf_counter()
        from_source = _attack_for_curves(networks[source], many, settings)
        source_seconds = time.perf_counter() - started
        records = {}
        for name, network in networks.items():
            started = time.perf_counter()
            clean = _share(network, many.inputs, many.labels, settings)
            own = from_source if name == source else _attack_for_curves(network, many, settings)
            curves = _curves(network, many, own, from_source, settings)
            gradients = {objective: _gradients(network, many, objective, settings) for objective in ("loss", "logits")}
            strong = _strong(network, few, settings)
            records[name] = {
                "clean_accuracy": clean,
                "curves": curves,
                "gradients": gradients,
                "strong": strong,
                "masking": masking_checks(
                    settings.epsilons, curves, len(many.labels), strong, gradients, is_source=name == source
                ),
                "seconds": time.perf_counter() - started + (source_seconds if name == source else 0),
            }
    grey_levels = float((255 / (many.high - many.low)).mean())
    return {
        "settings": settings.to_dict(),
        "source": source,
        "data": {
            "name": dataset.name,
            "split": dataset.split,
            "origin": dataset.origin,
            "classes": list(dataset.classes),
            "num_images": len(many.labels),
        },
        "epsilon": {
            "values": list(settings.epsilons),
            "unit": _UNITS[transform.settings.normalise or "scale"],
            "grey_levels_per_unit": grey_levels,  # of 255, mean over the images
            "grey_levels": [epsilon * grey_levels for epsilon in settings.epsilons],
        },
        "networks": records,
    }


def _num_steps(networks: int, many: int, few: int, settings: AttackSettings) -> int:
    """Batches that :func:`_attack` makes, for people who wait."""
    curves = 2 * len(AIMS) * sum(epsilon != 0 for epsilon in settings.epsilons)
    strong = 6 * len(settings.strong_epsilons) + 1
    return networks * (curves * -(-many // settings.batch_size) + strong * -(-few // settings.batch_size))


def _check(networks: Mapping[str, nn.Module], source: str, dataset: ImageDataset) -> None:
    if source not in networks:
        raise ValueError(f"source must be the name of one of the networks, {', '.join(networks)}; got {source!r}")
    if not len(dataset) or dataset.num_classes < 2:
        raise ValueError(
            f"dataset must have at least one image and two classes; got {len(dataset)} and {dataset.num_classes}"
        )


def _attack_for_curves(
    network: nn.Module, images: AttackImages, settings: AttackSettings
) -> dict[tuple[str, str], list[Tensor]]:
    """The adversarial images of FGSM and BIM, by attack and aim, one tensor for each ε."""

    def attack(name: str, aim: str, epsilon: float) -> Tensor:
        if epsilon == 0:
            return images.inputs
        return _attack(
            name, network, images, epsilon, settings, objective=settings.objective, is_targeted=aim == "targeted"
        )

    return {
        (name, aim): [attack(name, aim, epsilon) for epsilon in settings.epsilons]
        for name in ("fgsm", "bim")
        for aim in AIMS
    }


def _curves(
    network: nn.Module,
    images: AttackImages,
    own: dict[tuple[str, str], list[Tensor]],
    from_source: dict[tuple[str, str], list[Tensor]],
    settings: AttackSettings,
) -> Curves:
    """Accuracy, or the share for which the target is predicted, by attack, aim and box."""

    def rates(adversarial: list[Tensor], aim: str) -> list[float]:
        wanted = images.targets if aim == "targeted" else images.labels
        return [_share(network, inputs, wanted, settings) for inputs in adversarial]

    return {
        name: {
            aim: {"white_box": rates(own[name, aim], aim), "black_box": rates(from_source[name, aim], aim)}
            for aim in AIMS
        }
        for name in ("fgsm", "bim")
    }


def _strong(network: nn.Module, images: AttackImages, settings: AttackSettings) -> dict[str, Any]:
    """Accuracies under the stronger attacks, under the paper's on the same images, and under noise."""

    def accuracy(name: str, epsilon: float, objective: str) -> float:
        adversarial = _attack(name, network, images, epsilon, settings, objective=objective)
        return _share(network, adversarial, images.labels, settings)

    attacks = {"fgsm": "loss", "bim": "loss", "bim_logits": "logits", "pgd": "logits", "square": "", "noise": ""}
    return {
        "num_images": len(images.labels),
        "clean_accuracy": _share(network, images.inputs, images.labels, settings),
        "epsilons": list(settings.strong_epsilons),
        "accuracy": {
            name: [accuracy(name.split("_")[0], epsilon, objective) for epsilon in settings.strong_epsilons]
            for name, objective in attacks.items()
        },
        "large_epsilon": {
            "epsilon": settings.large_epsilon,
            "pgd": accuracy("pgd", settings.large_epsilon, "logits"),
        },
    }


def _attack(
    name: str,
    network: nn.Module,
    images: AttackImages,
    epsilon: float,
    settings: AttackSettings,
    *,
    objective: str,
    is_targeted: bool = False,
) -> Tensor:
    """The adversarial images of an attack, made batch by batch."""
    adversarial_batches = []
    for batch in images.batches(settings.batch_size, device_of(network)):
        bounds = batch.low, batch.high
        common = network, batch.inputs, batch.labels, epsilon, bounds
        targets = batch.targets if is_targeted else None
        chance = {"seed": settings.seed, "indices": batch.indices}
        if name == "fgsm":
            adversarial = fgsm(*common, targets=targets, objective=objective)
        elif name == "bim":
            adversarial = bim(*common, num_steps=settings.bim_steps, targets=targets, objective=objective)
        elif name == "pgd":
            steps = {"num_steps": settings.pgd_steps, "num_restarts": settings.pgd_restarts}
            adversarial = pgd(*common, targets=targets, objective=objective, **steps, **chance)
        elif name == "square":
            adversarial = square_attack(*common, num_queries=settings.square_queries, targets=targets, **chance)
        else:
            assert name == "noise", name
            adversarial = random_noise(batch.inputs, epsilon, bounds, **chance)
        adversarial_batches.append(adversarial.cpu())
        step()
    return torch.cat(adversarial_batches)


def _gradients(network: nn.Module, images: AttackImages, objective: str, settings: AttackSettings) -> dict[str, float]:
    """The share of the gradient at the unchanged images that is exactly 0, and its size."""
    largest, zeros = [], []
    for batch in images.batches(settings.batch_size, device_of(network)):
        with prepared(network, batch.inputs, objective) as net:
            _, gradient = margins_and_gradients(net, batch.inputs, batch.labels, None, objective)
        largest.append(gradient.abs().flatten(1).amax(dim=1).cpu())
        zeros.append((gradient == 0).flatten(1).double().mean(dim=1).cpu())
    largest, zeros = torch.cat(largest), torch.cat(zeros)
    return {
        "zero_images": _mean(zeros == 1),
        "zero_values": float(zeros.mean()),
        "median_largest": float(largest.median()),
    }


@torch.no_grad()
def _scores(network: nn.Module, inputs: Tensor, settings: AttackSettings) -> Tensor:
    """The class scores of images, ``[N, classes]``."""
    device = device_of(network)
    with prepared(network, inputs[:1].to(device), "loss") as net:
        return torch.cat([class_scores(net, batch.to(device)).cpu() for batch in inputs.split(settings.batch_size)])


def _share(network: nn.Module, inputs: Tensor, wanted: Tensor, settings: AttackSettings) -> float:
    """The share of images whose most active class is the wanted one."""
    return _mean(_scores(network, inputs, settings).argmax(dim=1) == wanted)


def _mean(flags: Tensor) -> float:
    """The share of true values, computed as a division of whole numbers."""
    return int(flags.sum()) / len(flags)
