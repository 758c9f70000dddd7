"""The state of running episodes, one engine each: what the single and the vector environment share."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
from gymnasium import Space
from numba import types

from llmsched_env.envs.episodes import Episodes, Load
from llmsched_env.envs.kernel import PROGRESS, TERMS, start_episode, step_episodes
from llmsched_env.envs.knobs import parametric
from llmsched_env.envs.observation import MEMORY_SIZE, NUM_FEATURES
from llmsched_env.envs.reference import Reference
from llmsched_env.simulator import state as s
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.simulator.simulator import Simulator
from llmsched_env.validation import check_choice, check_number
from llmsched_env.workloads import RequestTable

REWARDS = ("latency", "goodput")

_F1, _F2, _I1 = types.float64[::1], types.float64[:, ::1], types.int64[::1]
_OBS = types.float32[:, ::1]


class Actions(Protocol):
    """What the actions of an agent mean: parameters of a scheduler.

    Attributes:
        scheduler: what composes the batches.
        space: of an action.
    """

    scheduler: Scheduler
    space: Space

    def params(self, actions: np.ndarray) -> np.ndarray:
        """f8[..., p]: the parameters of the scheduler that `actions` (of any leading shape) set."""


class EpisodeRunner:
    """`num_envs` episodes side by side in one simulator.

    Args:
        episodes: what to simulate.
        actions: what an action sets.
        num_envs: how many engines.
        decision_interval: s between decisions; None decides before every batch.
        reward: which of `REWARDS` is the reward.
        record: how much of the rows to keep, see `simulate`; "off" for the vector environment.
        features: numbers of an observation; those after the first NUM_FEATURES are a subclass's.
        reference: what the rewards are compared with; None: nothing.

    Raises:
        ValueError: naming the argument, its value and what is allowed.
    """

    at_boundaries = True
    """Whether decisions are due before batches; else the scheduler asks for them."""

    def __init__(
        self,
        episodes: Episodes,
        actions: Actions,
        num_envs: int,
        decision_interval: float | None,
        reward: str,
        record: str,
        features: int = NUM_FEATURES,
        reference: Scheduler | None = None,
    ) -> None:
        if decision_interval is not None:
            check_number("decision_interval", decision_interval, above=0, unit="s")
        check_choice("record", record, tuple(s.RECORD_LEVELS))
        self.episodes = episodes
        self.interval = 0.0 if decision_interval is None else float(decision_interval)
        self.reward_term = REWARDS.index(check_choice("reward", reward, REWARDS))
        self.actions = actions
        self.simulator = Simulator(episodes.engine, actions.scheduler, num_envs, record)
        self.reference = None if reference is None else Reference(reference, episodes.engine, num_envs)
        self.tables: list[RequestTable | None] = [None] * num_envs
        self.obs = np.zeros((num_envs, features), np.float32)
        self.terms = np.zeros((num_envs, TERMS))
        self.ends = np.zeros(num_envs, np.int64)
        self._horizons = np.full(num_envs, np.inf)  # s; of the present episodes, `episodes` has that of the next ones
        self._progress = np.zeros((num_envs, PROGRESS))
        self._memory = np.zeros((num_envs, MEMORY_SIZE))
        self._knobs = actions.scheduler is parametric
        f8, i8, flag = types.float64, types.int64, types.boolean
        self._start = self.simulator.kernel(start_episode, i8, f8, f8, _F2, _F2, flag, _OBS)
        self._step = self.simulator.kernel(step_episodes, i8, flag, _F2, f8, _F1, _F2, _F2, flag, _OBS, _F2, _I1)

    def set_episodes(self, load: Load, horizon: float | None) -> None:
        """Give the episodes that begin from now on this load and length; see `Episodes`."""
        self.episodes = replace(self.episodes, load=load, horizon=horizon)

    def start(self, g: int, rng: np.random.Generator) -> None:
        """Begin a new episode in engine `g`; its first observation is `obs[g]`."""
        table = self.tables[g] = self.episodes.draw(rng)
        self._horizons[g] = horizon = np.inf if self.episodes.horizon is None else self.episodes.horizon
        self.simulator.load(g, table)
        if self.reference is not None:
            self.reference.start(g, table)
        if self.interval == 0.0 and self.at_boundaries:
            self.simulator.decide_every_batch(g)
        world, schedulers = self.simulator.world, self.simulator.schedulers
        self._start(world, schedulers, g, self.interval, horizon, self._progress, self._memory, self._knobs, self.obs)

    def step(self, actions: np.ndarray) -> None:
        """Take one step everywhere; results are in `obs`, `terms` and `ends`.

        Args:
            actions: of each environment, elements of the action space.
        """
        params = self.actions.params(actions)
        first, resume = 0, False
        while True:
            first = self._step(
                self.simulator.world,
                self.simulator.schedulers,
                first,
                resume,
                params,
                self.interval,
                self._horizons,
                self._progress,
                self._memory,
                self._knobs,
                self.obs,
                self.terms,
                self.ends,
            )
            if first == len(actions):
                break
            self.simulator.grow_records()
            resume = True
        if self.reference is not None:
            self.reference.follow(self.simulator.world.engines.clock.copy(), self.ends)

    def rewards(self) -> np.ndarray:
        """f8[num_envs]: the reward of the last step, less that of the reference over the same time."""
        own = self.terms[:, self.reward_term]
        return own.copy() if self.reference is None else own - self.reference.terms[:, self.reward_term]

    def step_info(self) -> dict[str, np.ndarray]:
        """Arrays of shape [num_envs]: reward terms of the last step, clock (s), requests in the system, KV usage.

        With a reference its reward terms as well.
        """
        world = self.simulator.world
        terms = {"reward": self.terms} | ({} if self.reference is None else {"reference": self.reference.terms})
        return {
            **{f"{name}_{of}": values[:, k].copy() for name, values in terms.items() for k, of in enumerate(REWARDS)},
            "time": world.engines.clock.copy(),
            "num_in_system": world.engines.num_in_system.copy(),
            "kv_usage": self._kv_usage(),
        }

    def _kv_usage(self) -> np.ndarray:
        kv = self.simulator.world.kv
        return np.where(kv.total < s.UNLIMITED, 1.0 - kv.free / kv.total, 0.0)

    def episode_info(self, envs: Sequence[int]) -> dict[str, np.ndarray]:
        """What the episodes of `envs` came to: requests arrived, finished, within SLO; mean number in system; KV."""
        world = self.simulator.world
        seconds = np.maximum(world.engines.clock[envs], np.finfo(float).tiny)
        return {
            "episode_arrived": world.totals.arrived[envs].copy(),
            "episode_finished": world.totals.finished[envs].copy(),
            "episode_good": world.engines.good_requests[envs].astype(np.int64),
            "episode_mean_in_system": world.engines.request_seconds[envs] / seconds,
            "episode_preemptions": world.totals.preemptions[envs].copy(),
            "episode_recomputed_tokens": world.totals.recomputed[envs].copy(),
            "episode_prefix_hit_tokens": world.totals.prefix_hits[envs].copy(),
        }
