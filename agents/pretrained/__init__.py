"""Trained policies that come with the project; `NAME.md` beside each says what it was trained on, and how it does."""

from pathlib import Path

from agents.learned_policies import load_index_policy, load_network_policy, load_router
from llmsched_env.simulator.router import Router
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.validation import check_choice

FOLDER = Path(__file__).parent
NAMES = ("slo", "slo_pausing", "slo_scratch", "latency", "latency_pausing")
"""Of single engines: for SLO attainment and for the mean end-to-end latency, within four knobs of vLLM and beyond; and
for SLO attainment what training alone finds from plain constants."""
NETWORK = "network"
"""Of networks of engines, for `simulate_network`."""
ROUTER = "router"
"""Of clusters; no scheduler, so it has a function of its own."""


def load(name: str) -> Scheduler:
    """The pretrained scheduler of this name, one of `NAMES` or `NETWORK`.

    Raises:
        ValueError: if there is no such policy; the message lists those there are.
    """
    check_choice("pretrained policy", name, (*NAMES, NETWORK))
    if name == NETWORK:
        return load_network_policy(FOLDER / "network.npz")
    return load_index_policy(FOLDER / f"{name}.npz", f"pretrained_{name}")


def router() -> Router:
    """The pretrained router, for `simulate_network`."""
    return load_router(FOLDER / f"{ROUTER}.npz", "pretrained_router")
