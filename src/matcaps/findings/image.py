"""What a network found in one image."""

import torch

from matcaps import inspection
from matcaps.data.names import short_name
from matcaps.findings.journal import Journal
from matcaps.findings.subject import Subject
from matcaps.inspection.wording import contrast_in_words
from matcaps.viz import inspection as viz
from matcaps.viz.agreement import draw_vote_contrast


def look_at_image(subject: Subject, journal: Journal) -> None:
    """Vote distances, assignments, activations and EM steps of the one image."""
    network, image, classes, title = subject.network, subject.image, subject.classes, subject.title
    chosen = subject.predicted if subject.truth is None else subject.truth
    votes = inspection.vote_distances(network, image)
    histogram = inspection.vote_histogram(votes)
    journal.write("votes", viz.draw_votes(histogram, classes, chosen, title), {"histogram": histogram, **vars(votes)})
    contrast = inspection.vote_contrast(votes, torch.tensor([chosen]))
    true, wrong = (short_name(classes[label]) for label in contrast.labels[0].tolist())
    true = f"{true}, {'taken for it' if subject.truth is None else 'true'}"
    figure = draw_vote_contrast(contrast, true, f"{wrong}, most data of the others", title)
    journal.write("true_and_wrong", figure, contrast)
    journal.say("vote distances", contrast_in_words(contrast))
    shares = inspection.contributions(network, image)
    heading = (
        f"{title}\nwhat the class capsule {classes[int(shares.classes[0])]} was made from "
        "(orange frame: all that the position with the largest share sees)"
    )
    journal.write("assignments", viz.draw_assignments(shares, image[0], heading), shares)
    maps = inspection.activation_maps(network, image)
    journal.write("activations", viz.draw_activations(maps, classes, title), maps)
    scores = sorted(range(len(classes)), key=lambda label: -subject.scores[label])[:2]
    steps = [inspection.em_steps(network, image, label) for label in scores]
    names = [classes[label] for label in scores]
    journal.write(
        "em_steps",
        viz.draw_em_steps(steps, names, title),
        dict(zip(names, steps, strict=True)),
    )
