"""What holds over a set of images: agreement, and the capsules' health."""

from torch import Tensor

from matcaps import inspection
from matcaps.findings.journal import Journal
from matcaps.findings.subject import Subject
from matcaps.viz import inspection_sets as viz


def look_at_set(subject: Subject, journal: Journal) -> None:
    """Agreement and health over the set."""
    assert subject.measured is not None
    title = f"{subject.measured.name}, {subject.settings.part} part"
    agreement = inspection.measure_agreement(subject.network, subject.loader(subject.measured))
    numbers = {name: value.tolist() if hasattr(value, "tolist") else value for name, value in vars(agreement).items()}
    journal.write("agreement", viz.draw_agreement(agreement, title), numbers, as_json=True)
    journal.say(
        "vote distance",
        f"by iteration {_arrows(agreement.true)} for the true class, {_arrows(agreement.others)} for the others, "
        f"in pose units, mean of {agreement.num_images} images; smaller at the end than at first for "
        f"{100 * agreement.fell_true:.1f} % and {100 * agreement.fell_others:.1f} %; the true class's is the smallest "
        f"of all on {_arrows(100 * agreement.nearest_is_true)} %",
    )
    journal.say(
        "share of the data",
        f"by iteration {_arrows(100 * agreement.share_true)} % for the true class, "
        f"{_arrows(100 * agreement.share_others)} % for one of the others",
    )
    health = inspection.capsule_health(subject.network, (batch.images for batch in subject.loader(subject.measured)))
    journal.write(
        "health",
        viz.draw_health(health, title),
        {name: layer.to_dict() for name, layer in health.items()},
        as_json=True,
    )
    for state in ("dead", "saturated"):
        found = {name: getattr(layer, state) for name, layer in health.items() if getattr(layer, state)}
        said = "; ".join(f"{name} {', '.join(map(str, types))}" for name, types in found.items())
        journal.say(f"{state} types", said or "none")
    ends = ", ".join(
        f"{name} {100 * layer.layer_low:.0f} % below 0.01 and {100 * layer.layer_high:.0f} % above 0.99"
        for name, layer in health.items()
    )
    journal.say("activations", ends)


def _arrows(values: Tensor) -> str:
    return " → ".join(f"{value:.3g}" for value in values.tolist())
