"""What a scheduler may know: nothing of true lengths before their time, and nothing it does changes the workload."""

import math
from dataclasses import replace

import numpy as np
import pytest

import baselines
import llmsched_env as ls
from llmsched_env.simulator.simulator import Simulator
from tests.simulator.cases import modest, run, small_case

UNTOLD = [name for name, scheduler in baselines.REGISTRY.items() if scheduler.needs_lengths != "true"]


def with_lengths(case, output_tokens):
    table = case.workload.sample(0)
    changed = replace(table, output_tokens=output_tokens)
    return case._replace(workload=ls.Workload.from_table(changed, case.workload.name))


def generated_by(result, time):
    """Output tokens of each request at `time`, from the batches that had ended."""
    ends = result.batches.start + result.batches.duration
    generated = np.zeros(len(result.requests), np.int64)
    left = result.requests.prompt_tokens.copy()
    for entry in result.batch_entries[ends[result.batch_entries.batch] <= time]:
        i = entry.request
        if entry.is_prefill:
            left[i] -= entry.tokens
        if not entry.is_prefill or (left[i] == 0 and not result.engine.separate):
            generated[i] += 1
    return generated


@pytest.mark.parametrize("name", UNTOLD)
def test_true_lengths_of_unfinished_requests_change_no_decision_before(name):
    changed = 0
    for seed in range(150):
        rng = np.random.default_rng(seed)
        case = small_case(lambda low, high, rng=rng: int(rng.integers(low, high + 1)), limited=False)
        if seed % 2:
            case = case._replace(engine=replace(case.engine, max_num_seqs=int(rng.integers(1, 5))))
        base = run(baselines.get(name), case)
        if len(base.batches) == 0:
            continue
        k = int(rng.integers(len(base.batches)))
        time = base.batches.start[k]  # the decision about batch k is the last one that must be the same
        unfinished = ~(base.requests.left <= time)
        longer = generated_by(base, time) + rng.integers(1, 9, len(base.requests))
        lengths = np.where(unfinished, longer, base.requests.output_tokens)
        other = run(baselines.get(name), with_lengths(case, lengths))
        changed += not np.array_equal(lengths, base.requests.output_tokens)

        assert other.batches.start[: k + 1].tolist() == base.batches.start[: k + 1].tolist()
        assert entries_up_to(other, k) == entries_up_to(base, k)
        started = base.requests.first_scheduled <= time
        assert np.array_equal(other.requests.first_scheduled[started], base.requests.first_scheduled[started])
    assert changed > 50


def entries_up_to(result, k):
    return result.batch_entries[result.batch_entries.batch <= k].tolist()


@pytest.mark.parametrize("name", UNTOLD)
def test_the_same_holds_under_memory_pressure(name):
    """Lengths are changed to others that fit, since a request that could never fit is turned away at arrival."""
    preemptions = 0
    engine = ls.EngineConfig(ls.Staircase(c=0.25, a=0.125, b0=4), token_budget=16, kv_blocks=24, block_size=1)
    for seed in range(60):
        rng = np.random.default_rng(seed)
        n = 8
        arrival, prompt = np.sort(rng.integers(0, 16, n)) / 8, rng.integers(1, 9, n)
        output = rng.integers(1, 13, n)
        rows = []
        cut = None
        for _ in range(2):
            result = ls.simulate(
                modest(baselines.get(name)), ls.Workload.from_arrays(arrival, prompt, output), engine, record="entries"
            )
            rows.append(result)
            if cut is None:
                cut = int(rng.integers(len(result.batches)))
                time = result.batches.start[cut]
                preemptions += result.batches.preemptions[: cut + 1].sum()
                # Whoever had finished keeps its length; all others go on longer than they had come, up to 16 tokens.
                output = np.where(result.requests.left <= time, output, 16)
        assert entries_up_to(rows[0], cut) == entries_up_to(rows[1], cut)
        assert rows[0].batches[: cut + 1].start.tolist() == rows[1].batches[: cut + 1].start.tolist()
    assert preemptions > 20


@pytest.mark.parametrize("needs", ["no", "distribution", "predicted", "true"])
@pytest.mark.parametrize("interpreted", [False, True])
def test_known_output_is_what_the_scheduler_declares(needs, interpreted):
    """A scheduler that keeps what it is shown, compiled and interpreted."""

    def compose(view):
        for i in view.waiting:
            view.mem.engine[i] = view.req.known_output[i]
            ls.take(view, i, 99)
        for i in view.running:
            ls.take(view, i, 1)
        return math.inf

    scheduler = ls.Scheduler(
        "reader", compose, needs_lengths=needs, memory={"engine": ("a", "b", "c")}, mixes_phases=True
    )
    requests = ls.Workload.from_arrays([0.0, 0.0, 1.0], [1, 2, 3], [7, 2, 5], predicted_output=[6.5, math.nan, 4.0])
    simulator = Simulator(ls.EngineConfig(ls.Staircase(c=0.5, a=0.5, b0=8)), scheduler, interpreted=interpreted)
    simulator.load(0, requests.sample(0))
    simulator.advance(0, math.inf)
    shown = simulator.world.engine_memory[0]
    expected = {"predicted": [6.5, math.nan, 4.0], "true": [7.0, 2.0, 5.0]}.get(needs, [math.nan] * 3)
    assert np.array_equal(shown, expected, equal_nan=True)


def test_no_column_of_the_view_depends_on_the_true_length():
    def seen(output):
        views = []

        def compose(view):
            views.append(
                [np.copy(column) for column in view.req]
                + [np.copy(view.kv_record.view("i8")), np.copy(view.totals_record.view("i8"))]
            )
            for i in view.waiting:
                ls.take(view, i, 2)
            for i in view.running:
                ls.take(view, i, 2)
            return math.inf

        requests = ls.Workload.from_arrays([0.0, 0.5], [3, 4], output)
        engine = ls.EngineConfig(ls.Staircase(c=0.5, a=0.5, b0=8))
        ls.simulate(ls.Scheduler("spy", compose), requests, engine, horizon=4.5, interpreted=True)
        return views

    first, second = seen([5, 9]), seen([8, 6])
    assert len(first) == len(second) == 5
    for a, b in zip(first, second, strict=True):
        assert all(np.array_equal(x, y, equal_nan=True) for x, y in zip(a, b, strict=True))


def test_the_workload_of_a_seed_does_not_depend_on_the_scheduler():
    workload = ls.Workload.generated(
        ls.Poisson(),
        5.0,
        ls.dist.Geometric(30.0),
        ls.dist.Geometric(9.0),
        20.0,
        predictor=lambda rng, prompt, output: output * rng.uniform(0.5, 2.0, len(output)),
    )
    engine = ls.EngineConfig(ls.Staircase(c=0.25, a=0.125, b0=16), token_budget=256)
    columns = ("arrival", "prompt_tokens", "output_tokens", "predicted_output", "client", "priority", "ttft_slo")
    for seed in (0, 1):
        table = workload.sample(seed)
        for scheduler in baselines.REGISTRY.values():
            rows = ls.simulate(scheduler, workload, engine, seed=seed).requests
            assert len(rows) > 50
            for column in columns:
                assert rows[column].tobytes() == getattr(table, column).tobytes(), column
    assert table.arrival.tolist() != workload.sample(0).arrival.tolist()
