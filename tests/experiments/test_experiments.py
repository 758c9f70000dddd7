"""Every experiment passes by its own rules; where they have a formula, it is worked out here a second way."""

import math

import numpy as np
import pytest

import llmsched_env as ls
from experiments import dong_cao, fig1, stability_region, theorem2, theorem10
from experiments.registry import EXPERIMENTS
from llmsched_env.evaluation.capacity_search import CapacityEstimate

SLOW = {"stability_region"}


@pytest.fixture(scope="module")
def outcomes():
    """Outcomes by name, run once."""
    done = {}

    def outcome(name):
        if name not in done:
            done[name] = EXPERIMENTS[name].run()
        return done[name]

    return outcome


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in EXPERIMENTS])
def test_every_check_passes(outcomes, name):
    checks = outcomes(name).checks
    assert len(checks) >= 2
    assert {check.name: check.verdict for check in checks} == {check.name: "pass" for check in checks}
    assert len({check.name for check in checks}) == len(checks)
    assert all(check.note for check in checks)
    assert all(check.published is not None or check.theory is not None for check in checks)


@pytest.mark.parametrize("name", [n for n in EXPERIMENTS if n not in SLOW])
def test_pictures_are_complete_and_explained(outcomes, name):
    pictures = outcomes(name).pictures
    assert pictures
    for picture in pictures:
        assert picture.caption
        assert picture.svg.rstrip().endswith("</svg>")
        assert "nan" not in picture.svg


def test_a_law_that_is_off_is_seen():
    slow = ls.EngineConfig(
        ls.Staircase(c=0.0120, a=0.03547, b0=128), token_budget=512, first_token="separate"
    )  # 0.7 ms a batch
    runs = [
        ls.simulate(theorem2.FOUR["Sarathi"](token_budget=512), theorem2.workload(20.0), engine, horizon=60.0)
        for engine in (theorem2.ENGINE, slow)
    ]
    true, wrong = map(theorem2.deviation_while_full, runs)
    assert 256 < true <= 512 + 1e-6
    assert wrong > 512 + 100


def test_closed_form_of_fastertransformer():
    # 3 prompts in 387 tokens: 4 steps, 153.16 ms; then 112 batches of 3 tokens at 46.75 ms.
    assert fig1.fastertransformer_capacity() == pytest.approx(3 / (0.15316 + 112 * 0.04675))


@pytest.mark.parametrize(("rate", "limit"), [(3.0, 4), (0.5, 1), (1.5, 2)])
def test_stationary_queue_against_the_chain_itself(rate, limit):
    states = 200
    arrivals = np.array([math.exp(n * math.log(rate) - rate - math.lgamma(n + 1)) for n in range(states)])
    queue = np.eye(1, states)[0]
    for _ in range(2000):
        after = np.convolve(queue, arrivals)[:states]
        queue = np.concatenate([[after[: limit + 1].sum()], after[limit + 1 :], np.zeros(limit)])
    assert queue.sum() == pytest.approx(1.0)
    assert dong_cao.stationary_mean(rate, limit) == pytest.approx(queue @ np.arange(states), abs=1e-6)


def test_queues_that_break_the_recursion_are_counted():
    result = ls.simulate(dong_cao.SCHEDULER, dong_cao.workload(3.0, 300, 1), dong_cao.ENGINE, horizon=300.0)
    queues = dong_cao.queue_lengths(result, 300)
    assert dong_cao.differing_slots(result, queues) == 0
    queues[1, 100:103] += 1
    assert dong_cao.differing_slots(result, queues) == 3


def test_five_schedulers_get_299_arrivals():
    table = theorem10.traffic().sample(0)
    assert np.count_nonzero(table.arrival <= theorem10.STOP) == 299
    assert table.arrival[0] == 0.4675


@pytest.mark.parametrize(
    ("low", "high", "decided", "reached", "verdict"),
    [
        (0.99, 1.01, True, True, "pass"),
        (0.97, 0.99, True, True, "undecided"),
        (0.94, 0.96, True, True, "fail"),
        (0.94, 0.96, True, False, "pass"),
        (1.01, 1.03, True, False, "fail"),
        (0.9, math.inf, False, False, "undecided"),
        (1.01, math.inf, False, False, "fail"),
    ],
)
def test_a_point_of_a_region_is_judged_by_its_bracket(low, high, decided, reached, verdict):
    def point(low, high, decided):
        estimate = CapacityEstimate(10 * (low + high) / 2, 10 * low, 10 * high, decided, ())
        return stability_region.MixCapacity((100, 100), estimate, limit=10.0)

    good = point(0.995, 1.005, True)
    assert stability_region.check_points("x", [good, point(low, high, decided)], reached).verdict == verdict
