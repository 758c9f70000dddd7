"""Compiled and interpreted runs are the same run."""

import math
from dataclasses import replace

import numba
import numpy as np
import pytest

import baselines
import llmsched_env as ls
from llmsched_env.compiled import interpreted
from llmsched_env.simulator.primitives import whole_prompts
from llmsched_env.simulator.simulator import Simulator
from tests.simulator.anything import ANYTHING
from tests.simulator.cases import assert_same_rows, memory_case, run, small_case


def seeded_case(seed: int):
    rng = np.random.default_rng(seed)
    return small_case(lambda low, high: int(rng.integers(low, high + 1)))


@pytest.mark.parametrize("name", baselines.REGISTRY)
def test_rows_of_200_small_workloads(name):
    preemptions = rejected = 0
    for seed in range(200):
        case = seeded_case(seed)
        compiled = run(baselines.get(name), case)
        assert_same_rows(compiled, run(baselines.get(name), case, interpreted=True))
        preemptions += compiled.requests.preemptions.sum()
        rejected += np.count_nonzero(compiled.requests.status == "rejected")
    assert preemptions > 0 and rejected > 0  # the cases reach what they should


@pytest.mark.filterwarnings("ignore:.*turned away as they arrive")
@pytest.mark.parametrize("scheduler", [*baselines.REGISTRY.values(), ANYTHING], ids=lambda scheduler: scheduler.name)
def test_rows_of_80_workloads_with_little_memory(scheduler):
    """Prefix caching, swapping, timeouts, batches decided ahead, and engines that are not what schedulers believe."""
    seen = dict.fromkeys(("prefix_hit", "swapped", "preemptions", "abandoned"), 0)
    for seed in range(80):
        rng = np.random.default_rng(seed)
        case = memory_case(lambda low, high, rng=rng: int(rng.integers(low, high + 1)))
        if seed >= 60:
            law = case.engine.batch_time.scaled(0.7)
            doubtful = {"step_noise": 0.3, "believed_batch_time": law, "believed_host_overhead": (0.01, 0.0)}
            case = case._replace(engine=replace(case.engine, max_model_len=16, **doubtful))
        compiled = run(scheduler, case, horizon=60.0)
        assert_same_rows(compiled, run(scheduler, case, horizon=60.0, interpreted=True))
        rows, batches = compiled.requests, compiled.batches
        for name, found in zip(
            seen,
            (rows.prefix_hit, batches.swapped, rows.preemptions, rows.status == "abandoned"),
            strict=True,
        ):
            seen[name] += found.sum()
    assert all(seen.values()) or (scheduler.reserves_kv and seen["prefix_hit"] and seen["abandoned"]), seen


@pytest.mark.parametrize("name", baselines.REGISTRY)
def test_rows_of_a_longer_run(name):
    """With sums large enough that another order of additions would show."""
    workload = ls.Workload.poisson(rate=9.0, prompt_tokens=ls.dist.Uniform(1, 200), output_tokens=12, horizon=12.0)
    engine = ls.EngineConfig(ls.gpu_profile("llama-3.1-8b_h100-80gb_tp1_aic").batch_time, kv_blocks=300)
    rows = [
        ls.simulate(baselines.get(name), workload, engine, seed=1, record="entries", interpreted=plain)
        for plain in (False, True)
    ]
    assert_same_rows(*rows)
    assert rows[0].drained and len(rows[0].requests) > 50


def by_index(view):
    """Sarathi by other means: three loops, and no order given."""
    for i in view.running:
        if ls.is_decoding(view, i):
            ls.take(view, i, 1)
    for i in view.running:
        if not ls.is_decoding(view, i):
            ls.take(view, i, ls.ALL)
    for i in view.waiting:
        if ls.take(view, i, ls.ALL) == 0:
            break
    return math.inf


def by_dictionary(view):
    """The same through objects that numba does not know."""
    by_kind = {"decode": [], "prefill": []}
    for i in view.running.tolist():
        by_kind["decode" if ls.is_decoding(view, i) else "prefill"].append(i)
    by_kind["prefill"] += view.waiting.tolist()
    for kind, requests in sorted(by_kind.items(), key=lambda item: item[0]):
        for i in requests:
            if ls.take(view, i, {"decode": 1}.get(kind, ls.ALL)) == 0:
                break
    return math.inf


SARATHI = [by_index, numba.njit(by_index), by_dictionary]


@pytest.mark.parametrize("compose", SARATHI, ids=["plain", "njit", "objects"])
def test_a_users_scheduler_runs_however_it_is_written(compose):
    scheduler = ls.Scheduler("mine", compose, work_conserving=True, mixes_phases=True, chunks_prefill=True)
    assert Simulator(seeded_case(0).engine, scheduler).interpreted == (compose is by_dictionary)
    for seed in range(60):
        case = seeded_case(seed)._replace(budget=28)
        if case.engine.kv_blocks is None:
            result = run(scheduler, case)
            assert_same_rows(result, run(baselines.sarathi, case))
            assert_same_rows(result, run(scheduler, case, interpreted=True))


def test_a_compilation_that_was_asked_for_shows_its_errors():
    @numba.njit
    def compose(view):
        return view.nothing_of_this_name

    with pytest.raises(numba.core.errors.TypingError, match="nothing_of_this_name"):
        Simulator(seeded_case(0).engine, ls.Scheduler("broken", compose))


def test_errors_of_interpreted_schedulers_come_through():
    def compose(view):
        raise KeyError("my own mistake")

    with pytest.raises(KeyError, match="my own mistake"):
        run(ls.Scheduler("broken", compose), seeded_case(0))


def test_the_interpreted_twin_is_plain_python_all_the_way_down():
    # Python frames reach the caller of the innermost primitive, which is where a breakpoint would stand.
    depths = []

    class Probe(list):
        def __getitem__(self, k):
            import traceback

            depths.append([frame.name for frame in traceback.extract_stack()])
            return super().__getitem__(k)

    def compose(view):
        whole_prompts(view._replace(waiting=Probe(view.waiting.tolist())))
        return math.inf

    workload = ls.Workload.from_arrays([0.0], [2], [1])
    engine = ls.EngineConfig(ls.Staircase(c=0.5, a=0.5, b0=8))
    assert ls.simulate(ls.Scheduler("probe", compose), workload, engine, interpreted=True).drained
    assert depths and all({"advance", "compose", "whole_prompts"} <= set(names) for names in depths)


def test_plain_functions_are_their_own_twins():
    def plain(x):
        return x + 1

    assert interpreted(plain) is plain
    assert interpreted(math.sqrt) is math.sqrt
    twin = interpreted(baselines.sarathi.compose)
    assert twin is not baselines.sarathi.compose and type(twin) is type(plain)
    assert twin.__globals__["decodes"] is not baselines.sarathi.compose.py_func.__globals__["decodes"]


def test_an_object_that_can_be_called_is_a_scheduler_too():
    class Shy:
        def __call__(self, view):
            ls.decodes(view, view.running)
            ls.chunks(view, view.running, 1)
            ls.chunks(view, view.waiting, 1)
            return math.inf

    workload = ls.Workload.from_arrays([0, 1], [2, 2], [2, 2])
    engine = ls.EngineConfig(ls.Staircase(c=0.5, a=0.5, b0=100))
    result = ls.simulate(
        ls.Scheduler("shy", Shy(), mixes_phases=True, chunks_prefill=True), workload, engine, horizon=9
    )
    assert result.batches.prefill_tokens.tolist() == [1, 2, 1, 0]  # one of each prompt in a batch
