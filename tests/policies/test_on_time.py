"""The largest set of prompts that can be on time, against all sets there are."""

import dataclasses
import math
from itertools import combinations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import llmsched_env as ls
from llmsched_env.compiled import interpreted
from llmsched_env.policies.index import index
from llmsched_env.policies.survey import of_requests
from llmsched_env.simulator.ordering import drop_late

PER_TOKEN = 0.25
drop, columns = interpreted(drop_late), interpreted(of_requests)


def most_on_time(prompts, targets):
    """By trying all sets, each in order of due times."""
    for count in range(len(prompts), 0, -1):
        for chosen in combinations(range(len(prompts)), count):
            clock = 0.0
            for i in sorted(chosen, key=lambda i: targets[i]):
                clock += PER_TOKEN * prompts[i]
                if clock > targets[i]:
                    break
            else:
                return count
    return 0


def marks(prompts, targets):
    """What `drop_late` marks of prompts that all wait at time 0."""
    seen = {}

    def look(view):
        if not seen:
            own = columns(view)
            own.due[: len(prompts)] = targets
            own.size[: len(prompts)] = PER_TOKEN * np.array(prompts)
            seen["outside"] = drop(view, 0.0, own.due, own.size, own.dropped)
            seen["marks"] = own.dropped[: len(prompts)].copy()
        return 10.0  # beyond the horizon: nothing is ever served

    n = len(prompts)
    workload = ls.Workload.from_arrays([0.0] * n, prompts, [1] * n, slo=(targets, [math.inf] * n))
    scheduler = dataclasses.replace(index, compose=look)
    ls.simulate(scheduler, workload, ls.EngineConfig(ls.Staircase(c=1.0, a=0.0, b0=1)), horizon=1.0)
    assert seen["outside"] == seen["marks"].sum()
    return seen["marks"]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 8), st.integers(1, 16)), min_size=1, max_size=7))
def test_no_larger_set_can_be_on_time(jobs):
    prompts, targets = [p for p, _ in jobs], [t / 4 for _, t in jobs]
    kept = np.flatnonzero(marks(prompts, targets) == 0)
    assert len(kept) == most_on_time(prompts, targets)
    clock = 0.0
    for i in sorted(kept, key=lambda i: targets[i]):  # and those that were kept are on time
        clock += PER_TOKEN * prompts[i]
        assert clock <= targets[i]


def test_the_longest_goes():
    # Due after 2, 3 and 4 quarters of a second, with 2, 1 and 2 tokens: 5 quarters of work for 4. A longest one goes.
    dropped = marks([2, 1, 2], [0.5, 0.75, 1.0])
    assert dropped.sum() == 1 and dropped[1] == 0
