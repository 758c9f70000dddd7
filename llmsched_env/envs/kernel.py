"""The compiled step of an environment: set the parameters, advance to the next decision, account, observe."""

import numpy as np

from llmsched_env.envs.observation import observe
from llmsched_env.envs.runner_env import GOES_ON, TERMINATED, TRUNCATED
from llmsched_env.simulator.compiled import compiled
from llmsched_env.simulator.loop import BOUNDARY, DRAINED, HORIZON, RECORD_FULL, SELECT, STALLED, advance, clock_to
from llmsched_env.simulator.world import view_of

# The columns of `progress`: decisions taken, and the integral of N and the good requests at the last one.
TICK, AREA_BEFORE, GOOD_BEFORE, PROGRESS = range(4)
# Reward terms.
LATENCY, GOODPUT, TERMS = range(3)


@compiled
def start_episode(world, schedulers, g, interval, horizon, progress, memory, knobs, obs):
    """Advance engine `g`, just loaded, to its first decision and observe; see `step_episodes` for the arguments."""
    progress[g, :] = 0.0
    memory[g, :] = 0.0
    advance(world, schedulers, g, 0.0 if interval > 0.0 else horizon)
    progress[g, AREA_BEFORE] = world.engines[g].request_seconds
    observe(view_of(world, g), memory[g], obs[g], knobs)


@compiled
def step_episodes(
    world, schedulers, first, resume, params, interval, horizons, progress, memory, knobs, obs, terms, ends
):
    """One step of engines first, first+1, ...; returns how many engines are done, fewer than all if records are full.

    Args:
        world: one engine for each environment.
        schedulers: the tuple of schedulers.
        first: the engine to start with.
        resume: whether engine `first` has begun this step and goes on after its records have grown.
        params: f8[E, p], the scheduler's parameters from now on.
        interval: s between decisions; 0: whenever one is due.
        horizons: f8[E], s at which episodes are truncated; inf: never.
        progress: f8[E, PROGRESS].
        memory: f8[E, MEMORY_SIZE] of the observation.
        knobs: whether to observe the knobs in force.
        obs: f4[E, features], of which the first NUM_FEATURES are written.
        terms: f8[E, TERMS], written: -(integral of the number in system) and good requests of this step.
        ends: i8[E], written: GOES_ON, TERMINATED or TRUNCATED.
    """
    for g in range(first, len(params)):
        engine, done, horizon = world.engines[g], progress[g], horizons[g]
        if not resume:
            for k in range(params.shape[1]):
                world.params[g, k] = params[g, k]
            engine.decided = 1
            done[TICK] += 1.0
        until = min(horizon, done[TICK] * interval) if interval > 0.0 else horizon
        reason = advance(world, schedulers, g, until)
        if reason == RECORD_FULL:
            return g
        resume = False
        ends[g] = GOES_ON
        if reason == DRAINED and horizon < np.inf:
            clock_to(world, g, until)
            reason = HORIZON
        if reason == DRAINED or (reason == STALLED and until == np.inf):
            ends[g] = TERMINATED
        elif reason != BOUNDARY and reason != SELECT and engine.clock >= horizon:
            ends[g] = TRUNCATED
        terms[g, LATENCY] = -(engine.request_seconds - done[AREA_BEFORE])
        terms[g, GOODPUT] = engine.good_requests - done[GOOD_BEFORE]
        done[AREA_BEFORE] = engine.request_seconds
        done[GOOD_BEFORE] = engine.good_requests
        observe(view_of(world, g), memory[g], obs[g], knobs)
    return len(params)
