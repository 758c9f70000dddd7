"""PPO on `llmsched/AgentNetwork-v0`, from scratch, and its comparison with class priorities on held-out tasks."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

import baselines
from agents.budget import Budget
from agents.ppo import BudgetedPPO, PPOSettings, make_model, make_training_env
from llmsched_env.envs.agent_network import AgentNetworkEnv
from llmsched_env.envs.class_weights import class_weights
from llmsched_env.envs.network_runner import UNROUTED
from llmsched_env.network_metrics import backlog
from llmsched_env.simulator.network import simulate_network
from llmsched_env.simulator.records import NetworkResult
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.workloads.rybko_stolyar import BATCH_TOKENS, RYBKO_STOLYAR_ENGINES, rybko_stolyar
from llmsched_env.workloads.tasks import FixedTasks, TaskTable

HELD_OUT = 2**31
"""Seeds of tasks from here on are never drawn in training."""

SETTINGS = PPOSettings(n_steps=50, batch_size=800, learning_rate=1e-3, ent_coef=0.003, time_constant=400.0)
EPISODE_NUMBERS = ("episode_arrived", "episode_finished", "episode_mean_tasks", "episode_mean_calls")

Policy = Callable[[np.ndarray], np.ndarray]


def priority(first: Sequence[int]) -> Scheduler:
    """Strict priority to the classes `first` over the others in the Rybko-Stolyar network; none: FCFS."""
    return class_weights(4)(**{f"weight_{k}": 1.0 for k in first})


PRIORITIES: dict[str, Scheduler] = {
    "leaving first": priority((1, 3)),  # unstable: the two second visits form a virtual station
    "entering first": priority((0, 2)),
    "type A first": priority((0, 1)),
    "first come, first served": priority(()),
} | {
    name: baselines.get(name)(token_budget=BATCH_TOKENS)
    for name in ("max_pressure", "critical_path", "plas", "atlas", "justitia")
}


@dataclass(frozen=True, slots=True)
class Setting:
    """What is trained and evaluated on.

    Attributes:
        load: of each engine.
        interval: s between decisions.
        training_horizon: s of an episode in training.
        horizon: s of an evaluation run.
    """

    load: float = 0.9
    interval: float = 20.0
    training_horizon: float = 1000.0
    horizon: float = 4500.0

    def tasks(self, seed: int) -> TaskTable:
        """The tasks of held-out run `seed`."""
        return rybko_stolyar(self.load, self.horizon).sample(HELD_OUT + seed)


def train(
    setting: Setting, steps: int, num_envs: int = 16, seed: int = 0, settings: PPOSettings = SETTINGS
) -> BudgetedPPO:
    """A model trained for so many steps over all environments, starting from random weights."""
    env = make_training_env(
        num_envs,
        setting.interval,
        settings.time_constant,
        env_id="llmsched/AgentNetwork-v0",
        episode_numbers=EPISODE_NUMBERS,
        load=setting.load,
        horizon=setting.training_horizon,
    )
    env.seed(seed)
    budget = Budget(steps, None)
    model = make_model(env, setting.interval, settings, budget, seed)
    budget.start()
    return model.learn(steps)


def run_agent(model: BudgetedPPO, setting: Setting, seed: int) -> NetworkResult:
    """One held-out run under the most probable actions of a model."""
    env = AgentNetworkEnv(
        FixedTasks(setting.tasks(seed)),
        RYBKO_STOLYAR_ENGINES,
        horizon=setting.horizon,
        decision_interval=setting.interval,
        record="batches",
    )
    obs, _ = env.reset(seed=0)
    truncated = False
    while not truncated:
        action, _ = model.predict(obs, deterministic=True)
        obs, _, _, truncated, _ = env.step(action)
    return env.result()


def run_scheduler(scheduler: Scheduler, setting: Setting, seed: int) -> NetworkResult:
    """The same held-out run under a scheduler."""
    return simulate_network(
        scheduler, setting.tasks(seed), RYBKO_STOLYAR_ENGINES, UNROUTED, seed, horizon=setting.horizon
    )


def numbers(result: NetworkResult) -> dict[str, float]:
    """Peaks of the backlog in tokens (`peak`; `early_peak`: up to a quarter of the run) and `mean_tasks` present."""
    times = np.linspace(0.0, result.end, 4 * round(result.end) + 1)
    tokens = backlog(result, times)
    left = np.where(np.isnan(result.tasks.finish), result.end, result.tasks.finish)
    return {
        "peak": float(tokens.max()),
        "early_peak": float(tokens[: len(tokens) // 4].max()),
        "mean_tasks": float((left - result.tasks.arrival).sum() / result.end),
    }


def compare(
    model: BudgetedPPO, setting: Setting, seeds: Sequence[int], schedulers: Mapping[str, Scheduler] = PRIORITIES
) -> dict[str, list[dict[str, float]]]:
    """`numbers` of the agent and of each scheduler on the same held-out runs."""
    rows = {"agent": [numbers(run_agent(model, setting, seed)) for seed in seeds]}
    for name, scheduler in schedulers.items():
        rows[name] = [numbers(run_scheduler(scheduler, setting, seed)) for seed in seeds]
    return rows


def table(rows: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    """A line a scheduler: its highest and its mean peak backlog, mean tasks present, and whether peaks keep growing."""
    width = max(map(len, rows))
    lines = [f"{'scheduler':<{width}}  highest peak  mean peak  peak/early peak  tasks present"]
    for name, runs in rows.items():
        peaks = np.array([run["peak"] for run in runs])
        growth = peaks / np.array([run["early_peak"] for run in runs])
        tasks = np.mean([run["mean_tasks"] for run in runs])
        lines.append(
            f"{name:<{width}}  {peaks.max():12,.0f}  {peaks.mean():9,.0f}  {growth.mean():15.2f}  {tasks:13.1f}"
        )
    return "\n".join(lines)
