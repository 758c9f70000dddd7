"""Empty batches: a run that stalls says so and ends, a scheduler that asks to be woken is woken."""

import dataclasses
import math
import warnings

import numpy as np
import pytest

import baselines
import llmsched_env as ls

ENGINE = ls.EngineConfig(ls.Staircase(c=0.5, a=0.5, b0=10**6), token_budget=8)  # every batch takes 1 s
WHOLE_PROMPTS = pytest.mark.parametrize("name", ["fastertransformer", "vllm_prefill_first"])


def workload(arrival, prompt, output):
    return ls.Workload.from_arrays(arrival, prompt, output)


def custom(compose, **options) -> ls.Scheduler:
    return ls.Scheduler("of the test", compose, mixes_phases=True, chunks_prefill=True, **options)


def serve_all(view):
    for i in view.waiting:
        ls.take(view, i, 100)
    for i in view.running:
        ls.take(view, i, 1)


@pytest.mark.parametrize(("name", "since", "batches"), [("fastertransformer", 3.0, 3), ("vllm_prefill_first", 1.0, 1)])
@pytest.mark.parametrize("interpreted", [False, True])
def test_a_prompt_larger_than_the_budget_freezes_whole_prompt_schedulers(name, since, batches, interpreted):
    # Request 1 heads the queue from 0.5 s on. FasterTransformer decodes 0 to its end at 3 s before it wants the next
    # prompt, vLLM wants it at 1 s and never decodes again. Later arrivals change nothing.
    requests = workload([0.0, 0.5, 0.75, 20.0], [8, 9, 1, 1], [3, 1, 1, 1])
    with pytest.warns(RuntimeWarning, match=rf"{name} stalled at {since:g} s") as caught:
        result = ls.simulate(baselines.get(name), requests, ENGINE, interpreted=interpreted)
    assert len(caught) == 1 and caught[0].filename == __file__
    assert (result.stalled, result.stalled_since, result.drained) == (True, since, False)
    assert result.end == 20.0
    assert len(result.batches) == batches
    assert result.requests.generated.tolist() == [batches, 0, 0, 0]
    assert result.number_in_system(20.0) == 3 + (batches < 3)
    assert result.backlog(20.0) == (10 - 7 - batches) + 9 + 1 + 1


@WHOLE_PROMPTS
def test_the_schedulers_own_budget_freezes_it_as_well(name):
    requests = workload([1.0], [6], [1])
    with pytest.warns(RuntimeWarning, match="stalled at 1 s"):
        result = ls.simulate(baselines.get(name)(token_budget=5), requests, ENGINE)
    assert result.stalled_since == 1.0 and len(result.batches) == 0
    assert not ls.simulate(baselines.get(name)(token_budget=6), requests, ENGINE).stalled


def test_chunking_schedulers_do_not_freeze():
    requests = workload([0.0, 0.5], [30, 9], [3, 1])
    for scheduler in (baselines.sarathi, baselines.orca):
        result = ls.simulate(scheduler(token_budget=2), requests, ENGINE)
        assert result.drained and not result.stalled and math.isnan(result.stalled_since)


@WHOLE_PROMPTS
def test_a_horizon_with_arrivals_still_to_come_is_no_stall(name):
    requests = workload([0.0, 50.0], [9, 1], [1, 1])
    result = ls.simulate(baselines.get(name), requests, ENGINE, horizon=40.0)
    assert (result.stalled, result.end, len(result.requests)) == (False, 40.0, 1)
    with pytest.warns(RuntimeWarning, match="stalled at 0 s"):
        result = ls.simulate(baselines.get(name), requests, ENGINE, horizon=60.0)
    assert (result.stalled, result.stalled_since, result.end) == (True, 0.0, 60.0)


def test_an_empty_batch_sleeps_until_the_time_it_asks_for():
    def compose(view):
        if view.clock < 2.5:
            return 2.5
        serve_all(view)
        return math.inf

    result = ls.simulate(custom(compose), workload([0.25], [4], [2]), ENGINE)
    assert result.batches.start.tolist() == [2.5, 3.5]
    assert not result.stalled and math.isnan(result.stalled_since)


def test_an_arrival_wakes_earlier():
    calls = []

    def compose(view):
        calls.append(float(view.clock))
        if len(view.waiting) < 3:
            return view.clock + 1.5
        serve_all(view)
        return math.inf

    result = ls.simulate(custom(compose), workload([0.0, 2.0, 2.25], [1, 1, 1], [1, 1, 1]), ENGINE)
    assert calls == [0.0, 1.5, 2.0, 2.25]
    assert result.batches.start.tolist() == [2.25]


def test_waiting_for_the_next_arrival_is_no_stall_while_one_comes():
    def compose(view):
        if len(view.waiting) >= 2 or len(view.running) > 0:
            serve_all(view)
        return math.inf

    result = ls.simulate(custom(compose), workload([0.0, 3.0], [1, 1], [2, 1]), ENGINE)
    assert result.batches.start.tolist() == [3.0, 4.0] and not result.stalled
    with pytest.warns(RuntimeWarning, match="of the test stalled at 5 s"):
        result = ls.simulate(custom(compose), workload([0.0, 3.0, 4.5], [1, 1, 1], [2, 1, 1]), ENGINE)
    assert result.stalled_since == 5.0


def test_a_wake_up_after_the_horizon_is_no_stall():
    def compose(view):
        return 10.0

    result = ls.simulate(custom(compose), workload([1.0], [1], [1]), ENGINE, horizon=4.0)
    assert (result.stalled, result.end, result.number_in_system(4.0)) == (False, 4.0, 1)


@pytest.mark.parametrize("offset", [0.0, -1.0, math.nan, -math.inf])
@pytest.mark.parametrize("interpreted", [False, True])
def test_a_wake_up_that_is_not_ahead_is_an_error(offset, interpreted):
    def compose(view):
        return view.clock + offset

    with pytest.raises(ValueError, match=r"'of the test' composed an empty batch at 2 s .* not later; return a later"):
        ls.simulate(custom(compose), workload([2.0], [1], [1]), ENGINE, interpreted=interpreted)


def test_a_wake_up_beside_a_batch_means_nothing():
    def compose(view):
        serve_all(view)
        return -5.0

    assert ls.simulate(custom(compose), workload([0.0], [2], [2]), ENGINE).drained


def test_rejecting_everyone_drains():
    def compose(view):
        for i in view.waiting:
            ls.reject(view, i)
        return math.inf

    result = ls.simulate(custom(compose), workload([0.0, 0.0, 5.0], [1, 1, 1], [1, 1, 1]), ENGINE)
    assert result.requests.status.tolist() == ["rejected"] * 3
    assert result.requests.left.tolist() == [0.0, 0.0, 5.0]
    assert (len(result.batches), result.drained, result.stalled) == (0, True, False)


def test_a_stall_counts_from_its_own_first_empty_batch():
    """The scheduler sleeps over the first request, rejects it, and freezes on the second one."""

    def compose(view):
        if view.clock < 2.0:
            return 2.0
        if view.clock < 3.0:
            ls.reject(view, view.waiting[0])
        return math.inf

    with pytest.warns(RuntimeWarning, match="stalled at 7 s"):
        result = ls.simulate(custom(compose), workload([0.5, 7.0], [1, 1], [1, 1]), ENGINE)
    assert result.stalled_since == 7.0


class Hold:
    """Sets the token budget to 1 at the first ticks, then to 8: a whole prompt must wait until then."""

    interval = 1.0

    def __init__(self, until: float) -> None:
        self.until = until

    def fresh(self, engine: ls.EngineConfig) -> "Hold":
        return self

    def decide(self, view) -> np.ndarray:
        return np.array([1.0 if view.clock < self.until else 8.0, math.inf])


def test_a_later_decision_of_a_controller_is_an_event():
    # A prompt of 4 arrives at 0.5 s; from the tick at 3 s on the budget lets it in.
    held = dataclasses.replace(baselines.vllm_prefill_first, controller=Hold(until=3.0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = ls.simulate(held, workload([0.5], [4], [2]), ENGINE, horizon=20.0)
    assert result.batches.start.tolist() == [3.0, 4.0]
    assert not result.stalled
