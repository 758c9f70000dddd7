"""The limits of a scheduler as options of `vllm serve`, and what other values of them would change."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llmsched_env.intervals import paired_interval
from llmsched_env.machine.config import EngineConfig
from llmsched_env.simulator.scheduler import Scheduler

OPTIONS = {"token_budget": "--max-num-batched-tokens", "max_num_seqs": "--max-num-seqs"}
FACTORS = {"half": 0.5, "double": 2.0}


@dataclass(frozen=True, slots=True)
class Flag:
    """An option of `vllm serve`.

    Attributes:
        option: its name.
        value: what the scheduler was simulated with.
        changes: "half" and "double", where such a value is allowed: by how much it changes the share of requests that
            meet their targets, and the half width of the 95 % interval of that (nan for one seed).
    """

    option: str
    value: int
    changes: dict[str, tuple[float, float]]

    def __str__(self) -> str:
        return f"{self.option} {self.value}"

    @property
    def sensitivity(self) -> str:
        """The changes as text; empty: there are none."""
        changes = []
        for name, (mean, half) in self.changes.items():
            width = "" if math.isnan(half) else f" ± {100 * half:.1f}"
            changes.append(f"{name} {100 * mean:+.1f}{width}")
        return f"{self.option}: {', '.join(changes)}" if changes else ""


def flags_of(
    scheduler: Scheduler,
    engine: EngineConfig,
    attainment: Sequence[float],
    measure: Callable[[Scheduler], Sequence[float]],
) -> tuple[Flag, ...]:
    """The limits of a scheduler that vLLM has too; none for a learned one, which sets them itself.

    Args:
        scheduler: as it was simulated.
        engine: whose own limits hold as well.
        attainment: share of requests that met their targets, by seed.
        measure: the same of another scheduler, with the same seeds.
    """
    if scheduler.controller is not None:
        return ()
    values = dict(zip(scheduler.params, scheduler.param_values(), strict=True))
    most = {"token_budget": engine.token_budget, "max_num_seqs": engine.max_num_seqs or math.inf}
    flags = []
    for name, option in OPTIONS.items():
        value = min(values.get(name, math.inf), most[name])
        if name not in values or value == math.inf:
            continue
        changes = {}
        for which, factor in FACTORS.items():
            other = math.floor(value * factor)
            if scheduler.params[name].low <= other <= min(most[name], scheduler.params[name].high):
                changes[which] = paired_interval(measure(scheduler(**{name: other})), attainment)
        flags.append(Flag(option, int(value), changes))
    return tuple(flags)
