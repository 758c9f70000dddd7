"""Schedulers of the Rybko-Stolyar network on held-out tasks: all priorities, verdicts, growth, paired savings."""

from functools import partial
from itertools import product

import numpy as np
import pytest

from llmsched_env.evaluation.benchmark.network_cases import (
    CLASS_PRIORITIES,
    PRIORITIES,
    NetworkSetting,
    compare,
    fewer_tasks,
    mean_tasks,
    numbers,
    priority,
    run_scheduler,
    table,
    verdict,
)

SHORT = NetworkSetting(horizon=200.0)


def test_tasks_present_are_those_that_have_arrived_and_not_left():
    result = run_scheduler(PRIORITIES["entering first"], SHORT, 0)
    arrival, finish = result.tasks.arrival, result.tasks.finish
    steps = np.unique([0.0, *arrival, *finish[~np.isnan(finish)], result.end])
    present = [((arrival <= t) & ~(finish <= t)).sum() for t in steps[:-1]]
    assert mean_tasks(result) == pytest.approx(np.dot(present, np.diff(steps)) / result.end)
    assert numbers(result)["mean_tasks"] == mean_tasks(result)


def test_all_class_priorities_are_there():
    """Engine 0 serves classes 0 and 3, engine 1 classes 1 and 2; each favours one of its two or none: 9 ways."""
    ranks = [tuple(s.values[f"rank_{k}"] for k in range(4)) for s in CLASS_PRIORITIES.values()]
    assert {(np.sign(a - d), np.sign(b - c)) for a, b, c, d in ranks} == set(product((-1, 0, 1), repeat=2))
    assert len(ranks) == 9


def test_the_verdict_is_by_the_interval_of_the_growth():
    judged = {(0.2, 0.21): "unstable", (0.0, 0.001): "stable", (-0.5, 0.5): "undecided"}
    for growths, expected in judged.items():
        assert verdict([{"growth": growth} for growth in growths]) == expected


def test_growth_is_the_share_of_the_offered_tokens_that_piles_up():
    unserved = NetworkSetting(load=3.0, horizon=300.0)  # each engine can do a third
    growth = numbers(run_scheduler(PRIORITIES["entering first"], unserved, 0))["growth"]
    assert growth == pytest.approx(2 / 3, abs=0.15)


def test_savings_are_paired_differences_in_the_table():
    schedulers = {name: PRIORITIES[name] for name in ("leaving first", "entering first")}
    rows = compare("other", partial(run_scheduler, priority((0, 2))), SHORT, range(3), schedulers)
    assert fewer_tasks(rows, "other", "entering first") == (0.0, 0.0)
    more = [a["mean_tasks"] - b["mean_tasks"] for a, b in zip(rows["leaving first"], rows["other"], strict=True)]
    assert fewer_tasks(rows, "other", "leaving first")[0] == pytest.approx(np.mean(more)) != 0.0
    header, own, *others = table(rows).splitlines()
    assert header.endswith("saved by other") and "±" not in own and all("±" in line for line in others)


@pytest.mark.parametrize("name", ["load", "interval", "training_horizon", "horizon"])
def test_settings_that_make_no_sense_are_refused(name):
    with pytest.raises(ValueError, match=f"^{name} must be a finite number > 0.* got 0"):
        NetworkSetting(**{name: 0.0})
