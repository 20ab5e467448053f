"""The page's panels: each function converts results to HTML."""

import json
from collections.abc import Sequence
from html import escape

import torch
from torch import Tensor

from matcaps._numbers import short_number
from matcaps.demo import charts
from matcaps.demo.examples import Examples
from matcaps.demo.session import Attacked, DemoNetwork, Reading, pose_bounds, reconstruct
from matcaps.demo.viewpoints import NUM_AZIMUTHS, ObjectViews, View

EMPTY = "Nothing to read yet: draw on the pad, choose a picture below it, or upload one."

_SURE = 0.5  # an activation below this gives no clear answer


def note(text: str, kind: str = "note") -> str:
    """A single sentence; ``kind`` "problem" marks an error."""
    role = ' role="alert"' if kind == "problem" else ""
    return f'<p class="{kind}"{role}>{escape(text)}</p>'


def verdict(classes: Sequence[str], activations: Tensor) -> str:
    """A network's answer in words: the most active class and the next."""
    best, second = activations.topk(2).indices.tolist()
    value, other = float(activations[best]), float(activations[second])
    rest = f"activation {value:.2f}; next {classes[second]}, {other:.2f}"
    if value < _SURE:
        return f"not sure: {classes[best]} at most ({rest})"
    return f"{classes[best]} ({rest})"


def show_reading(demo: DemoNetwork, reading: Reading | None, description: str = "") -> str:
    """The network's input, its answer and all class activations."""
    if reading is None:
        return note(description or EMPTY)
    truth = "" if reading.truth is None else f" It is {demo.classes[reading.truth]}."
    picture = charts.show_image(
        charts.to_unit(reading.image[0], reading.low, reading.high),
        f"What the network saw: {reading.name}",
        f"What the network saw: {reading.image.shape[-1]}×{reading.image.shape[-2]} pixels. {description}",
        kind="seen",
    )
    bars = charts.draw_bars(demo.classes, reading.activations.tolist(), chosen=reading.winner, truth=reading.truth)
    words = escape(verdict(demo.classes, reading.activations) + "." + truth)
    return (
        f'<p class="verdict" aria-live="polite"><b>The network sees:</b> {words}</p>'
        f'<div class="beside">{picture}<div class="wide">{bars}</div></div>'
    )


def show_votes(demo: DemoNetwork, reading: Reading | None, iteration: int) -> str:
    """The histograms of vote distances of every class after one iteration, counted from 1."""
    if reading is None:
        return note("The histograms appear with the first image.")
    votes, row = reading.votes, min(max(int(iteration), 1), demo.iterations) - 1
    top = float(votes.counts.max())
    cells = [
        charts.draw_histogram(
            votes.edges[place].tolist(),
            votes.counts[row, place].tolist(),
            top=top,
            mean=float(votes.mean_distance[row, place]),
            title=name,
            note=f"mean {short_number(float(votes.mean_distance[row, place]))}, activation "
            f"{float(votes.activations[row, place]):.2f}",
            chosen=place == reading.winner,
        )
        for place, name in enumerate(demo.classes)
    ]
    return (
        f'<p class="axes">After iteration {row + 1} of {demo.iterations}. Across: distance of a vote to the class '
        "capsule's mean, in pose units. Upwards: votes, each weighted by the share of its child that the class has "
        "(assignment). Dashed: the weighted mean distance. Each class has its own scale of distances, the "
        "same for all iterations: votes of two classes can differ in size by a factor of a hundred.</p>"
        f'<div class="cells">{"".join(cells)}</div>'
    )


def pose_values(demo: DemoNetwork, reading: Reading | None) -> str:
    """The values for the pose sliders as JSON: ranges and the image's own pose; empty without a decoder or image."""
    if reading is None or demo.decoder is None:
        return ""
    low, high = pose_bounds(demo, reading)
    values = reading.pose.tolist()
    return json.dumps({"low": low.tolist(), "high": high.tolist(), "values": values, "own": values})


def parse_pose(text: str | None) -> Tensor | None:
    """The pose that the sliders send, ``[16]``; None if there is none.

    Raises:
        ValueError: it is not a list of numbers.
    """
    if not text:
        return None
    try:
        return torch.tensor([float(value) for value in json.loads(text)["values"]])
    except (TypeError, KeyError, ValueError, OverflowError, RecursionError) as error:
        raise ValueError("the pose must be a list of numbers") from error


def show_pose(demo: DemoNetwork, reading: Reading | None, pose: Tensor | None) -> str:
    """The image and its reconstructions from the winner's pose and from the sliders."""
    if demo.decoder is None:
        return note(f"No reconstruction: {demo.decoder_note}")
    if reading is None:
        return note("The reconstruction appears with the first image.")
    name = demo.classes[reading.winner]
    moved = reading.pose if pose is None else pose
    own = reconstruct(demo, reading, reading.pose)
    images = (
        (reading.image[0], "the image", f"what the network saw: {reading.name}"),
        (own, f"from the pose of {name}", f"reconstruction from the pose of {name}"),
        (
            reconstruct(demo, reading, moved),
            "from the pose that the sliders show",
            f"reconstruction of {name} from the sliders",
        ),
    )
    figures = [
        charts.show_image(charts.to_unit(image, reading.low, reading.high), alternative, caption)
        for image, caption, alternative in images
    ]
    change = float((moved - reading.pose).norm())
    return (
        f'<div class="pictures">{"".join(figures)}</div>'
        f'<p class="axes">The sliders are {change:.2f} pose units away from the image\'s own pose.</p>'
    )


def show_attack(demo: DemoNetwork, reading: Reading | None, attacked: Attacked | None) -> str:
    """The image, the change by FGSM and the result, with the answers before and after."""
    if reading is None or attacked is None:
        return note("The attack appears with the first image.")
    before, after = reading.winner, attacked.winner
    largest = max(attacked.epsilon, 0.01)
    change = attacked.change[0].mean(0)
    figures = (
        charts.show_image(
            charts.to_unit(reading.image[0], reading.low, reading.high), f"before: {reading.name}", "before"
        )
        + '<span class="sign">+</span>'
        + charts.show_image(charts.diverging(change, largest), "the change of each pixel", "change")
        + '<span class="sign">=</span>'
        + charts.show_image(charts.to_unit(attacked.image[0], reading.low, reading.high), "after the attack", "after")
    )
    if attacked.epsilon == 0:
        outcome = "Nothing is changed yet: move ε."
    elif after != before:
        outcome = f"Fooled: {demo.classes[before]} has become {demo.classes[after]}."
    else:
        outcome = f"It still sees {demo.classes[after]}."
    rows = "".join(
        f"<tr><th>{label}</th><td>{escape(verdict(demo.classes, activations))}</td></tr>"
        for label, activations in (("before", reading.activations), ("after", attacked.activations))
    )
    scale = charts.diverging_scale(largest, f"change, {demo.input_unit}")
    return (
        f'<p class="verdict" aria-live="polite"><b>{escape(outcome)}</b></p><div '
        f'class="pictures">{figures}</div>{scale}'
        f"<table>{rows}</table>"
    )


def show_examples(examples: Examples | None, number: int) -> str:
    """A page of small pictures to choose from, each a button."""
    if examples is None:
        return note("There are no test images: the network's own data set is not on this machine.")
    dataset = examples.dataset
    buttons = []
    for place in examples.page(number):
        name = dataset.classes[int(dataset.labels[place])]
        pixels = dataset.images[place].float() / 255
        picture = pixels.movedim(0, -1) if len(pixels) == 3 else pixels[0]
        buttons.append(
            f'<button type="button" data-index="{place}" title="{escape(name)}">'
            f'<img src="{charts.data_url(picture)}" alt="test image {place}: {escape(name)}"></button>'
        )
    return f'<div class="examples">{"".join(buttons)}</div>{note(examples.description)}'


def show_view(views: ObjectViews, view: View | None, azimuth: int, sweep: Tensor) -> str:
    """Both cameras' pictures, the answer and the class activations of one view, and the activations around the
    object.
    """
    classes = views.saved.classes
    if view is None:
        seen = note("This copy of smallNORB has no image of this view: choose another.", "problem")
    else:
        pictures = "".join(
            charts.show_image(pixels.float() / 255, f"{side} camera: {classes[view.truth]}", f"{side} camera")
            for pixels, side in zip(view.pixels, ("left", "right"), strict=True)
        )
        winner = int(view.activations.argmax())
        bars = charts.draw_bars(classes, view.activations.tolist(), chosen=winner, truth=view.truth)
        right = "right" if winner == view.truth else "wrong"
        words = f"{verdict(classes, view.activations)}. It is {classes[view.truth]}: {right}."
        seen = (
            f'<p class="verdict" aria-live="polite"><b>The network sees:</b> {escape(words)}</p>'
            f'<div class="beside"><div class="pictures">{pictures}</div><div class="wide">{bars}</div></div>'
        )
    return (
        f"{seen}<p>Around the object at this elevation and lighting: the activation of each class by azimuth; "
        f"the dashed vertical line is the view above, {360 * azimuth // NUM_AZIMUTHS}°.</p>"
        f"{charts.draw_sweep(classes, sweep, at=azimuth)}"
    )
