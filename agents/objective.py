"""What an agent is trained for, and how schedulers are scored by it."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Objective:
    """An objective of training.

    Attributes:
        name: also the name of the environment's reward.
        metric: the number of `Result.summary` that measures it.
        title: how reports call it.
        scale: from that number to what is printed.
        unit: of what is printed.
        larger_is_better: the direction.
    """

    name: Literal["latency", "goodput"]
    metric: str
    title: str
    scale: float
    unit: str
    larger_is_better: bool

    def score(self, value: float) -> float:
        """The metric, negated if small is good: the larger the better."""
        return value if self.larger_is_better else -value


# The goodput reward counts the requests that meet their SLO; of those that arrive, that is `slo_attainment`.
OBJECTIVES = {
    "latency": Objective("latency", "mean_e2el_ms", "Mean E2E latency", 1e-3, "s", larger_is_better=False),
    "goodput": Objective("goodput", "slo_attainment", "Goodput (requests within SLO)", 1e2, "%", larger_is_better=True),
}
