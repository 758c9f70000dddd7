"""Trained policies that come with the package. `NAME.md` says what each was trained on, and how well it does."""

from pathlib import Path

from llmsched_env.policies import learned_index, learned_network, learned_router
from llmsched_env.simulator.router import Router
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.validation import check_choice

FOLDER = Path(__file__).parent
NAMES = ("slo", "slo_pausing", "latency", "latency_pausing")
"""Of single engines: for SLO attainment and for the mean end-to-end latency, within four knobs of vLLM and beyond."""
NETWORK = "network"
"""Of networks of engines, for `simulate_network`."""
ROUTER = "router"
"""Of clusters; it is no scheduler, so `router` loads it."""


def file_of(name: str) -> Path:
    """The file with the weights of a policy: one of `NAMES`, `NETWORK` or `ROUTER`.

    Raises:
        ValueError: if there is no such policy; the message lists those there are.
    """
    return FOLDER / f"{check_choice('pretrained policy', name, (*NAMES, NETWORK, ROUTER))}.npz"


def load(name: str) -> Scheduler:
    """The pretrained scheduler of this name, one of `NAMES` or `NETWORK`.

    Raises:
        ValueError: if there is no such policy; the message lists those there are.
    """
    check_choice("pretrained policy", name, (*NAMES, NETWORK))
    if name == NETWORK:
        return learned_network.load(file_of(name))
    return learned_index.load(file_of(name), f"pretrained_{name}")


def router() -> Router:
    """The pretrained router, for `simulate_network`."""
    return learned_router.load(file_of(ROUTER), "pretrained_router")
