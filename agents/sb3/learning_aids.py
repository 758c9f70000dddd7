"""Options that make learning easier without changing which policy is best in the end."""

from dataclasses import dataclass
from pathlib import Path

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback

from agents.sb3.checkpoint import read_weights
from agents.sb3.curriculum import Curriculum, GrowEpisodes
from agents.sb3.pull_to_start import PullToStart, actor_weights
from agents.training_budget import TrainingBudget
from llmsched_env.validation import check_integer, check_number


@dataclass(frozen=True, slots=True)
class LearningAids:
    """Options of a training; `docs/learning.md` says what each is for.

    Attributes:
        reference: whether rewards are compared with the tuned static baseline on the same requests.
        shared_traces: how many environments in a row serve the same requests; above 1, PPO takes advantages relative
            to the mean of these at the same time.
        curriculum: share of the budget over which the episodes grow to their full load and length; 0: they begin so.
        curriculum_start: share of the range of loads and of the length that they have at the start.
        anchor: share of the way back to its start that the policy of PPO is moved after each update, at the start of
            training; decays linearly to 0 over the budget.

    Raises:
        ValueError: naming the field, its value and what is allowed.
    """

    reference: bool = False
    shared_traces: int = 1
    curriculum: float = 0.0
    curriculum_start: float = 0.25
    anchor: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.reference, bool):
            raise ValueError(f"reference must be True or False, got {self.reference!r}")
        check_integer("shared_traces", self.shared_traces, at_least=1)
        check_number("curriculum", self.curriculum, at_least=0, at_most=1)
        check_number("curriculum_start", self.curriculum_start, above=0, at_most=1)
        check_number("anchor", self.anchor, at_least=0, at_most=1)

    def check(self, algo: str, num_envs: int) -> None:
        """Refuse what the other fields of a training make impossible.

        Raises:
            ValueError: naming the field, its value and what is allowed.
        """
        if num_envs % self.shared_traces:
            raise ValueError(f"shared_traces must divide num_envs={num_envs}, got {self.shared_traces}")
        for name, off in (("shared_traces", 1), ("anchor", 0)):
            if algo != "ppo" and getattr(self, name) != off:
                raise ValueError(f"{name} must be {off} unless algo is 'ppo', got {getattr(self, name)}")

    def episodes(self, load: tuple[float, float], horizon: float, interval: float) -> Curriculum:
        """The episodes at each point of a training that has these at full size; times in s."""
        return Curriculum(load, horizon, interval, self.curriculum, self.curriculum_start)

    def callbacks(
        self, model: BaseAlgorithm, budget: TrainingBudget, curriculum: Curriculum, first: Path
    ) -> list[BaseCallback]:
        """What acts during rollouts and after updates.

        Args:
            model: as training begins or goes on.
            budget: of the training.
            curriculum: what `episodes` returned.
            first: the checkpoint of step 0, to which a resumed training is pulled back.
        """
        acting: list[BaseCallback] = []
        if self.curriculum > 0:
            acting.append(GrowEpisodes(curriculum, budget))
        if self.anchor > 0:
            start = read_weights(first) if model.num_timesteps > 0 else model.policy.state_dict()
            acting.append(PullToStart(self.anchor, actor_weights(start), budget))
        return acting
