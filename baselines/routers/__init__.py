"""Routers: rules that send a call to an engine, and the registry of all of them."""

from baselines.registry import ROUTERS as _REGISTRY
from baselines.registry import import_modules
from baselines.routers.distserve import distserve_pools
from llmsched_env.simulator.router import Router

ORDER = ("blind", "queue_lengths", "outstanding_seconds", "affinity", "memory")

import_modules(__name__)

ROUTERS: dict[str, Router] = _REGISTRY.rules
"""All routers by name."""

random_router = ROUTERS["random"]


def get(name: str) -> Router:
    """The router registered under `name`.

    Raises:
        ValueError: for an unknown name, with the closest known ones.
    """
    return _REGISTRY.get(name)


def __getattr__(name: str) -> Router:
    if name in ROUTERS:
        return ROUTERS[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *ROUTERS})


__all__ = ["ROUTERS", "distserve_pools", "get", "random_router", *(name for name in ROUTERS if name != "random")]
