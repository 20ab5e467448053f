"""Moments at which a training is killed: any call of a function, within what the moment is about."""

import functools
import os
import random
import sys
from dataclasses import dataclass
from importlib import import_module
from typing import Any

PLACES = {  # where it is done, how often in a run of three epochs of five steps, and about how many calls that has
    "a step": ("matcaps.training.loop:Loop._step", 15, 4000),
    "a checkpoint's write": ("matcaps.training.loop:write_checkpoint", 15, 1500),
    "the metrics' write": ("matcaps.training.loop:write_metrics", 3, 250),
    "validation": ("matcaps.training.loop:Loop._validate", 3, 6000),
    "the weights' write": ("matcaps.models.pretrained:save_pretrained", 1, 1500),
    "the test": ("matcaps.training.run:evaluate", 1, 6000),
    "the record's write": ("matcaps.training.run:write_json", 1, 300),
}


@dataclass(frozen=True)
class Moment:
    """A signal at one call of Python's or C's functions, or right after the place if that has fewer.

    Attributes:
        place: of :data:`PLACES`.
        occurrence: how often the place has been reached, from 1.
        call: how many calls into it.
        number: the signal's.
    """

    place: str
    occurrence: int
    call: int
    number: int

    def __call__(self) -> None:
        """Have this process meet it."""
        path, _, _ = PLACES[self.place]
        module, _, names = path.partition(":")
        *owners, name = names.split(".")
        owner: Any = functools.reduce(getattr, owners, import_module(module))
        function, seen = getattr(owner, name), 0

        def meet() -> None:
            sys.setprofile(None)
            os.kill(os.getpid(), self.number)

        @functools.wraps(function)
        def watched(*arguments: Any, **options: Any) -> Any:
            nonlocal seen
            seen += 1
            if seen != self.occurrence:
                return function(*arguments, **options)
            left = self.call

            def count(frame: Any, event: str, argument: Any) -> None:
                nonlocal left
                if event in ("call", "c_call"):
                    left -= 1
                    if left == 0:
                        meet()

            sys.setprofile(count)
            try:
                return function(*arguments, **options)
            finally:
                if left > 0:
                    meet()

        setattr(owner, name, watched)


def moments(seed: int, count: int, number: int) -> list[Moment]:
    """So many moments by chance, of each place in turn."""
    draw = random.Random(seed)
    places = list(PLACES)
    first = draw.randrange(len(places))
    found = []
    for index in range(count):
        place = places[(first + index) % len(places)]
        _, occurrences, calls = PLACES[place]
        # evenly over the orders of magnitude: what is at the beginning of a write matters as much as its end
        call = round(calls ** draw.random())
        found.append(Moment(place, draw.randint(1, occurrences), call, number))
    return found
