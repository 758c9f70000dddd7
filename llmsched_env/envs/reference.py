"""The reference of a reward: another scheduler on the very same requests, run beside the agent's engines.

What it would have got depends on the requests alone, not on the agent: subtracting it changes no policy's rank, and
takes the noise of the arrivals away (input-dependent baselines, H. Mao et al., ICLR 2019).
"""

import numpy as np
from numba import types

from llmsched_env.envs.kernel import GOODPUT, LATENCY, TERMS
from llmsched_env.envs.runner_env import TERMINATED
from llmsched_env.simulator.compiled import compiled
from llmsched_env.simulator.config import EngineConfig
from llmsched_env.simulator.loop import BAD_WAKE, SELECT, advance
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.simulator.simulator import Simulator
from llmsched_env.workloads import RequestTable


class Reference:
    """A scheduler that serves the episodes of `num_envs` environments on engines of its own.

    Attributes:
        terms: f8[num_envs, TERMS], its reward terms over the time of the agent's last step.

    Args:
        scheduler: one without a controller.
        engine: the machine.
        num_envs: how many engines.

    Raises:
        ValueError: if `scheduler` is none, or has a controller.
    """

    def __init__(self, scheduler: Scheduler, engine: EngineConfig, num_envs: int) -> None:
        if not isinstance(scheduler, Scheduler):
            raise ValueError(f"reference must be a Scheduler or None, got {scheduler!r}")
        if scheduler.controller is not None:
            raise ValueError(f"reference must be a Scheduler without a controller, got {scheduler.name!r} with one")
        self.terms = np.zeros((num_envs, TERMS))
        self._simulator = Simulator(engine, scheduler, num_envs, "off")
        self._before = np.zeros((num_envs, TERMS))
        f1, f2 = types.float64[::1], types.float64[:, ::1]
        self._follow = self._simulator.kernel(follow_episodes, f1, types.int64[::1], f2, f2)

    def start(self, g: int, table: RequestTable) -> None:
        """Begin a new episode of environment `g` with these requests."""
        self._simulator.load(g, table)
        self.terms[g] = self._before[g] = 0.0

    def follow(self, clocks: np.ndarray, ends: np.ndarray) -> None:
        """Serve until the agent's clocks, and to the end where its episode terminated; results are in `terms`.

        Args:
            clocks: f8[num_envs], s.
            ends: i8[num_envs], how the agent's episodes stand.

        Raises:
            ValueError: if the scheduler asks for a choice, or to be woken at a time that is not ahead.
        """
        simulator = self._simulator
        done = self._follow(simulator.world, simulator.schedulers, clocks, ends, self._before, self.terms)
        if done < len(clocks):
            simulator.advance(done, np.inf)  # says what is wrong


@compiled
def follow_episodes(world, schedulers, clocks, ends, before, terms):
    """Advance every engine to its clock; returns how many are done, fewer than all if a scheduler did what it must not.

    Args:
        world: one engine for each environment.
        schedulers: the tuple of schedulers.
        clocks: f8[E], s.
        ends: i8[E]; where it is TERMINATED the engine serves all that is left, beyond its clock.
        before: f8[E, TERMS], sums of the terms until the last call, updated.
        terms: f8[E, TERMS], written: -(integral of the number in system) and good requests since then.
    """
    for g in range(len(clocks)):
        reason = advance(world, schedulers, g, np.inf if ends[g] == TERMINATED else clocks[g])
        if reason in (BAD_WAKE, SELECT):
            return g
        engine, sums = world.engines[g], before[g]
        terms[g, LATENCY] = -(engine.request_seconds - sums[LATENCY])
        terms[g, GOODPUT] = engine.good_requests - sums[GOODPUT]
        sums[LATENCY] = engine.request_seconds
        sums[GOODPUT] = engine.good_requests
    return len(clocks)
