"""Shares of costs that are saved, their words, and the learning curve."""

import math

import numpy as np
import pytest

from agents.curve_report import NO_PROGRESS, curve_rows, curve_section, warning
from agents.learning_curve import LearningCurve, Point
from agents.problem import Validation
from agents.tensorboard import differences
from agents.verdict import Costs, amount_text, outcome, saved_share, share_text
from llmsched_env.evaluation.benchmark.statistics import Interval
from llmsched_env.objectives import OBJECTIVES

SLO, E2EL = OBJECTIVES["slo_attainment"], OBJECTIVES["mean_e2el"]


@pytest.fixture
def costs():
    """Missed requests of four seeds at two loads: the agent misses half of the best baseline's."""
    base = np.array([12.0, 20.0, 16.0, 24.0])
    at = {"agent": base, "edf (tuned)": 2 * base, "sola (tuned)": 3 * base, "orca (defaults)": 0 * base + 1,
          "static_best": 0.75 * base, "neutral": 4 * base}  # fmt: skip
    over = {name: 10 * values for name, values in at.items()} | {"sola (tuned)": 2 * base}
    groups = {"load 0.8": ("0.8",), "loads 0.8 and 1.1": ("0.8", "1.1")}
    return Costs(SLO, {"0.8": at, "1.1": over}, groups)


def test_the_share_is_that_of_the_sums_with_an_interval_over_seeds():
    own, other = np.array([1.0, 2.0, 3.0, 4.0]), np.array([2.0, 4.0, 6.0, 9.0])
    share = saved_share(own, other)
    assert share.value == pytest.approx(1 - 10 / 21)
    assert share.low < share.value < share.high and outcome(share) == "better"
    assert outcome(saved_share(other, own)) == "worse"
    assert outcome(saved_share(own, own)) == "not significantly different"
    single = saved_share(np.array([1.0]), np.array([4.0]))
    assert single.value == 0.75 and math.isnan(single.low) and outcome(single) == "not significantly different"


def test_the_best_baseline_is_a_tuned_one_and_never_an_action_of_the_agent(costs):
    assert costs.opponents(["agent"], ["0.8"]) == {
        "edf (tuned)": "the best baseline", "static_best": "the best constant action",
    }  # fmt: skip
    assert next(iter(costs.opponents(["agent"]))) == "sola (tuned)"  # pooled: 3 + 2 against 2 + 20
    assert costs.saved("agent", "edf (tuned)").value == pytest.approx(0.5)


def test_the_verdict_says_it_for_loads_below_one_first(costs):
    text = costs.verdict("agent")
    assert text.startswith(
        "At load 0.8 the agent misses 50 % [50, 50] fewer requests than the best baseline, edf (tuned)"
    )
    assert "misses 33 % [33, 33] more requests than the best constant action, static_best" in text
    assert "; at loads 0.8 and 1.1 it misses" in text and text.endswith("4 test seeds, paired 95 % intervals.")


def test_amounts_in_words():
    assert amount_text(Interval(0.31, 0.2, 0.4), E2EL) == "has a Mean E2E latency 31 % [20, 40] lower"
    assert amount_text(Interval(-0.031, -0.04, 0.01), SLO) == "misses 3.1 % [-1.0, 4.0] more requests"
    assert amount_text(Interval(0.5, math.nan, math.nan), SLO) == "misses 50 % fewer requests"
    assert share_text(Interval(0.0, -0.001, 0.5)) == "0.0 [-0.1, 50]"


@pytest.fixture
def curve(tmp_path):
    """Attainment of three validations, the second the best, and three references."""
    curve = LearningCurve.of(tmp_path)
    curve.go_on(-1, "steps")
    for step, value in ((0, 0.90), (100, 0.96), (200, 0.94)):
        curve.add(step, step / 10, Validation(value, {"slo_attainment": value}, "", True, SLO))
    curve.compare(
        {name: {"slo_attainment": value} for name, value in
         {"neutral": 0.9, "static_best": 0.97, "edf (tuned)": 0.95, "fastertransformer (defaults)": 0.01}.items()},
        complete=True,
    )  # fmt: skip
    return curve


def test_a_curve_is_kept_and_goes_on(curve, tmp_path):
    again = LearningCurve.of(tmp_path)
    assert again == curve and again.best == Point(100, 10.0, 0.96) and again.complete
    again.go_on(100, "steps")
    assert [point.step for point in again.points] == [0, 100]


def test_what_would_flatten_a_curve_is_left_out_and_named(curve):
    assert list(curve.in_range()) == ["static_best", "edf (tuned)", "neutral"]
    section = curve_section(curve)
    assert section.text.endswith("Not drawn, as they are worse: fastertransformer (defaults).")
    header, rows = curve_rows(curve)
    assert header[3:5] == ["less edf (tuned)", "less static_best"]
    assert [row[3] for row in rows] == ["-5", "+1", "-1"] and [row[-1] for row in rows] == ["", "<", ""]


def test_a_training_that_ends_at_its_start_says_so_in_capitals(curve):
    assert warning(curve) == []
    curve.points = [curve.points[0], Point(100, 1.0, 0.9), Point(200, 2.0, 0.8)]
    assert warning(curve) == [NO_PROGRESS] and NO_PROGRESS.isupper()


def test_differences_are_above_zero_where_the_agent_is_better(curve):
    assert differences(curve, 0.96, 0.92) == pytest.approx({"slo_attainment_points": 4.0, "fewer_misses_percent": 50.0})
    assert differences(curve, 0.92, 0.96)["fewer_misses_percent"] == pytest.approx(-50.0)
    assert differences(curve, 1.0, 1.0) == {"slo_attainment_points": 0.0}
    curve.larger_is_better, curve.objective = False, "mean_e2el"
    assert differences(curve, 3.0, 4.0) == {"lower_mean_e2el_percent": 25.0}
