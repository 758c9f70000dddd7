"""Published schedulers, a folder for each family, and the registry of all of them.

`baselines.sarathi` is a scheduler with its default parameters, `baselines.sarathi(token_budget=128)` a re-bound copy.
A scheduler registers itself in the module that defines it; importing this package imports every module of the families.
"""

from baselines.registry import SCHEDULERS, import_modules
from llmsched_env.simulator.scheduler import Scheduler

FAMILIES = ("paper", "systems", "memory", "size_based", "fairness", "flow_control", "slo", "tasks")
"""The folders of the schedulers, in the order of `REGISTRY`; docs/schedulers has a page for each."""

for _family in FAMILIES:
    import_modules(f"{__name__}.{_family}")

REGISTRY: dict[str, Scheduler] = SCHEDULERS.rules
"""All schedulers by name."""


def get(name: str) -> Scheduler:
    """The scheduler registered under `name`.

    Raises:
        ValueError: for an unknown name, with the closest known ones.
    """
    return SCHEDULERS.get(name)


def __getattr__(name: str) -> Scheduler:
    if name in REGISTRY:
        return REGISTRY[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *REGISTRY})


__all__ = ["FAMILIES", "REGISTRY", "get", *REGISTRY]
