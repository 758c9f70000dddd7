"""Verdicts: what passes, what fails and what nobody can tell."""

import math

import numpy as np
import pytest

from experiments.check import agrees, close, exactly, in_range, interval_verdict, pending, stability_is
from llmsched_env.results.stability import Stability


@pytest.mark.parametrize(
    ("value", "half_width", "verdict"),
    [
        (5.0, 1.0, "pass"),
        (5.0, 5.0, "pass"),
        (0.5, 1.0, "undecided"),
        (9.5, 1.0, "undecided"),
        (5.0, 50.0, "undecided"),
        (-2.0, 1.0, "fail"),
        (12.0, 1.0, "fail"),
        (11.0, 0.0, "fail"),
        (5.0, math.nan, "undecided"),
        (math.nan, 1.0, "undecided"),
    ],
)
def test_an_interval_lies_in_a_range_outside_or_on_its_edge(value, half_width, verdict):
    assert interval_verdict(value, half_width, 0.0, 10.0) == verdict


def test_only_pass_and_pending_are_no_failure():
    def verdict_of(values):
        return in_range("x", values, 0, 10)

    assert not verdict_of([4.0, 5.0, 6.0]).failed
    assert verdict_of([9.0, 10.0, 11.0]).failed and verdict_of([9.0, 10.0, 11.0]).verdict == "undecided"
    assert verdict_of([20.0, 20.1]).failed
    assert not pending("x", "needs more").failed


def test_one_value_that_is_not_random_is_its_own_interval():
    assert in_range("x", [10.0], 0, 10).verdict == "pass"
    assert in_range("x", [10.1], 0, 10).verdict == "fail"
    assert math.isnan(in_range("x", [10.0], 0, 10).half_width)


def test_agreement_is_measured_in_standard_errors():
    values = np.array([-1.0, 1.0] * 50)  # standard error 0.1005
    assert agrees("x", values, 0.4, 1.0).verdict == "pass"
    assert agrees("x", values, 0.41, 1.0).verdict == "fail"
    assert agrees("x", values, 0.0, 0.1).verdict == "undecided"
    assert agrees("x", [1.0, math.nan], 0.0, 0.1).verdict == "undecided"
    assert agrees("x", values, 0.0, 1.0).half_width == pytest.approx(1.984 * 0.1005, rel=1e-3)


def test_theory_goes_before_what_was_published():
    assert exactly("x", 1.0, published=2.0, theory=1.0).verdict == "pass"
    assert exactly("x", 1.0, published=2.0).verdict == "fail"
    assert close("x", 1.09, 0.1, published=5.0, theory=1.0).verdict == "pass"
    assert close("x", 1.09, 0.1, published=5.0).verdict == "fail"
    assert close("x", -1.09, 0.1, theory=-1.0).verdict == "pass"


@pytest.mark.parametrize("found", ["stable", "unstable", "undecided"])
def test_stability_must_be_decided(found):
    check = stability_is("x", Stability(found, 0.1, 0.01), "unstable")
    assert check.verdict == {"stable": "fail", "unstable": "pass", "undecided": "undecided"}[found]
    assert check.ours == found and check.theory == "unstable"
