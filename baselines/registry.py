"""The registries of schedulers and routers: each rule registers itself in the module that defines it."""

import importlib
import pkgutil
from typing import Generic, TypedDict, TypeVar

from llmsched_env.simulator.router import Router
from llmsched_env.simulator.scheduler import Rule, Scheduler
from llmsched_env.validation import check_choice

R = TypeVar("R", bound=Rule)


class Registry(Generic[R]):
    """Rules of one kind ("scheduler", "router") by name, in the order in which they were registered."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.rules: dict[str, R] = {}

    def register(self, rule: R) -> R:
        """Enter `rule` under its name, and return it.

        Raises:
            ValueError: if the name is taken.
        """
        if rule.name in self.rules:
            raise ValueError(f"{self.kind} {rule.name!r} is registered already; choose another name")
        self.rules[rule.name] = rule
        return rule

    def get(self, name: str) -> R:
        """The rule registered under `name`.

        Raises:
            ValueError: for an unknown name, with the closest known ones.
        """
        return self.rules[check_choice(self.kind, name, tuple(self.rules))]


SCHEDULERS: Registry[Scheduler] = Registry("scheduler")
ROUTERS: Registry[Router] = Registry("router")
register_scheduler = SCHEDULERS.register
register_router = ROUTERS.register


class Declarations(TypedDict, total=False):
    """Arguments of `Scheduler` that several schedulers have in common: `Scheduler(..., **WORK_CONSERVING)`."""

    work_conserving: bool
    throughput_optimal: bool
    mixes_phases: bool
    chunks_prefill: bool


def import_modules(package: str) -> None:
    """Import every module of `package`, so that what they define is registered.

    The package's `ORDER`, a tuple of module names, says which come first, and thus where their rules stand in tables.
    The others follow by name.
    """
    folder = importlib.import_module(package)
    order: tuple[str, ...] = folder.ORDER
    found = [module.name for module in pkgutil.iter_modules(folder.__path__)]
    for name in (*order, *(name for name in found if name not in order)):
        importlib.import_module(f"{package}.{name}")
