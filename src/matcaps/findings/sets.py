"""What holds over a set of images: agreement, and the capsules' health."""

from matcaps import inspection
from matcaps.findings.journal import Journal
from matcaps.findings.subject import Subject
from matcaps.inspection.wording import agreement_in_words, contrast_in_words
from matcaps.viz import inspection_sets as viz
from matcaps.viz.agreement import draw_agreement, draw_vote_contrast


def look_at_set(subject: Subject, journal: Journal) -> None:
    """Agreement, vote distances and health over the set."""
    assert subject.measured is not None
    title = f"{subject.measured.name}, {subject.settings.part} part"
    found = inspection.survey(subject.network, subject.loader(subject.measured))
    agreement, contrast, health = found.agreement, found.contrast, found.health
    journal.write("agreement", draw_agreement(agreement, title), agreement.to_dict(), as_json=True)
    journal.say("agreement", ". ".join(agreement_in_words(agreement)))
    heading = f"{title}, mean of {contrast.num_images} images"
    figure = draw_vote_contrast(contrast, "true class", "wrong class with most data", heading)
    journal.write("true_and_wrong_set", figure, contrast)
    journal.say("vote distances over the set", contrast_in_words(contrast))
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
