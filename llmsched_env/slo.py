"""Service level objective of a request."""

from __future__ import annotations

import math
from dataclasses import dataclass

from llmsched_env.validation import check_number


@dataclass(frozen=True, slots=True)
class SLO:
    """Latency targets of one request, in seconds; infinity means no target.

    Attributes:
        ttft: time to first token.
        tpot: mean time per output token after the first.
        e2el: end-to-end latency.

    Raises:
        ValueError: a target is not a number above zero.
    """

    ttft: float = math.inf
    tpot: float = math.inf
    e2el: float = math.inf

    def __post_init__(self) -> None:
        for name in ("ttft", "tpot", "e2el"):
            value = check_number(f"SLO {name}", getattr(self, name), above=0, unit="s", finite=False)
            object.__setattr__(self, name, value)


TRACE_SLO = SLO(ttft=1.0, tpot=0.1)
"""Targets for traces that carry none: those of the preset azure-chat."""
