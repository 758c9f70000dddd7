"""Theorem 10: the published corners, the hull over all batches, membership and supporting batches."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import llmsched_env as ls
from llmsched_env import theory

PAPER = ls.Staircase(c=0.01128, a=0.03547, b0=128)
ENGINE = ls.EngineConfig(PAPER, token_budget=1024, max_num_seqs=100, first_token="separate")


def test_published_corners():
    region = theory.theorem10(ENGINE)
    assert region.names == ("A", "B", "C", "D")
    assert region.compositions.tolist() == [[1024, 0], [925, 99], [29, 99], [0, 100]]
    expected = [[3.4707, 0], [3.1352, 0.3355], [0.6203, 2.1176], [0, 2.139]]  # tokens/ms
    assert region.vertices / 1e3 == pytest.approx(np.array(expected), abs=5e-5)


def test_vertex_c_is_where_290_and_990_tokens_every_467_5_ms_lie():
    region, workload = theory.theorem10(ENGINE), ls.Workload.poisson(1.0, 290, 990, 10.0)
    assert region.capacity(workload, ENGINE) == pytest.approx(1 / 0.4675)
    ((name, batch, share),) = region.support(290, 990)
    assert (name, batch) == ("C", (29, 99)) and share == pytest.approx(1.0)
    # Counting tokens alone would allow more: C does 2.738 tokens/ms, a full budget 3.471.
    assert theory.critical_rate(ENGINE, workload) == pytest.approx(1.268 / 0.4675, rel=1e-3)


def test_membership_and_support_on_the_edge_between_two_corners():
    region = theory.theorem10(ENGINE)
    middle = (region.vertices[1] + region.vertices[2]) / 2
    assert region.stretch(*middle) == pytest.approx(1.0)
    assert region.contains(*middle) and region.contains(*(0.99 * middle)) and not region.contains(*(1.01 * middle))
    assert region.support(*middle) == [("B", (925, 99), pytest.approx(0.5)), ("C", (29, 99), pytest.approx(0.5))]
    assert region.contains(0, 0) and region.contains(3470, 0) and not region.contains(3471, 0)
    assert region.contains(0, 2139) and not region.contains(0, 2140)
    with pytest.raises(ValueError, match="must not both be 0"):
        region.stretch(0, 0)
    with pytest.raises(ValueError, match="decode must be a finite number >= 0, got -1"):
        region.contains(1, -1)


def test_without_slots_the_region_is_the_triangle_of_theorem_2():
    engine = ls.EngineConfig(PAPER, token_budget=512, first_token="separate")
    assert theory.theorem10(engine).names == ("A", "D")
    workload = ls.Workload.poisson(1.0, 129, 112, 10.0)
    assert theory.theorem10(engine).capacity(workload, engine) == pytest.approx(theory.capacity(engine, workload))


@settings(max_examples=60, deadline=None)
@given(
    c=st.floats(0.001, 0.1), a=st.floats(0.001, 0.1), b0=st.integers(1, 12), steps=st.integers(1, 8), seats=st.data()
)
def test_formulas_are_the_hull_of_all_batches(c, a, b0, steps, seats):
    slots = seats.draw(st.integers(1, b0) | st.integers(1, steps).map(lambda m: m * b0))
    engine = ls.EngineConfig(ls.Staircase(c, a, b0), token_budget=b0 * steps, max_num_seqs=slots)
    region, every = theory.theorem10(engine), all_rates(engine)
    assert all(region.contains(*(rates * (1 - 1e-9))) for rates in every)
    assert {tuple(v) for v in region.vertices} <= {tuple(v) for v in every}


@settings(max_examples=60, deadline=None)
@given(
    law=st.one_of(
        st.builds(ls.Staircase, c=st.floats(0.001, 0.1), a=st.floats(0.001, 0.1), b0=st.integers(1, 12)),
        st.builds(ls.Hinge, c=st.floats(0.001, 0.1), a=st.floats(0.0, 0.1), b0=st.integers(1, 12)),
    ),
    budget=st.integers(1, 40),
    slots=st.integers(1, 50),
    host=st.sampled_from([0.0, 0.01]),
)
def test_the_region_of_any_law_is_the_hull_of_all_batches(law, budget, slots, host):
    engine = ls.EngineConfig(law, token_budget=budget, max_num_seqs=slots, host_overhead=(host, host / 10))
    region, every = theory.stability_region(engine), all_rates(engine)
    assert all(region.contains(*(rates * (1 - 1e-9))) for rates in every)
    assert all(np.isclose(every, corner, rtol=1e-12).all(axis=1).any() for corner in region.vertices)


def all_rates(engine):
    """(prefill, decode) tokens/s of every batch, one by one."""
    slots, rates = engine.max_num_seqs, []
    for x in range(engine.token_budget + 1):
        for y in range(engine.token_budget - x + 1):
            seqs = y + (x > 0)
            if 0 < seqs <= slots:
                seconds = engine.batch_time.seconds(x + y) + engine.host_overhead[0] + engine.host_overhead[1] * seqs
                rates.append(np.array([x, y]) / seconds)
    return np.array(rates)


def test_between_multiples_of_the_step_fewer_decodes_do_better_than_the_formulas():
    engine = ls.EngineConfig(PAPER, token_budget=512, max_num_seqs=130)  # 130 decodes take two steps, 128 one
    assert theory.theorem10(engine).stretch(0, 1) == pytest.approx(130 / 0.08222)
    assert theory.stability_region(engine).stretch(0, 1) == pytest.approx(128 / 0.04675)


def test_attention_needs_a_workload():
    engine = ls.EngineConfig(ls.Roofline(0.01, 1e-4, 0.0, 1, 1e-5, 1e-6, 0.0), token_budget=100)
    with pytest.raises(ValueError, match="workload must be given"):
        theory.stability_region(engine)
    workload = ls.Workload.poisson(1.0, 20, 10, 10.0)
    region = theory.stability_region(engine, workload)
    assert region.capacity(workload, engine) == pytest.approx(theory.capacity(engine, workload))


@pytest.mark.parametrize(
    ("law", "budget", "message"),
    [
        (ls.Hinge(0.01, 0.01, 10), 100, "batch_time must be a Staircase"),
        (PAPER, 500, "token_budget must be a multiple of the step b0=128 of the staircase, got 500"),
    ],
)
def test_what_the_formulas_do_not_cover(law, budget, message):
    with pytest.raises(ValueError, match=message):
        theory.theorem10(ls.EngineConfig(law, token_budget=budget, max_num_seqs=10))
