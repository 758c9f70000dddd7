"""The reference of a reward: another scheduler that serves the same requests on engines of its own.

Its rewards depend on the requests alone, not on the agent. Subtracting them changes no policy's rank and removes the
noise of the arrivals (input-dependent baselines, H. Mao et al., ICLR 2019).
"""

import numpy as np
from numba import typeof, types

from llmsched_env.compiled import compiled
from llmsched_env.envs.base import TERMINATED
from llmsched_env.envs.env_state import PerEnv
from llmsched_env.envs.rewards import ENGINE_REWARDS, ENGINE_STEP, count_engine_step, write_engine_rewards
from llmsched_env.fields import records
from llmsched_env.machine.config import EngineConfig
from llmsched_env.simulator.loop import BAD_WAKE, SELECT, STUCK, advance_alone
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.simulator.simulator import Simulator
from llmsched_env.workloads import RequestTable

_STEPS_TYPE = typeof(records(ENGINE_STEP))


class Reference(PerEnv):
    """A scheduler that serves the episodes of `num_envs` environments on engines of its own.

    Attributes:
        terms: f8[num_envs, rewards], its rewards over the time of the agent's last step.

    Args:
        scheduler: one without a controller.
        engine: the machine.
        num_envs: how many engines.

    Raises:
        ValueError: if `scheduler` is not a `Scheduler`, or has a controller.
    """

    per_env = ("terms", "_simulator", "_before", "_step")

    def __init__(self, scheduler: Scheduler, engine: EngineConfig, num_envs: int) -> None:
        if not isinstance(scheduler, Scheduler):
            raise ValueError(f"reference must be a Scheduler or None, got {scheduler!r}")
        if scheduler.controller is not None:
            raise ValueError(f"reference must be a Scheduler without a controller, got {scheduler.name!r} with one")
        self.terms = np.zeros((num_envs, len(ENGINE_REWARDS)))
        self._simulator = Simulator(engine, scheduler, num_envs, "off")
        self._before, self._step = records(ENGINE_STEP, num_envs), records(ENGINE_STEP, num_envs)
        kinds = (types.float64[::1], types.int64[::1], _STEPS_TYPE, _STEPS_TYPE, types.float64[:, ::1])
        self._follow = self._simulator.kernel(follow_episodes, *kinds)

    def start(self, g: int, table: RequestTable, seed: int) -> None:
        """Begin a new episode of environment `g` with these requests and the step noise of this seed."""
        self._simulator.load(g, table, seed)
        self.terms[g] = 0.0
        self._before[g] = np.zeros((), ENGINE_STEP)

    def follow(self, clocks: np.ndarray, ends: np.ndarray) -> None:
        """Serve until the agent's clocks, and to the end where its episode terminated; results are in `terms`.

        Args:
            clocks: f8[num_envs], s.
            ends: i8[num_envs], how the agent's episodes stand.

        Raises:
            ValueError: if the scheduler asks for a choice, or to be woken at a time that is not ahead.
        """
        simulator = self._simulator
        arrays = (clocks, ends, self._before, self._step, self.terms)
        done = self._follow(simulator.world, simulator.compose, *arrays)
        if done < len(clocks):
            simulator.advance(done, np.inf)  # says what is wrong


@compiled
def follow_episodes(world, compose, clocks, ends, before, step, terms):
    """Advance every engine to its clock; returns how many are done, fewer than all if a scheduler did what it must not.

    Args:
        world: one engine for each environment.
        compose: the scheduler's.
        clocks: f8[E], s.
        ends: i8[E]; where it is TERMINATED the engine serves all that is left, beyond its clock.
        before: ENGINE_STEP[E], totals at the last call, updated.
        step: ENGINE_STEP[E], written.
        terms: f8[E, rewards], written: every reward since the last call.
    """
    for g in range(len(clocks)):
        reason = advance_alone(world, compose, g, np.inf if ends[g] == TERMINATED else clocks[g])
        if reason in (BAD_WAKE, SELECT, STUCK):
            return g
        count_engine_step(world, g, before[g], step[g])
        write_engine_rewards(step[g], terms[g])
    return len(clocks)
