"""Which request comes next in a batch, by MaskablePPO on `llmsched/RequestSelection-v0`."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from sb3_contrib import MaskablePPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecNormalize

import baselines
from agents.objectives import OBJECTIVES, REWARDS
from agents.problems.engine_training import EngineTraining
from agents.run import Say, keep_config
from agents.sb3.checkpoint import save_with
from agents.sb3.environment import normalized
from agents.sb3.learner import BEST, CHECKPOINTS, GradientLearner, GradientProblem, State
from agents.sb3.maskable_ppo import BudgetedMaskablePPO, MaskablePPOSettings, make_maskable_ppo
from agents.sb3.slot_policy import NoteSeconds
from agents.training_budget import TrainingBudget
from llmsched_env.envs.batch_queue import ORDERS, parametric
from llmsched_env.envs.request_selection import RequestSelectionEnv
from llmsched_env.evaluation import TEST_SEEDS, TUNING_SEEDS, seed_range
from llmsched_env.evaluation.cases import Cases
from llmsched_env.intervals import paired_interval
from llmsched_env.machine.config import EngineConfig
from llmsched_env.results.records import Result
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.validation import check_integer
from llmsched_env.workloads import Workload, preset

STATE = "training.json"  # member of a checkpoint: what resuming needs beyond the model


@dataclass(frozen=True, slots=True)
class SelectionTraining(EngineTraining):
    """All that determines a training.

    Attributes:
        slots: number of waiting requests to choose from.
        token_budget: tokens of a batch.
        work_conserving: whether a batch goes on as long as a request in a slot fits.
        ppo: hyper-parameters.

    Raises:
        ValueError: naming the field, its value and what is allowed.
    """

    load: tuple[float, float] = (0.7, 1.05)
    eval_loads: tuple[float, ...] = (0.8, 0.95)
    horizon: float = 60.0
    steps: int | None = 500_000
    num_envs: int = 32
    validations: int = 8
    slots: int = 16
    token_budget: int = 512
    work_conserving: bool = False
    ppo: MaskablePPOSettings = MaskablePPOSettings()

    def __post_init__(self) -> None:
        EngineTraining.__post_init__(self)
        for name in ("slots", "token_budget", "steps"):
            check_integer(name, getattr(self, name), at_least=1)
        check_integer("num_envs * n_steps", self.num_envs * self.ppo.n_steps, at_least=2)

    def choices(self) -> dict[str, Any]:
        """Arguments of the environment that say what is chosen from."""
        return {"slots": self.slots, "token_budget": self.token_budget, "work_conserving": self.work_conserving}

    def cases(self, first_seed: int, seeds: int) -> Cases:
        """Runs at the loads of evaluation; each drains."""
        engine = EngineConfig.for_gpu(self.engine)
        workload = preset(self.workload, horizon=self.horizon)
        loads = tuple(workload.at_load(load, engine) for load in self.eval_loads)
        return Cases(loads, tuple(seed_range(first_seed, seeds)), engine)

    def references(self) -> dict[str, Scheduler]:
        """First come, first served and the shortest prompt first, with the same token budget."""
        order = ORDERS.index("shortest_prompt")
        return {
            "fcfs": baselines.get("sarathi")(token_budget=self.token_budget),
            "shortest_prompt": replace(parametric(token_budget=self.token_budget, order=order), name="shortest_prompt"),
        }


def make_env(num_envs: int, **kwargs: Any) -> VecNormalize:
    """The vector environment as MaskablePPO sees it, with rewards scaled by the spread of their returns."""
    env = gym.make_vec(
        "llmsched/RequestSelection-v0", num_envs=num_envs, vectorization_mode="vector_entry_point", **kwargs
    )
    return normalized(env, gamma=0.99)


def run_agent(
    model: BaseAlgorithm, workload: Workload, engine: EngineConfig, seed: int, choices: Mapping[str, Any]
) -> Result:
    """The requests of one seed under the most probable choices, until all have left."""
    fixed = Workload.from_table(workload.sample(seed), workload.name)
    env = RequestSelectionEnv(fixed, engine, load=None, horizon=None, record="batches", **choices)
    assert isinstance(model, MaskablePPO)
    obs, info = env.reset(seed=0)
    over = False
    while not over:
        action, _ = model.predict(obs, deterministic=True, action_masks=info["action_mask"])
        obs, _, over, _, info = env.step(int(action))
    return env.result()


def metrics(model: BaseAlgorithm, cases: Cases, config: SelectionTraining) -> np.ndarray:
    """f8[workloads x seeds]: the metric of the objective, in the order of `Cases.map`."""
    metric = OBJECTIVES[config.objective].metric
    return np.array(
        [
            run_agent(model, workload, cases.engine, seed, config.choices()).summary()[metric]
            for workload in cases.workloads
            for seed in cases.seeds
        ]
    )


class SelectionProblem(GradientProblem):
    """Training of a policy that selects requests, in a folder.

    Args:
        config: what to train.
    """

    def __init__(self, config: SelectionTraining) -> None:
        self.config = config
        self.objective = OBJECTIVES[config.objective]
        self.seed, self.validations = config.seed, config.validations

    @cached_property
    def _cases(self) -> Cases:
        return self.config.cases(TUNING_SEEDS, self.config.tuning_seeds)

    def environment(self, spent: float) -> VecNormalize:
        config = self.config
        return make_env(
            config.num_envs, workload=preset(config.workload, horizon=config.horizon), engine=config.engine,
            load=config.load, horizon=config.horizon, reward=REWARDS[config.objective], **config.choices(),
        )  # fmt: skip

    def model(self, env: VecNormalize, budget: TrainingBudget, seed: int, started: bool) -> BaseAlgorithm:
        return make_maskable_ppo(env, self.config.ppo, budget, seed)

    def callbacks(self, model: BaseAlgorithm, budget: TrainingBudget, first: Path) -> list[BaseCallback]:
        env = model.get_env()
        assert env is not None
        return [NoteSeconds(env.unwrapped)]

    def references(self) -> dict[str, dict[str, float]]:
        metric, schedulers = self.objective.metric, self.config.references()
        values = self._cases.map(list(schedulers.values()), lambda result: result.summary()[metric])
        return {name: {metric: float(np.mean(row))} for name, row in zip(schedulers, values, strict=True)}

    def numbers(self, model: BaseAlgorithm) -> dict[str, float]:
        return {self.objective.metric: float(metrics(model, self._cases, self.config).mean())}

    def save(self, model: BaseAlgorithm, path: Path, state: State) -> None:
        save_with(model, path, STATE, json.dumps(state))

    def state(self, path: Path) -> State:
        return read_state(path)

    def sitting(self, state: State) -> int:
        steps: int = state["steps"]
        return steps


def train(config: SelectionTraining, folder: Path, say: Say = print) -> None:
    """Train until the steps are used up, from the last checkpoint of `folder` if there is one.

    Raises:
        ValueError: if another training is in the folder.
        KeyboardInterrupt: if interrupted, after saving a checkpoint.
    """
    keep_config(folder, asdict(config), free=("steps",))
    GradientLearner(SelectionProblem(config), folder, config.steps, say=say).train()


def read_state(checkpoint: Path) -> State:
    """The state of a training in a checkpoint."""
    with zipfile.ZipFile(checkpoint) as archive:
        state: State = json.loads(archive.read(STATE))
    return state


def evaluate(config: SelectionTraining, folder: Path, others: Sequence[str] = ()) -> str:
    """Compare the best checkpoint with its references, and with `others` of the registry, on test requests.

    A line a scheduler and load: its mean, and the mean paired difference of the agent to it with the half width of the
    95 % t-interval over seeds.
    """
    objective = OBJECTIVES[config.objective]
    model = BudgetedMaskablePPO.load(folder / CHECKPOINTS / BEST, device="cpu")
    cases = config.cases(TEST_SEEDS, config.test_seeds)
    agent = metrics(model, cases, config).reshape(len(cases.workloads), -1)
    schedulers = config.references() | {name: baselines.get(name) for name in others}
    values = cases.map(list(schedulers.values()), lambda result: result.summary()[objective.metric])
    lines = []
    for load, own, rows in zip(config.eval_loads, agent, zip(*_by_load(values, len(agent)), strict=True), strict=True):
        lines.append(f"load {load:g}: agent {objective.text(own.mean())}")
        for name, theirs in zip(schedulers, rows, strict=True):
            mean, half = (objective.scale * x for x in paired_interval(own, theirs))
            lines.append(f"  {name}: {objective.text(theirs.mean())}; agent {mean:+.4g} ± {half:.2g} {objective.unit}")
    return "\n".join(lines)


def _by_load(values: list[list[float]], loads: int) -> list[np.ndarray]:
    return [np.array(row).reshape(loads, -1) for row in values]
