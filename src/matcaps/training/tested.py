"""Describe, from a run's record, which images it was tested on."""

from collections.abc import Mapping
from typing import Any


def describe_tested(results: Mapping[str, Any]) -> str:
    """Describe what a run was tested on, and whether it used a test part; empty for versions that did not record it.

    Args:
        results: its ``results.json``.
    """
    used_test_part = results.get("looked_at_test_part")
    test = results.get("test")
    if used_test_part is None:
        return ""
    if test is None:
        return "no test image was used (test never): test it with matcaps eval and the run's folder"
    if used_test_part:
        return f"the test part was used: {test['num_images']:,} images of it"
    return f"no test part was used: the {test['num_images']:,} images were kept out of the training part"
