"""A policy for one engine: BatchQueue, IndexPolicy and RequestSelection, as a scheduler like any other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv

import baselines
from agents.config import Training
from agents.curriculum import Curriculum
from agents.problem import EnvironmentProblem, Numbers, Policy
from agents.problems.serving_numbers import serving_numbers
from agents.problems.static_knobs import StaticBest, tune_static
from agents.problems.workload_split import Split, at_load, workload_split
from agents.report import AGENT, engine_report
from agents.settings import DQNSettings
from llmsched_env.envs.as_scheduler import as_scheduler, features_of
from llmsched_env.envs.batch_queue import ORDERS, Knobs, parametric
from llmsched_env.envs.index_policy import IndexNumbers
from llmsched_env.envs.rewards import ENGINE_REWARDS
from llmsched_env.evaluation import compare
from llmsched_env.evaluation.cases import TEST_SEEDS, TUNING_SEEDS, Cases, seed_range
from llmsched_env.machine.config import EngineConfig
from llmsched_env.objectives import OBJECTIVES
from llmsched_env.policies.index import index
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.validation import check_choice

PUBLISHED = ("fastertransformer", "vllm_prefill_first", "orca", "sarathi")
"""The baselines of arXiv 2504.07347, at their published defaults."""
TOKEN_BUDGETS = (256, 384, 512, 768, 1024, 2048, 4096, 8192)
_REWARDS = {reward.name: reward.objective for reward in ENGINE_REWARDS if reward.objective is not None}


class EngineProblem(EnvironmentProblem):
    """A policy for one engine.

    Args:
        config: what to train.
        say: prints progress messages.
        split: the requests for training, for tuning and for test; None: those that the config names.
        engine: the machine; None: the one that the config names.
    """

    def __init__(
        self,
        config: Training,
        say: Callable[[str], None] = print,
        split: Split | None = None,
        engine: EngineConfig | None = None,
    ) -> None:
        self.config, self.say = config, say
        self.engine = config.engines()[0] if engine is None else engine
        check_choice("reward", config.reward, tuple(_REWARDS))
        self.objective = OBJECTIVES[_REWARDS[config.reward]]
        self.split = workload_split(config.workload, config.slo, config.horizon) if split is None else split
        for workload in (self.split.tuning, self.split.test):
            at_load(workload, config.load[0], self.engine)  # refuses what can't be scaled, before any run
        self._own_arms = "arms" in config.env_arguments
        self._fixed = self._usual_arguments() | dict(config.env_arguments)
        self.vector_env(1).close()  # refuses arguments that the environment doesn't have
        self.features = features_of(config.env_id, **self._fixed)

    def _usual_arguments(self) -> dict[str, Any]:
        timed = {} if self.config.env == "RequestSelection" else {"decision_interval": self.config.decision_interval}
        levels = {"token_budgets": TOKEN_BUDGETS, "admission_limits": (np.inf,)}
        return timed | (levels if self.config.env == "BatchQueue" else {})

    @property
    def arguments(self) -> dict[str, Any]:  # type: ignore[override]
        """Of the environment, which say what actions mean; DQN's choice is among the best static settings."""
        chooses = self.config.algo == "dqn" and not self._own_arms
        return self._fixed | ({"arms": self._arms} if chooses else {})

    @cached_property
    def _arms(self) -> tuple[tuple[int, ...], ...]:
        settings = self.config.settings
        assert isinstance(settings, DQNSettings)
        return tuple(self._levels(*setting) for setting in self.static_best.finalists[: settings.arms])

    @cached_property
    def knobs(self) -> Knobs:
        """The levels of BatchQueue's knobs."""
        levels = {name: self._fixed[name] for name in ("token_budgets", "admission_limits", "watermarks")
                  if name in self._fixed}  # fmt: skip
        return Knobs(**levels)

    def _levels(self, token_budget: int, order: str) -> tuple[int, ...]:
        return tuple(self.knobs.encode(token_budget, self.knobs.admission_limits[-1], order).tolist())

    @cached_property
    def static_best(self) -> StaticBest:
        """The best static setting of the agent's own knobs, which is also where it starts."""
        self.say("Tuning the static baseline: the best fixed setting of the agent's knobs ...")
        best = tune_static(self.tuning_cases, self.knobs, self.objective)
        value = self.objective.text(best.value)
        self.say(
            f"  token_budget={best.token_budget}, order={best.order}: {self.objective.title} {value} on tuning seeds."
        )
        return best

    @cached_property
    def tuning_cases(self) -> Cases:
        """Runs on which the static baseline is tuned and checkpoints are chosen; each drains."""
        config = self.config
        seeds = (TUNING_SEEDS,) if self.split.recorded else seed_range(TUNING_SEEDS, config.tuning_seeds)
        workloads = tuple(at_load(self.split.tuning, load, self.engine) for load in config.load)
        return Cases(workloads, tuple(seeds), self.engine)

    @cached_property
    def others(self) -> dict[str, Scheduler]:
        """What the agent is compared with."""
        env, arguments = self.config.env, self._fixed
        if env == "RequestSelection":
            budget = arguments.get("token_budget", 512)
            order = ORDERS.index("shortest_prompt")
            return {
                "fcfs": baselines.get("sarathi")(token_budget=budget),
                "shortest_prompt": replace(parametric(token_budget=budget, order=order), name="shortest_prompt"),
            }
        published = {name: baselines.get(name) for name in PUBLISHED}
        return published | ({"index": index} if env == "IndexPolicy" else {"static_best": self.static_best.scheduler})

    def start_action(self) -> np.ndarray | None:
        env = self.config.env
        if env == "IndexPolicy":
            return None if self._own_arms else IndexNumbers().encode()
        if env == "RequestSelection" or self._own_arms:
            return None
        if self.config.algo == "dqn":
            return np.array(0)
        return np.array(self._levels(self.static_best.token_budget, self.static_best.order))

    def vector_env(self, num_envs: int, spent: float = 1.0) -> VectorEnv[Any, Any, Any]:
        config, aids = self.config, self.config.learning_aids
        load, horizon = config.episode_load, config.episode_horizon
        if aids.curriculum > 0:
            load, horizon = Curriculum.of(config).at(spent)
        more: dict[str, Any] = {"reference": self._reference()} if aids.reference else {}
        if aids.shared_traces > 1:
            more["shared_traces"] = aids.shared_traces if num_envs > 1 else 1
        return gym.make_vec(
            config.env_id, num_envs=num_envs, vectorization_mode="vector_entry_point", workload=self.split.training,
            engine=self.engine, load=load, horizon=horizon, reward=config.reward,
            **(self._fixed if num_envs == 1 else self.arguments), **more,
        )  # fmt: skip

    def _reference(self) -> Scheduler:
        return self.static_best.scheduler if self.config.env == "BatchQueue" else list(self.others.values())[-1]

    def scheduler(self, policy: Policy | Path, name: str = AGENT) -> Scheduler:
        """The scheduler that a policy is."""
        return as_scheduler(policy, self.config.env_id, name=name, **self.arguments)

    def references(self) -> dict[str, Numbers]:
        return {name: serving_numbers(scheduler, self.tuning_cases) for name, scheduler in self.others.items()}

    def numbers(self, policy: Policy) -> Numbers:
        return serving_numbers(self.scheduler(policy), self.tuning_cases)

    def report(self, best: Path, folder: Path, command: str) -> str:
        config = self.config
        note = f"{config.algo.upper()} for {self.objective.name}; checkpoint chosen on tuning seeds"
        notes = {AGENT: note}
        if config.env == "BatchQueue":
            notes["static_best"] = self.static_best.note
        comparison = compare(
            self.others | {AGENT: self.scheduler(best)},
            {self.split.test.name: self.split.test},
            config.load,  # type: ignore[arg-type]  # numbers and "recorded"
            seed_range(TEST_SEEDS, config.seeds),
            self.engine,
            folder=folder,
            notes=notes,
        )
        return engine_report(comparison, folder, command, reference=list(self.others)[-1])
