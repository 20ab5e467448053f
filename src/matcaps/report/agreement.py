"""The report's section on agreement: during training, and of the final network."""

from collections.abc import Mapping

from matcaps.inspect.agreement import AgreementDisplay, RoutingAgreement, agreement_in_words, measures_in_words
from matcaps.inspect.curves import draw_agreement_by_epoch, measured_iterations
from matcaps.report.collect import RunFacts
from matcaps.report.parts import Picture, Section, picture
from matcaps.training.record import RESULTS_NAME

_HOW = (
    "Routing should give the true class data from iteration to iteration, and bring its votes together: ln σ below "
    "that of the others, and falling."
)


def agreement_sections(run: RunFacts) -> list[Section]:
    """The section on agreement; no section for a CNN, or for a run that measured none.

    Raises:
        ValueError: the measures in ``results.json`` are malformed.
    """
    final = _final(run)
    figures: list[Picture] = []
    chance = 1 / run.num_classes
    by_epoch = draw_agreement_by_epoch(run.metrics, chance)
    if by_epoch is not None:
        epoch, last = _last_measures(run, chance)
        figures.append(
            picture(
                by_epoch,
                "By epoch, after each iteration: the true class's share of the data, ln σ of its votes less that of "
                f"the others', and on how many images its votes are the nearest to their mean. {last}",
                f"How routing treats the true class, by epoch. {_HOW} After epoch {epoch}: {last}",
            )
        )
    if final is None:
        return [Section("Agreement", "", tuple(figures))] if figures else []
    part, measured = final
    sentences = f"{'. '.join(agreement_in_words(measured))}."
    figures.append(
        picture(
            AgreementDisplay(measured, f"final network, {part} part").plot(),
            f"By iteration of the final network: {sentences} {_layers_in_words(measured)}",
            f"The final network by iteration. {_layers_in_words(measured)}",
        )
    )
    text = f"On {measured.num_images} images of the {part} part, the final network. {sentences}"
    return [Section("Agreement", text, tuple(figures))]


def _final(run: RunFacts) -> tuple[str, RoutingAgreement] | None:
    """The part that the final network was measured on, and the measures."""
    values = run.results.get("agreement")
    if values is None:
        return None
    try:
        return str(values["part"]), RoutingAgreement.from_dict(values)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{run.folder / RESULTS_NAME}: its measures of agreement are malformed: {error}") from error


def _last_measures(run: RunFacts, chance: float) -> tuple[str, str]:
    """The last epoch with measures, and sentences about them."""
    iterations = measured_iterations(run.metrics)
    row = [row for row in run.metrics if row.get(f"agreement/share_true_{iterations}")][-1]
    share, gap, nearest = (
        _by_iteration(row, name, 1, iterations) for name in ("share_true", "log_deviation_gap", "nearest_is_true")
    )
    changed = _by_iteration(row, "changed", 2, iterations)
    return row["epoch"], f"{'. '.join(measures_in_words(share, gap, nearest, changed, chance))}."


def _by_iteration(row: Mapping[str, str], name: str, first: int, last: int) -> list[float]:
    return [float(row.get(f"agreement/{name}_{iteration}") or "nan") for iteration in range(first, last + 1)]


def _layers_in_words(measured: RoutingAgreement) -> str:
    layers = "; ".join(
        f"{name.replace('_', ' ')} {layer.mean:.2f}, {100 * layer.share_low:.0f} % below 0.01 and "
        f"{100 * layer.share_high:.0f} % above 0.99"
        for name, layer in measured.layers.items()
    )
    return f"Mean activation by layer, and the shares of capsules that are off or on: {layers}."
