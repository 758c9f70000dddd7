"""Checks of user input name the field, the value and what is allowed."""

import math

import numpy as np
import pytest

from llmsched_env.slo import SLO
from llmsched_env.validation import check_choice, check_integer, check_number, check_range


@pytest.mark.parametrize("value", [-1, 0, math.nan, math.inf, True, "3", None, 1 + 0j, np.array([1.0])])
def test_bad_numbers_are_refused_with_name_value_and_range(value):
    with pytest.raises(ValueError, match=r"^rate must be a finite number > 0 \(requests/s\), got ") as error:
        check_number("rate", value, above=0, unit="requests/s")
    shown = f"{value:g}" if isinstance(value, (int, float)) and not isinstance(value, bool) else repr(value)
    assert str(error.value).endswith(shown)


def test_bounds_are_inclusive_or_exclusive_as_named():
    assert check_number("u", 1, above=0, at_most=1) == 1.0
    assert check_number("u", np.float32(0.5), at_least=0.5) == 0.5
    assert check_number("limit", math.inf, above=0, finite=False) == math.inf
    for value, bounds in ((0, {"above": 0}), (2, {"at_most": 1}), (0, {"at_least": 1})):
        with pytest.raises(ValueError, match="u must be"):
            check_number("u", value, **bounds)


@pytest.mark.parametrize("value", [0, 1.0, True, "1", math.nan])
def test_bad_integers_are_refused(value):
    with pytest.raises(ValueError, match=r"token_budget must be an integer >= 1 \(tokens\), got"):
        check_integer("token_budget", value, at_least=1, unit="tokens")


def test_numpy_integers_are_integers():
    checked = check_integer("n", np.int64(3), at_least=3, at_most=3)
    assert checked == 3 and type(checked) is int


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (0.8, "load must be two numbers, low and high, got 0.8"),
        ((0.8,), "load must be two numbers"),
        ("ab", "load must be two numbers"),
        ((0.0, 1.0), r"load\[0\] must be a finite number > 0, got 0"),
        ((0.8, 0.5), r"load\[1\] must be a finite number >= 0.8, got 0.5"),
        ((0.8, math.inf), r"load\[1\] must be .* got inf"),
    ],
)
def test_bad_ranges_are_refused(value, message):
    with pytest.raises(ValueError, match=message):
        check_range("load", value, above=0)


def test_a_range_is_two_numbers_in_order():
    assert check_range("load", [1, 1], above=0) == (1.0, 1.0)
    assert check_range("weight", (-2.0, 0.5)) == (-2.0, 0.5)


def test_unknown_choices_are_answered_with_close_ones_or_all():
    assert check_choice("scheduler", "orca", ["orca", "sarathi"]) == "orca"
    with pytest.raises(ValueError, match="scheduler .*'sarati'; did you mean 'sarathi'"):
        check_choice("scheduler", "sarati", ["orca", "sarathi"])
    with pytest.raises(ValueError, match="known: 'orca', 'sarathi'"):
        check_choice("scheduler", "xyz", ["orca", "sarathi"])


@pytest.mark.parametrize("targets", [{"ttft": 0}, {"tpot": -0.1}, {"e2el": math.nan}, {"ttft": None}])
def test_slo_targets_must_be_positive(targets):
    with pytest.raises(ValueError, match=f"SLO {next(iter(targets))} must be a number > 0"):
        SLO(**targets)


def test_slo_without_targets_is_infinite():
    assert SLO() == SLO(math.inf, math.inf, math.inf)
    assert SLO(1, tpot=0.1).ttft == 1.0
