"""What a run's report says of agreement: as it was measured while the network trained, and of the final network."""

from matcaps.inspect.agreement import AgreementDisplay, RoutingAgreement, agreement_in_words
from matcaps.inspect.curves import AgreementByEpochDisplay
from matcaps.report.collect import RunFacts
from matcaps.report.parts import Picture, Section, picture
from matcaps.training.record import RESULTS_NAME


def agreement_sections(run: RunFacts) -> list[Section]:
    """The section on agreement; none of a CNN, or of a run that measured none.

    Raises:
        ValueError: the measures in ``results.json`` are malformed.
    """
    final = _final(run)
    figures: list[Picture] = []
    by_epoch = AgreementByEpochDisplay.from_metrics(run.metrics, 1 / run.num_classes)
    if by_epoch is not None:
        ((after, last),) = by_epoch.sentences.items()
        figures.append(
            picture(
                by_epoch,
                "By epoch, after each iteration: the true class's share of the data, ln σ of its votes less that of "
                f"the others', and on how many images its votes are the nearest to their mean. {last}",
                f"{by_epoch.caption} {after}: {last}",
            )
        )
    if final is None:
        return [Section("Agreement", "", tuple(figures))] if figures else []
    part, measured = final
    said = f"{'. '.join(agreement_in_words(measured))}."
    figures.append(
        picture(
            AgreementDisplay(measured, f"final network, {part} part"),
            f"By iteration of the final network: {said} {_layers_in_words(measured)}",
            f"The final network by iteration. {_layers_in_words(measured)}",
        )
    )
    text = f"On {measured.num_images} images of the {part} part, the final network. {said}"
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


def _layers_in_words(measured: RoutingAgreement) -> str:
    layers = "; ".join(
        f"{name.replace('_', ' ')} {layer.mean:.2f}, {100 * layer.share_low:.0f} % below 0.01 and "
        f"{100 * layer.share_high:.0f} % above 0.99"
        for name, layer in measured.layers.items()
    )
    return f"Mean activation by layer, and how much of it is off or on for good: {layers}."
