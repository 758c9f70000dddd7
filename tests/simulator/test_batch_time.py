"""Batch-time laws against numbers worked out by hand."""

import math

import numpy as np
import pytest

import baselines
import llmsched_env as ls

STAIRCASE = ls.Staircase(c=0.01128, a=0.03547, b0=128)
HINGE = ls.Hinge(c=0.02, a=0.001, b0=100)
ROOFLINE = ls.Roofline(c=1.0, a_tok=0.5, a_tok_over=0.25, b0=4, a_kv=0.125, a_attn=0.0625, a_ctx=0.03125)


@pytest.mark.parametrize(
    ("tokens", "seconds"), [(0, 0.0), (1, 0.04675), (128, 0.04675), (129, 0.08222), (512, 0.15316), (1024, 0.29504)]
)
def test_staircase(tokens, seconds):
    assert STAIRCASE.seconds(tokens) == pytest.approx(seconds)


@pytest.mark.parametrize(("tokens", "seconds"), [(0, 0.0), (1, 0.02), (100, 0.02), (101, 0.021), (300, 0.22)])
def test_hinge(tokens, seconds):
    assert HINGE.seconds(tokens) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("composition", "seconds"),
    [
        ((0,), 0.0),
        ((1,), 1.5),
        ((4,), 3.0),
        ((6,), 1.0 + 3.0 + 0.5),
        ((2, 8), 1.0 + 1.0 + 1.0),  # S: two decodes read 8 tokens of context
        ((3, 0, 6), 1.0 + 1.5 + 6 / 16),  # Q: a prompt of 3 has 1 + 2 + 3 pairs
        ((3, 0, 21, 5), 1.0 + 1.5 + 21 / 16 + 5 / 32),  # C: 3 tokens after 5 earlier ones have 6 + 7 + 8 pairs
        ((5, 7, 10, 3), 1.0 + 2.5 + 0.25 + 7 / 8 + 10 / 16 + 3 / 32),
    ],
)
def test_roofline(composition, seconds):
    assert ROOFLINE.seconds(*composition) == seconds


def test_arrays_and_scalars():
    assert isinstance(STAIRCASE.seconds(3), float)
    assert STAIRCASE.seconds(np.array([0, 1, 129])) == pytest.approx([0.0, 0.04675, 0.08222])
    assert ROOFLINE.seconds(np.array([[2], [0]]), np.array([8, 0])).tolist() == [[3.0, 2.0], [0.0, 0.0]]


@pytest.mark.parametrize("model", [STAIRCASE, HINGE, ROOFLINE])
def test_coefficients_are_those_of_the_general_law(model):
    c, a_step, a_tok, a_tok_over, b0, a_kv, a_attn, a_ctx = model.coefficients()
    for b, s, q, x in ((1, 0, 0, 0), (90, 17, 0, 0), (300, 40, 90, 7)):
        general = c + a_step * math.ceil(b / b0) + a_tok * b + a_tok_over * max(0, b - b0)
        assert model.seconds(b, s, q, x) == pytest.approx(general + a_kv * s + a_attn * q + a_ctx * x)


def test_a_run_feeds_the_law_with_what_its_batches_hold():
    """Prompts of 5 and 4, two output tokens each, under Sarathi with a budget of 4."""
    workload = ls.Workload.from_arrays([0.0, 0.0], [5, 4], [3, 2])
    result = ls.simulate(baselines.sarathi, workload, ls.EngineConfig(ROOFLINE, token_budget=4))
    compositions = [  # tokens, S, Q, C
        (4, 0, 1 + 2 + 3 + 4, 0),  # 4 of request 0
        (4, 0, 5 + (1 + 2 + 3), 4),  # its last after 4; 3 of request 1
        (2, 5, 4, 3),  # request 0 decodes over 5; the last token of request 1 after 3
        (2, 6 + 4, 0, 0),  # both decode, over 6 and 4
    ]
    assert result.batches.duration.tolist() == [ROOFLINE.seconds(*composition) for composition in compositions]


def test_two_chunks_of_one_prompt_cost_no_fewer_pairs_than_one():
    """`take` may be called twice for a request: its chunks add up to one."""

    def compose(view):
        for i in view.waiting:
            ls.take(view, i, 3)
            ls.take(view, i, 4)
        for i in view.running:
            ls.take(view, i, 1)
            ls.take(view, i, 1)  # a request decodes one token a batch
        return math.inf

    workload = ls.Workload.from_arrays([0.0], [7], [2])
    result = ls.simulate(ls.Scheduler("twice", compose), workload, ls.EngineConfig(ROOFLINE), record="entries")
    assert result.batch_entries.tolist() == [(0, 0, 7, True), (1, 0, 1, False)]
    assert result.batches.duration.tolist() == [ROOFLINE.seconds(7, 0, 28), ROOFLINE.seconds(1, 7)]


def test_host_overhead_is_added_per_batch_and_per_request():
    workload = ls.Workload.from_arrays([0.0, 0.0, 0.0], [1, 1, 1], [2, 1, 1])
    engine = ls.EngineConfig(ls.Staircase(c=0.5, a=0.5, b0=8), host_overhead=(0.25, 0.0625))
    result = ls.simulate(baselines.sarathi, workload, engine)
    assert result.batches.duration.tolist() == [1.25 + 3 / 16, 1.25 + 1 / 16]
