"""Trained policies that come with the project; `NAME.md` beside each says what it was trained on, and how it does."""

from pathlib import Path

from agents.steered import load_steered
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.validation import check_choice

FOLDER = Path(__file__).parent
NAMES = ("slo", "latency")
"""Of single engines: for SLO attainment, and for the mean end-to-end latency."""


def load(name: str) -> Scheduler:
    """The pretrained scheduler of this name, one of `NAMES`.

    Raises:
        ValueError: if there is no such policy; the message lists those there are.
    """
    return load_steered(FOLDER / f"{check_choice('pretrained policy', name, NAMES)}.npz", f"pretrained_{name}")
