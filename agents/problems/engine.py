"""A policy for one engine: BatchQueue, IndexPolicy and RequestSelection, as a scheduler like any other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
from agents.learning_curve import NEUTRAL, STATIC_BEST
from agents.problem import EnvironmentProblem, Numbers, Policy
from agents.problems.background import Background
from agents.problems.constant_action import (
    BestConstant,
    best_constant,
    neutral_action,
    scheduler_of,
)
from agents.problems.judge import Judge
from agents.problems.rivals import RivalTuning, TunedRival, defaults, rivals
from agents.problems.serving_numbers import mean_numbers, serving_numbers
from agents.problems.workload_split import Split, at_load, workload_split
from agents.report import AGENT, engine_report
from agents.settings import DQNSettings
from llmsched_env.envs.actions import Actions
from llmsched_env.envs.as_scheduler import actions_of, as_scheduler, features_of
from llmsched_env.envs.batch_queue import ORDERS, Knobs, parametric
from llmsched_env.envs.rewards import ENGINE_REWARDS
from llmsched_env.evaluation import Comparison, compare
from llmsched_env.evaluation.cases import TEST_SEEDS, TUNING_SEEDS, Cases, seed_range
from llmsched_env.evaluation.comparison import SchedulerByCell
from llmsched_env.evaluation.run_cache import digest_of, distinct_seeds, file_name, scheduler_digest, source_of
from llmsched_env.files import cached, read_object, write_json
from llmsched_env.machine.config import EngineConfig
from llmsched_env.objectives import OBJECTIVES
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.validation import check_choice
from llmsched_env.workloads import Workload

TOKEN_BUDGETS = (256, 384, 512, 768, 1024, 2048, 4096, 8192)
_LEAST_CONSTANTS = 32  # constant actions that are tried where no baseline is tuned
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
        table = self.split.tuning.sample(TUNING_SEEDS)
        if self.objective.needs() and not np.isfinite([table.ttft_slo, table.tpot_slo]).any():
            raise ValueError(
                f"slo must be given for reward {config.reward!r}: {self.split.tuning.name!r} has none in its requests"
            )
        for workload in (self.split.tuning, self.split.test):
            at_load(workload, config.load[0], self.engine)  # refuses what can't be scaled, before any run
        self._as_named = split is None and engine is None  # so that another process can open the same problem
        self._own_arms = "arms" in config.env_arguments
        self._fixed = self._usual_arguments() | dict(config.env_arguments)
        self.vector_env(1).close()  # refuses arguments that the environment doesn't have
        self.features = features_of(config.env_id, **self._fixed)
        self._numbers: dict[str, Numbers] = {}
        self._background: Background | None = None

    def _usual_arguments(self) -> dict[str, Any]:
        timed = {} if self.config.env == "RequestSelection" else {"decision_interval": self.config.decision_interval}
        if self.config.env == "BatchQueue" and self.config.version == 0:
            return timed | {"token_budgets": TOKEN_BUDGETS, "admission_limits": (np.inf,)}
        discrete = self.config.env == "BatchQueue" and self.config.searches  # as evolution strategies need it
        return timed | ({"actions": "knobs"} if discrete else {})

    @property
    def arguments(self) -> dict[str, Any]:  # type: ignore[override]
        """Of the environment, which say what actions mean; DQN's choice is among the best constant actions."""
        chooses = self.config.algo == "dqn" and not self._own_arms
        return self._fixed | ({"arms": self._arms} if chooses else {})

    @cached_property
    def _arms(self) -> tuple[tuple[float, ...], ...]:
        settings = self.config.settings
        assert isinstance(settings, DQNSettings)
        return tuple(tuple(action.tolist()) for action in self.static_best.finalists[: settings.arms])

    @cached_property
    def actions(self) -> Actions:
        """What the agent's actions mean, before DQN's arms are chosen among them."""
        return actions_of(self.config.env_id, **self._fixed)

    @property
    def _steers(self) -> bool:
        """Whether actions are parameters of a scheduler, so that a constant one is a scheduler of its own."""
        return self.config.env != "RequestSelection"

    @cached_property
    def tuning_cases(self) -> Cases:
        """Runs on which constants are searched and checkpoints are chosen; each drains."""
        workloads = tuple(at_load(self.split.tuning, load, self.engine) for load in self.config.load)
        return Cases(workloads, self._tuning_seeds, self.engine)

    @property
    def _tuning_seeds(self) -> tuple[int, ...]:
        return (TUNING_SEEDS,) if self.split.recorded else tuple(seed_range(TUNING_SEEDS, self.config.tuning_seeds))

    @cached_property
    def static_best(self) -> BestConstant:
        """The best constant action, by as many simulations as all tuned baselines have together."""
        trials = max(_LEAST_CONSTANTS, self.config.trials * len(rivals(self.objective.name)))

        def search() -> BestConstant:
            self.say("Searching the best constant action ...")
            return best_constant(self.actions, Judge.on(self.tuning_cases, self.objective), trials)

        return search() if self.workplace is None else self._kept_constant(self.workplace, trials, search)

    def _kept_constant(self, workplace: Path, trials: int, search: Callable[[], BestConstant]) -> BestConstant:
        cases = self.tuning_cases
        requests = [distinct_seeds(workload, cases.seeds, self.engine)[1] for workload in cases.workloads]
        code = [source_of(part) for part in (BestConstant, Judge, type(self.objective))]
        what = (
            requests,
            repr(self.actions),
            scheduler_digest(self.actions.scheduler),
            self.engine,
            cases.seeds,
            trials,
        )
        name = file_name(STATIC_BEST, self.objective.name, digest_of(code, *what))
        return cached(
            workplace / "tuned" / f"{name}.json",
            read=lambda path: BestConstant.from_record(read_object(path), self.actions),
            compute=search,
            write=lambda found, path: write_json(path, found.record(), indent=1),
        )

    @cached_property
    def known(self) -> dict[str, Scheduler]:
        """What the agent is compared with and needs no search: published defaults, and the neutral action."""
        if not self._steers:
            budget = self._fixed.get("token_budget", 512)
            order = ORDERS.index("shortest_prompt")
            return defaults() | {
                NEUTRAL: replace(baselines.get("sarathi")(token_budget=budget), name=NEUTRAL),
                "shortest_prompt": replace(parametric(token_budget=budget, order=order), name="shortest_prompt"),
            }
        neutral = neutral_action(self.actions)
        return defaults() | ({} if neutral is None else {NEUTRAL: scheduler_of(self.actions, neutral, NEUTRAL)})

    @cached_property
    def tuned(self) -> dict[str, TunedRival]:
        """The registered baselines for the objective, tuned in this run."""
        if self.config.trials == 0:
            return {}
        tuning = RivalTuning(
            self.split.tuning, self.config.load, self.engine, self.objective, self._tuning_seeds,  # type: ignore[arg-type]
            self.config.trials, self.workplace,
        )  # fmt: skip
        return {f"{name} (tuned)": found for name, found in tuning.all(self.say).items()}

    def prepare_opponents(self) -> None:
        """Search and tune all that the agent is compared with."""
        if self._steers:
            _ = self.static_best
        _ = self.tuned

    def begin(self, folder: Path) -> None:
        if self.config.trials > 0 and self._as_named:
            self._background = Background(folder, self.workplace or folder)

    def end(self) -> None:
        if self._background is not None:
            self._background.stop()
            self._background = None

    @property
    def complete(self) -> bool:
        """Whether all opponents are known by now."""
        return self._background is None or self._background.done

    def start_action(self) -> np.ndarray | None:
        """Of knobs the best constant action; else the neutral one."""
        if not self._steers or self._own_arms:
            return None
        if self.config.algo == "dqn":
            return np.array(0)
        return self.static_best.action if isinstance(self.actions, Knobs) else neutral_action(self.actions)

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
        return self.static_best.scheduler if self._steers else self.known["shortest_prompt"]

    def scheduler(self, policy: Policy | Path, name: str = AGENT) -> Scheduler:
        """The scheduler that a policy is."""
        return as_scheduler(policy, self.config.env_id, name=name, **self.arguments)

    def references(self) -> dict[str, Numbers]:
        found = {name: self._numbers_of(name, scheduler) for name, scheduler in self.known.items()}
        if not self.complete:
            return found
        if self._steers:
            found[STATIC_BEST] = self._numbers_of(STATIC_BEST, self.static_best.scheduler)
        return found | {name: self._numbers_of(name, rival.by_load) for name, rival in self.tuned.items()}

    def _numbers_of(self, name: str, rule: Scheduler | Mapping[Any, Scheduler]) -> Numbers:
        if name not in self._numbers:
            by_load = [rule if isinstance(rule, Scheduler) else rule[load] for load in self.config.load]
            cases = [replace(self.tuning_cases, workloads=(workload,)) for workload in self.tuning_cases.workloads]
            self._numbers[name] = mean_numbers(list(zip(by_load, cases, strict=True)))
        return self._numbers[name]

    def numbers(self, policy: Policy) -> Numbers:
        return serving_numbers(self.scheduler(policy), self.tuning_cases)

    def offered_tests(self) -> list[Workload]:
        """The test requests at each load."""
        return [at_load(self.split.test, load, self.engine) for load in self.config.load]

    def compared(
        self, agents: Mapping[str, Path], folder: Path, more: Mapping[str, Scheduler] | None = None
    ) -> Comparison:
        """Policies and all opponents on test requests.

        Args:
            agents: files of policies, by the name that tables call them.
            folder: where finished runs are kept.
            more: further schedulers.
        """
        config, test = self.config, self.split.test
        note = f"{config.algo.upper()} for {self.objective.name}; checkpoint chosen on tuning seeds"
        schedulers: dict[str, Scheduler | SchedulerByCell] = dict(self.known)
        notes = {name: "published defaults" for name in defaults()}
        if self._steers:
            schedulers[STATIC_BEST] = self.static_best.scheduler
            notes[STATIC_BEST] = self.static_best.note
        for name, rival in self.tuned.items():
            schedulers[name] = {(test.name, load): rule for load, rule in rival.by_load.items()}
            notes[name] = rival.note
        schedulers |= {name: self.scheduler(policy) for name, policy in agents.items()} | dict(more or {})
        return compare(
            schedulers, {test.name: test}, config.load, seed_range(TEST_SEEDS, config.seeds), self.engine,  # type: ignore[arg-type]
            folder=self.workplace or folder, notes=notes | dict.fromkeys(agents, note),
        )  # fmt: skip

    def report(self, best: Path, folder: Path, command: str) -> str:
        return engine_report(self.compared({AGENT: best}, folder), self.objective, folder, command)
