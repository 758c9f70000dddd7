"""Rewards: one row each of name, meaning, unit and the function that computes it from what a step has added.

Environment, reference, info and docstrings follow from these tables.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from llmsched_env.compiled import compiled
from llmsched_env.features import writer
from llmsched_env.fields import record_dtype


@dataclass(frozen=True, slots=True)
class Reward:
    """A reward.

    Attributes:
        name: the value of the argument `reward`; `reward_<name>` in `info`.
        meaning: over one step.
        unit: of its values.
        measure: a function that numba can compile, of a record of the step: `ENGINE_STEP` or `NETWORK_STEP`.
        objective: name of the objective by which policies trained with it are judged; of no two rewards the same.
            None where `llmsched train` does not offer the reward, as no objective of drained runs goes with it.
    """

    name: str
    meaning: str
    unit: str
    measure: Callable[..., float]
    objective: str | None = None


ENGINE_STEP = record_dtype(  # what a step has added at one engine
    ("seconds", "f8"),
    ("request_seconds", "f8"),  # integral of the number of requests in the system
    ("good_requests", "f8"),  # requests finished within their SLO
    ("missed", "i8"),  # requests that are now certain to miss their SLO, or have
    ("arrived", "i8"),  # requests
    ("finished", "i8"),
    ("generated", "i8"),  # output tokens
    ("preemptions", "i8"),
    ("recomputed", "i8"),  # tokens lost to preemption
)
ENGINE_REWARDS = (
    Reward(
        "latency",
        "minus the integral of the number of requests in the system",
        "request-seconds",
        lambda step: -step.request_seconds,
        objective="mean_e2el",  # by Little's law: its sum is minus the total latency
    ),
    Reward(
        "slo",
        "minus the requests that became certain to miss their TTFT or TPOT target",
        "requests",
        lambda step: -step.missed,
        objective="slo_attainment",  # its sum over a drained episode is minus the requests that missed
    ),
    Reward(
        "goodput",
        "requests that finished within both targets; short episodes pay for short answers, as others do not finish",
        "requests",
        lambda step: step.good_requests,
    ),
)
write_engine_rewards = writer(ENGINE_REWARDS, ("step",))

NETWORK_STEP = record_dtype(  # what a step has added in a network
    ("task_seconds", "f8"),  # integral of the number of tasks in the system
    ("call_seconds", "f8"),  # integral of the number of calls at engines
    ("missed", "i8"),  # calls that are now certain to miss their SLO, or have
)
NETWORK_REWARDS = (
    Reward(
        "tasks",
        "minus the integral of the number of tasks in the system",
        "task-seconds",
        lambda step: -step.task_seconds,
    ),
    Reward(
        "calls",
        "minus the integral of the number of calls at engines",
        "call-seconds",
        lambda step: -step.call_seconds,
    ),
    Reward(
        "slo",
        "minus the calls that became certain to miss their TTFT or TPOT target",
        "calls",
        lambda step: -step.missed,
    ),
)
write_network_rewards = writer(NETWORK_REWARDS, ("step",))

NETWORK_PROGRESS = record_dtype(  # what an episode of a network carries from one decision to the next
    ("first_unfinished", "i8"),  # every task before it has finished
    ("time", "f8"),  # of the last decision, s
    ("calls_integral", "f8"),  # integral of the number of calls up to then
    ("tasks_present", "i8"),  # tasks in the system now
    ("missed", "i8"),  # calls that have missed their SLO, or are certain to
    ("task_seconds", "f8"),  # sums over all steps of the episode
    ("call_seconds", "f8"),
    ("short_rate", "f8"),  # calls/s that are asked for, averaged with weights that fade over SHORT seconds,
    ("long_rate", "f8"),  # and over LONG seconds
)
SHORT, LONG = 2.0, 20.0  # s


@compiled
def count_engine_step(world, g, before, step):
    """Write what engine `g` has added since the totals in `before` to `step`, and bring `before` up to date.

    Args:
        world: of all engines.
        g: the engine.
        before: a record ENGINE_STEP of totals.
        step: a record ENGINE_STEP.
    """
    engine, totals = world.engines[g], world.totals[g]
    missed = missed_requests(world, g, engine.clock)
    step.missed = missed - before.missed
    before.missed = missed
    step.seconds = engine.clock - before.seconds
    step.request_seconds = engine.request_seconds - before.request_seconds
    step.good_requests = engine.good_requests - before.good_requests
    step.arrived = totals.arrived - before.arrived
    step.finished = totals.finished - before.finished
    step.generated = totals.generated - before.generated
    step.preemptions = totals.preemptions - before.preemptions
    step.recomputed = totals.recomputed - before.recomputed
    before.seconds = engine.clock
    before.request_seconds = engine.request_seconds
    before.good_requests = engine.good_requests
    before.arrived = totals.arrived
    before.finished = totals.finished
    before.generated = totals.generated
    before.preemptions = totals.preemptions
    before.recomputed = totals.recomputed


@compiled
def missed_requests(world, g, now):
    """Requests that had arrived at engine `g` by `now` and have missed their SLO by then, or are certain to.

    A present one is as soon as its first token is late, or as its true length leaves no finish that keeps its TPOT
    target. One that was turned away or that its client gave up has missed it. This never falls again.
    """
    engine = world.engines[g]
    missed = world.totals[g].arrived - engine.num_in_system - int(engine.good_requests)
    for k in range(engine.num_waiting):
        missed += _is_lost(world, world.waiting[g, engine.waiting_head + k], now)
    for k in range(engine.num_running):
        missed += _is_lost(world, world.running[g, k], now)
    return missed


@compiled(inline=True)
def _is_lost(world, i, now):
    """Whether present request `i`, which has a token to come, misses its SLO even if that is its last and comes now.

    The comparisons are those that decide when it finishes; a later time can't turn them.
    """
    req = world.req
    if np.isnan(req.first_token[i]):
        return now - req.arrival[i] > req.ttft_slo[i]
    if req.first_token[i] - req.arrival[i] > req.ttft_slo[i]:
        return True
    return (now - req.first_token[i]) / max(1, world.hidden.output_tokens[i] - 1) > req.tpot_slo[i]


@compiled
def count_network_step(world, network, num_tasks, progress, step):
    """Write what has come since the last decision to `step`, and bring `progress` up to date.

    A task is in the system from its arrival to the end of its last call, also while its calls wait for a tool; for ever
    if one of its calls was rejected or abandoned. A call is at an engine while it waits or runs there.

    Args:
        world: the engines.
        network: their network.
        num_tasks: of the episode.
        progress: a record NETWORK_PROGRESS.
        step: a record NETWORK_STEP.
    """
    now = network.control.clock
    calls = _call_seconds(world, now)
    step.task_seconds = _task_seconds(world, network, num_tasks, progress, now)
    step.call_seconds = calls - progress.calls_integral
    missed = 0
    for g in range(len(world.engines)):
        missed += missed_requests(world, g, now)
    step.missed = missed - progress.missed
    progress.missed = missed
    asked = 1.0 if network.control.routing > 0 else 0.0
    progress.short_rate = progress.short_rate * np.exp((progress.time - now) / SHORT) + asked / SHORT
    progress.long_rate = progress.long_rate * np.exp((progress.time - now) / LONG) + asked / LONG
    progress.calls_integral = calls
    progress.time = now
    progress.task_seconds += step.task_seconds
    progress.call_seconds += step.call_seconds


@compiled
def _call_seconds(world, now):
    """Integral of the number of calls at engines up to `now`; the clock of a busy engine may be behind it."""
    total = 0.0
    for g in range(len(world.engines)):
        total += world.engines[g].request_seconds + world.engines[g].num_in_system * (now - world.engines[g].clock)
    return total


@compiled
def _task_seconds(world, network, num_tasks, progress, now):
    total, present, since = 0.0, 0, progress.time
    first = progress.first_unfinished
    while first < num_tasks and network.task_finish[first] <= since:
        first += 1
    progress.first_unfinished = first
    for t in range(first, num_tasks):
        arrival, finish = world.tasks[t].arrival, network.task_finish[t]
        if arrival > now:
            break
        if np.isnan(finish):
            present += 1
            finish = now
        total += max(0.0, finish - max(arrival, since))
    progress.tasks_present = present
    return total
