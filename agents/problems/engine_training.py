"""What trainings of a policy for one engine have in common."""

from __future__ import annotations

from dataclasses import dataclass

from agents.objectives import OBJECTIVES
from llmsched_env.validation import check_choice, check_integer, check_number, check_range


@dataclass(frozen=True, slots=True)
class EngineTraining:
    """Where a policy for one engine is trained, validated and tested.

    Attributes:
        workload: name of a preset.
        engine: GPU profile.
        load: range from which the load of each training episode is drawn.
        eval_loads: loads of tuning, validation and test.
        objective: "mean_e2el" or "slo_attainment".
        horizon: length of training episodes, and of the arrivals of other runs, s.
        steps: environment steps to train for, over all environments; None: no limit.
        num_envs: environments stepped together.
        validations: how often to validate during training.
        tuning_seeds: runs per load in tuning and validation.
        test_seeds: runs per load in the final comparison.
        seed: of the training.

    Raises:
        ValueError: naming the field, its value and what is allowed.
    """

    workload: str = "azure-chat"
    engine: str = "llama-3.1-8b_h100-80gb_tp1_aic"
    load: tuple[float, float] = (0.6, 1.05)
    eval_loads: tuple[float, ...] = (0.6, 0.8, 0.95)
    objective: str = "mean_e2el"
    horizon: float = 120.0
    steps: int | None = None
    num_envs: int = 64
    validations: int = 15
    tuning_seeds: int = 4
    test_seeds: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice("objective", self.objective, tuple(OBJECTIVES))
        check_range("load", self.load, above=0)
        check_integer("number of eval_loads", len(self.eval_loads), at_least=1)
        for load in self.eval_loads:
            check_number("eval_loads", load, above=0)
        check_number("horizon", self.horizon, above=0, unit="s")
        for name in ("num_envs", "validations", "tuning_seeds", "test_seeds"):
            check_integer(name, getattr(self, name), at_least=1)
        check_integer("seed", self.seed, at_least=0)
