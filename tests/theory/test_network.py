"""Networks: loads by hand, and the virtual station of Rybko and Stolyar."""

import numpy as np
import pytest

import llmsched_env as ls
from llmsched_env.theory import Route, Visit, engine_loads, virtual_stations

# arXiv 2504.07347, section 5.4: batches of 768 tokens in one unit of time; (32 + 32) tokens, then (512 + 32).
ENGINES = [ls.EngineConfig(ls.Hinge(c=1.0, a=0.0, b0=1), token_budget=768)] * 2
RATE = 0.9 * 768 / 608


def crossing(first: int, last: int) -> list[Route]:
    """Two routes in opposite directions; `first` and `last` are the priorities of first and last calls."""
    return [Route(RATE, (Visit(a, 64.0, first), Visit(b, 544.0, last))) for a, b in ((0, 1), (1, 0))]


def test_loads_of_engines():
    assert engine_loads(crossing(0, 0), ENGINES) == pytest.approx([0.9, 0.9])
    slower = [ENGINES[0], ls.EngineConfig(ls.Hinge(c=2.0, a=0.0, b0=1), token_budget=768)]
    assert engine_loads(crossing(0, 0), slower) == pytest.approx([0.9, 1.8])
    assert engine_loads([], ENGINES).tolist() == [0.0, 0.0]


def test_last_calls_first_make_a_virtual_station_that_is_overloaded():
    (station,) = virtual_stations(crossing(first=1, last=0), ENGINES)
    assert station.visits == ((0, 1), (1, 1))
    assert station.load == pytest.approx(2 * RATE * 544 / 768)
    assert station.load > 1 > engine_loads(crossing(1, 0), ENGINES).max()


@pytest.mark.parametrize(("first", "last"), [(0, 1), (0, 0)])
def test_first_calls_first_or_no_priorities_exclude_nothing(first, last):
    assert virtual_stations(crossing(first, last), ENGINES) == []


def test_a_feed_forward_network_has_no_virtual_station():
    routes = [Route(1.0, (Visit(0, 10.0, 1), Visit(1, 10.0, 0))), Route(1.0, (Visit(0, 5.0, 0), Visit(1, 5.0, 1)))]
    assert virtual_stations(routes, ENGINES) == []
    assert engine_loads(routes, ENGINES) == pytest.approx(np.array([15, 15]) / 768)


def test_three_engines_in_a_ring_exclude_in_pairs():
    # Each last call goes before the first call that feeds the last call of the route before it: pairs do not close.
    engines = ENGINES[:1] * 3
    ring = [Route(1.0, (Visit(k, 10.0, 1), Visit((k + 1) % 3, 20.0, 0))) for k in range(3)]
    assert virtual_stations(ring, engines) == []


def test_bad_input():
    with pytest.raises(ValueError, match="names engine 2; there are 2"):
        engine_loads([Route(1.0, (Visit(2, 10.0),))], ENGINES)
    with pytest.raises(ValueError, match="Visit.tokens must be a finite number > 0"):
        Visit(0, 0.0)
    with pytest.raises(ValueError, match="at least one visit"):
        Route(1.0, ())
