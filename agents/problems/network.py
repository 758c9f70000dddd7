"""A policy for a network of engines, run in its environment: routing of Cluster, class weights of AgentNetwork."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv

import baselines
from agents.config import Training
from agents.problem import EnvironmentProblem, Numbers, Policy
from agents.report import AGENT, paired_report
from baselines import routers
from llmsched_env.envs.agent_network import AgentNetworkEnv
from llmsched_env.envs.batch_queue import parametric
from llmsched_env.envs.cluster import ClusterEnv
from llmsched_env.envs.cluster_v1 import PREDICTIONS, ClusterV1Env
from llmsched_env.envs.network_runner import UNROUTED, NetworkEnv
from llmsched_env.envs.rewards import NETWORK_REWARDS
from llmsched_env.evaluation.benchmark.network_cases import PRIORITIES, NetworkSetting, mean_tasks
from llmsched_env.evaluation.benchmark.router_cases import cost
from llmsched_env.evaluation.benchmark.routers import TUNED, settings_of
from llmsched_env.evaluation.cases import TEST_SEEDS, TUNING_SEEDS, map_cases, seed_range
from llmsched_env.objectives import Objective
from llmsched_env.results.records import NetworkResult
from llmsched_env.sb3.policy_file import read_network
from llmsched_env.simulator.router import Router
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.simulator.simulate import simulate_network
from llmsched_env.tables.task_table import TaskTable
from llmsched_env.theory import capacity
from llmsched_env.validation import check_choice, check_number
from llmsched_env.workloads import preset
from llmsched_env.workloads.rybko_stolyar import RYBKO_STOLYAR_ENGINES, rybko_stolyar
from llmsched_env.workloads.task_sources import FixedTasks

MEAN_TASKS = Objective(
    name="mean_tasks", metric="mean_tasks", meaning="tasks in the system, averaged over time",
    title="Mean tasks present", scale=1.0, unit="tasks", larger_is_better=False,
)  # fmt: skip
MEAN_CALL = Objective(
    name="mean_call_latency", metric="mean_call_latency", meaning="mean time of a call at its engine",
    title="Mean latency of calls", scale=1.0, unit="s", larger_is_better=False,
)  # fmt: skip
RUN_SECONDS = NetworkSetting().horizon
"""Length of the runs of the Rybko-Stolyar network, which may be unstable, in validation and test."""
R = TypeVar("R")


class NetworkProblem(EnvironmentProblem):
    """A policy for a network of engines.

    Args:
        config: what to train.
    """

    def __init__(self, config: Training) -> None:
        self.config = config
        check_choice("reward", config.reward, tuple(reward.name for reward in NETWORK_REWARDS))
        self.loads = [check_number("load", load, above=0) for load in config.load]  # type: ignore[arg-type]
        self.arguments = {"decision_interval": config.decision_interval} | dict(config.env_arguments)

    @abstractmethod
    def tasks(self, seeds: Sequence[int]) -> list[TaskTable]:
        """The tasks of each load and seed."""

    @abstractmethod
    def single_env(self, tasks: TaskTable) -> NetworkEnv:
        """An environment whose episode serves these tasks."""

    @abstractmethod
    def value(self, result: NetworkResult) -> float:
        """The metric of the objective."""

    @abstractmethod
    def rules(self, tasks: Sequence[TaskTable]) -> dict[str, np.ndarray]:
        """By name of a rule to compare with, f8[tasks] of the metric."""

    def values(self, policy: Policy, tasks: Sequence[TaskTable]) -> np.ndarray:
        """f8[tasks]: the metric under a policy."""
        return np.array([self.value(play(self.single_env(table), policy)) for table in tasks])

    @cached_property
    def _tuning(self) -> list[TaskTable]:
        return self.tasks(seed_range(TUNING_SEEDS, self.config.tuning_seeds))

    def references(self) -> dict[str, Numbers]:
        return {name: {self.objective.metric: float(row.mean())} for name, row in self.rules(self._tuning).items()}

    def numbers(self, policy: Policy) -> Numbers:
        return {self.objective.metric: float(self.values(policy, self._tuning).mean())}

    def report(self, best: Path, folder: Path, command: str) -> str:
        tasks = self.tasks(seed_range(TEST_SEEDS, self.config.seeds))
        rows = {AGENT: self.values(read_network(best), tasks)} | self.rules(tasks)
        return paired_report(rows, self.objective, folder, facts(self.config, command, len(tasks)))


class ClusterProblem(NetworkProblem):
    """Routing of calls to engines, or among routers."""

    objective = MEAN_CALL

    def __init__(self, config: Training) -> None:
        super().__init__(config)
        self.engines = config.engines()
        self.workload = preset(config.workload, horizon=config.horizon)
        if config.version > 0:
            self.workload = self.workload.with_predictor(PREDICTIONS)
        self.vector_env(1).close()  # refuses arguments that the environment doesn't have

    def vector_env(self, num_envs: int, spent: float = 1.0) -> VectorEnv[Any, Any, Any]:
        config, more = self.config, self._resolved
        if config.scores_engines and num_envs > 1:
            more["shared_traces"] = config.learning_aids.shared_traces
        return gym.make_vec(
            config.env_id, num_envs=num_envs, vectorization_mode="vector_entry_point", workload=self.workload,
            engines=self.engines, load=config.episode_load, horizon=config.episode_horizon, reward=config.reward,
            **more,
        )  # fmt: skip

    @property
    def _resolved(self) -> dict[str, Any]:
        """The arguments, with routers and the scheduler in place of their names."""
        found = dict(self.arguments)
        if "routers" in found:
            found["routers"] = tuple(map(routers.get, found["routers"]))
        if "scheduler" in found:
            found["scheduler"] = baselines.get(found["scheduler"])
        return found

    @cached_property
    def _capacity(self) -> float:
        return sum(capacity(engine, self.workload) for engine in self.engines)

    def tasks(self, seeds: Sequence[int]) -> list[TaskTable]:
        drawn = [self.workload.scaled(rate=load * self._capacity) for load in self.loads]
        return [TaskTable.from_columns(workload.sample(seed)) for workload in drawn for seed in seeds]

    def single_env(self, tasks: TaskTable) -> NetworkEnv:
        env = ClusterV1Env if self.config.version > 0 else ClusterEnv
        return env(FixedTasks(tasks), self.engines, load=None, horizon=None, record="requests", **self._resolved)

    def value(self, result: NetworkResult) -> float:
        return cost(result, "mean_e2el")

    @property
    def scheduler(self) -> Scheduler:
        """That of every engine."""
        usual = baselines.vllm_v1 if self.config.version > 0 else parametric
        return self._resolved.get("scheduler", usual)  # type: ignore[no-any-return]

    def references(self) -> dict[str, Numbers]:
        rows = self._route(routers.ROUTERS, self._tuning)  # untuned, as training waits for them
        return {name: {self.objective.metric: float(row.mean())} for name, row in rows.items()}

    def rules(self, tasks: Sequence[TaskTable]) -> dict[str, np.ndarray]:
        """Every registered router, and those with parameters with the best of `trials` settings on tuning seeds."""
        return self._route(routers.ROUTERS | self._tuned, tasks)

    def _route(self, named: dict[str, Router], tasks: Sequence[TaskTable]) -> dict[str, np.ndarray]:
        def run(router: Router, table: TaskTable) -> float:
            return self.value(simulate_network(self.scheduler, table, self.engines, router, record="requests"))

        return _rows(run, named, tasks)

    @cached_property
    def _tuned(self) -> dict[str, Router]:
        found, most = {}, self.config.trials
        for name in TUNED if most > 0 else ():
            settings = settings_of(name)
            kept = settings[:: -(-len(settings) // most)]  # spread over the grid
            rows = self._route({str(k): router for k, router in enumerate(kept)}, self._tuning)
            found[f"{name} (tuned)"] = min(zip(kept, rows.values(), strict=True), key=lambda pair: pair[1].mean())[0]
        return found


class AgentNetworkProblem(NetworkProblem):
    """Weights of the classes of calls in the Rybko-Stolyar network."""

    objective = MEAN_TASKS

    def __init__(self, config: Training) -> None:
        super().__init__(config)
        check_choice("workload of AgentNetwork", config.workload, ("rybko-stolyar",))
        if config.episode_load is None or len(set(config.episode_load)) > 1:
            raise ValueError(f"train_load must be one load, given twice, for AgentNetwork, got {config.train_load}")
        self.vector_env(1).close()  # refuses arguments that the environment doesn't have

    def vector_env(self, num_envs: int, spent: float = 1.0) -> VectorEnv[Any, Any, Any]:
        config = self.config
        return gym.make_vec(
            config.env_id, num_envs=num_envs, vectorization_mode="vector_entry_point", load=config.train_load[0],
            horizon=config.horizon, reward=config.reward, **self.arguments,
        )  # fmt: skip

    def tasks(self, seeds: Sequence[int]) -> list[TaskTable]:
        return rybko_stolyar_tasks(self.loads, seeds)

    def single_env(self, tasks: TaskTable) -> NetworkEnv:
        return AgentNetworkEnv(
            FixedTasks(tasks), RYBKO_STOLYAR_ENGINES, horizon=RUN_SECONDS, record="requests", **self.arguments
        )

    def value(self, result: NetworkResult) -> float:
        return mean_tasks(result)

    def rules(self, tasks: Sequence[TaskTable]) -> dict[str, np.ndarray]:
        return tasks_present(PRIORITIES, tasks)


def play(env: NetworkEnv, policy: Policy) -> NetworkResult:
    """One episode under a policy; the environment must record."""
    obs, _ = env.reset(seed=0)
    over = False
    while not over:
        obs, _, terminated, truncated, _ = env.step(policy(obs))
        over = terminated or truncated
    return env.result()


def rybko_stolyar_tasks(loads: Sequence[float], seeds: Sequence[int]) -> list[TaskTable]:
    """Tasks of runs of `RUN_SECONDS`, at each load with each seed."""
    return [rybko_stolyar(load, RUN_SECONDS).sample(seed) for load in loads for seed in seeds]


def tasks_present(
    schedulers: dict[str, Scheduler], tables: Sequence[TaskTable], horizon: float = RUN_SECONDS
) -> dict[str, np.ndarray]:
    """By name f8[tables]: mean tasks present in the Rybko-Stolyar network up to a horizon, s."""

    def run(scheduler: Scheduler, table: TaskTable) -> float:
        return mean_tasks(
            simulate_network(scheduler, table, RYBKO_STOLYAR_ENGINES, UNROUTED, horizon=horizon, record="requests")
        )

    return _rows(run, schedulers, tables)


def _rows(
    run: Callable[[R, TaskTable], float], rules: dict[str, R], tables: Sequence[TaskTable]
) -> dict[str, np.ndarray]:
    rows = map_cases(run, list(rules.values()), [(table,) for table in tables])
    return dict(zip(rules, map(np.array, rows), strict=True))


def facts(config: Training, command: str, runs: int) -> list[tuple[str, str]]:
    """What was run, for a report."""
    loads = ", ".join(map(str, config.load))
    return [("Command", command), ("Workload", f"{config.workload}, load {loads}"), ("Runs", f"{runs} on test seeds")]
