"""What a run looked at beside its training images, in words, from its record."""

from collections.abc import Mapping
from typing import Any


def describe_tested(results: Mapping[str, Any]) -> str:
    """Say what a run was tested on, and whether it looked at a test part; empty of a version that did not note it.

    Args:
        results: its ``results.json``.
    """
    looked = results.get("looked_at_test_part")
    test = results.get("test")
    if looked is None:
        return ""
    if test is None:
        return "no test image was looked at (test never): matcaps eval and the run's folder test it"
    if looked:
        return f"the test part was looked at: {test['num_images']:,} images of it"
    return f"no test part was looked at: the {test['num_images']:,} images were kept out of the training part"
