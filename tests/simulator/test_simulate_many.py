"""Many seeds at once: the same results as one by one, in the order asked for."""

import dataclasses
import io
import math

import pytest

import baselines
import llmsched_env as ls
from tests.simulator.cases import assert_same_rows

ENGINE = ls.EngineConfig(ls.Staircase(c=0.01128, a=0.03547, b0=128), token_budget=512)
WORKLOAD = ls.Workload.poisson(rate=8.0, prompt_tokens=ls.dist.Uniform(1, 300), output_tokens=40, horizon=30.0)


@pytest.mark.parametrize("name", baselines.REGISTRY)
def test_same_as_one_by_one_in_the_order_of_the_seeds(name):
    scheduler, seeds = baselines.get(name), [5, 0, 3, 0, 11, 2, 7, 1]
    options = {"horizon": 25.0, "record": "entries"}
    results = ls.simulate_many(scheduler, WORKLOAD, ENGINE, seeds, progress=False, **options)
    assert [result.seed for result in results] == seeds
    for seed, result in zip(seeds, results, strict=True):
        one = ls.simulate(scheduler, WORKLOAD, ENGINE, seed=seed, **options)
        assert_same_rows(result, one)
        assert (result.scheduler, result.workload, result.load) == (one.scheduler, one.workload, one.load)
    assert results[0].requests.tobytes() != results[2].requests.tobytes()
    assert_same_rows(results[1], results[3])


def test_seeds_may_be_any_iterable_and_none():
    results = ls.simulate_many(baselines.orca, WORKLOAD, ENGINE, (k for k in (4, 2)), record="requests", progress=False)
    assert [result.seed for result in results] == [4, 2] and results[0].batches is None
    assert ls.simulate_many(baselines.orca, WORKLOAD, ENGINE, [], progress=False) == []


@pytest.mark.parametrize("terminal", [True, False])
def test_the_progress_bar_counts_the_seeds_on_a_terminal(monkeypatch, terminal):
    shown = io.StringIO()
    shown.isatty = lambda: terminal
    monkeypatch.setattr("sys.stderr", shown)
    ls.simulate_many(baselines.orca, WORKLOAD, ENGINE, range(3), record="requests")
    assert ("orca" in shown.getvalue()) == terminal


def test_an_interpreted_scheduler_gives_the_same():
    def compose(view):
        {}.get(len(view.waiting), [])  # an object that numba cannot compile
        sorted([object()], key=id)
        return baselines.sarathi.compose.py_func(view)

    scheduler = dataclasses.replace(baselines.sarathi, compose=compose)
    workload = ls.Workload.poisson(rate=4.0, prompt_tokens=20, output_tokens=5, horizon=2.0)
    for run in zip(
        ls.simulate_many(scheduler, workload, ENGINE, range(4), record="entries", progress=False),
        ls.simulate_many(baselines.sarathi, workload, ENGINE, range(4), record="entries", progress=False),
        strict=True,
    ):
        assert_same_rows(*run)


def test_an_error_in_one_run_is_raised():
    def compose(view):
        return -math.inf

    with pytest.raises(ValueError, match="not later"):
        ls.simulate_many(ls.Scheduler("bad", compose), WORKLOAD, ENGINE, range(3), progress=False)


def test_stalls_are_warned_about():
    workload = ls.Workload.poisson(rate=8.0, prompt_tokens=600, output_tokens=1, horizon=2.0)
    with pytest.warns(RuntimeWarning, match="fastertransformer stalled at"):
        results = ls.simulate_many(baselines.fastertransformer, workload, ENGINE, range(3), progress=False)
    assert all(result.stalled for result in results)
