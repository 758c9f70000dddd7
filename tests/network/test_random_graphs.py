"""Random graphs of calls on random networks: nothing is done too early, nothing is lost."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import baselines
from baselines.routers import ROUTERS, prefix_aware, random_router
from llmsched_env.compiled import interpreted
from tests.network.cases import Case, check_rows, run, seeded_case, small_case
from tests.simulator.anything import ANYTHING

FOR_NETWORKS = ("class_priority", "fbfs", "lbfs", "max_pressure", "critical_path", "plas", "atlas", "justitia")
TABLES = ("requests", "tasks", "batches", "batch_entries", "token_gaps")


@st.composite
def cases(draw: st.DrawFn) -> Case:
    return small_case(lambda low, high: draw(st.integers(low, high)))


@settings(max_examples=150, deadline=None)
@given(case=cases(), horizon=st.just(20.0) | st.floats(0.1, 4.0))
def test_random_actions_keep_every_precedence_and_every_token(case, horizon):
    python = dataclasses.replace(ANYTHING, compose=interpreted(ANYTHING.compose))
    check_rows(run(case, python, random_router, horizon, interpreted=True), case.tasks)


@pytest.mark.parametrize("name", FOR_NETWORKS)
def test_every_task_is_finished(name):
    scheduler = baselines.get(name)
    if name in ("plas", "atlas"):
        scheduler = scheduler(quantum=4, starvation=0.05)
    for seed in range(60):
        case = seeded_case(seed)
        result = run(case, scheduler(token_budget=1 + seed % 28), list(ROUTERS.values())[seed % 9], interpreted=True)
        check_rows(result, case.tasks)
        rejected = np.unique(result.requests.task[result.requests.status == "rejected"])
        assert set(np.flatnonzero(np.isnan(result.tasks.finish))) == set(rejected), "stuck"


@pytest.mark.parametrize("name", ["vllm_v1", *FOR_NETWORKS])
def test_compiled_and_interpreted_rows_are_equal(name):
    for seed in range(12):
        case = seeded_case(seed)
        for router in (random_router, prefix_aware):
            a, b = (run(case, baselines.get(name), router, interpreted=mode) for mode in (False, True))
            for part in TABLES:
                assert getattr(a, part).tobytes() == getattr(b, part).tobytes(), (seed, part)


@pytest.mark.parametrize("router", ROUTERS.values(), ids=ROUTERS)
def test_routers_choose_the_same_compiled_and_interpreted(router):
    for seed in range(8):
        case = seeded_case(seed)
        a, b = (run(case, baselines.sarathi, router, interpreted=mode) for mode in (False, True))
        assert a.requests.tobytes() == b.requests.tobytes(), seed
