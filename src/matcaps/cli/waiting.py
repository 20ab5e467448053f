"""How threads of a command wait for one another."""

import os

# GNU's OpenMP runtime comes with torch. A thread of it that waits for another turns in circles for milliseconds before
# it sleeps; where other processes want the cores too, a training step then takes several times as long. Ours
# sleep sooner.
# Figures: docs/log.md, and `python -m benchmarks.cpu.busy`.
SETTINGS = {"GOMP_SPINCOUNT": "10000"}


def let_waiting_threads_sleep() -> None:
    """Set that in the environment, which is read when torch is first imported; what the user has set stays."""
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
        os.environ.update(SETTINGS)
