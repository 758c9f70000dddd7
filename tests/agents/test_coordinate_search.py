"""Coordinate search on functions whose minimum is known."""

import numpy as np
import pytest

from agents.search.coordinate_search import CoordinateSearch
from llmsched_env.policies.weights import write_arrays

GOAL = np.array([0.7, -0.4, 0.0, 1.5])


def bowl(noise=0.0, seed=0, cases=40):
    """Costs of many cases with their minimum near `GOAL`; a case is the same for all parameters, noise is its own."""
    levels = np.random.default_rng(seed).normal(0, 3, cases)
    goals = GOAL + np.random.default_rng(seed + 1).normal(0, noise, (cases, len(GOAL)))
    return lambda x: levels + ((x[:, None, :] - goals) ** 2).sum(axis=2)


def sweep(search, costs):
    """Try every parameter once; how much the mean cost has fallen."""
    for _ in range(len(search.center)):
        gain = search.step(costs)
    return gain


def test_it_finds_the_minimum_whatever_the_level_of_the_cases():
    search = CoordinateSearch(np.zeros(4), np.full(4, 0.3))
    for k in range(25):
        sweep(search, bowl(seed=k))
    assert np.abs(search.center - GOAL).max() < 0.05


def test_noise_of_the_cases_does_not_lead_it_away():
    search = CoordinateSearch(GOAL, np.full(4, 0.3), clear=1.0)
    for k in range(25):
        sweep(search, bowl(noise=1.0, seed=10 * k))
    assert np.abs(search.center - GOAL).max() < 0.4


def test_what_is_kept_is_counted_and_lowers_the_cost():
    search, costs = CoordinateSearch(np.zeros(4), np.full(4, 0.1)), bowl()
    before = costs(np.zeros((1, 4))).mean()
    gain = sweep(search, costs)
    assert search.kept == 3 and gain > 0  # the third is where it should be
    assert search.sweep == 1 and search.at_start
    assert gain == pytest.approx(before - costs(search.center[None]).mean())
    assert search.widths[2] < 0.1 < min(search.widths[[0, 1, 3]])


def test_it_goes_on_from_a_file_at_any_parameter(tmp_path):
    one, two = (CoordinateSearch(np.zeros(4), np.full(4, 0.3), seed=3) for _ in range(2))
    for k in range(4):
        costs = bowl(0.5, k)
        for _ in range(4):
            gains = one.step(costs), two.step(costs)
            write_arrays(tmp_path / "state.npz", **two.state())
            with np.load(tmp_path / "state.npz") as file:
                two = CoordinateSearch.restored(file)
            assert gains[0] == gains[1]
    assert two.tried == 16
    np.testing.assert_array_equal(one.center, two.center)
    np.testing.assert_array_equal(one.widths, two.widths)


def test_widths_must_be_above_0():
    with pytest.raises(ValueError, match="widths"):
        CoordinateSearch(np.zeros(2), np.array([0.1, 0.0]))
