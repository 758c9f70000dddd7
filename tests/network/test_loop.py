"""The loop of a network: moments at which nothing may be asked, and what a run that stops says."""

import llmsched_env as ls
from baselines.routers import round_robin
from llmsched_env.simulator.simulate import simulate_network
from tests.network.cases import table

SECOND = ls.EngineConfig(ls.Staircase(c=1.0, a=0.0, b0=1))


def sleeper(hold):
    """Serves nothing until `hold` s after it was first asked for a request."""

    def compose(view):
        due = view.req.arrival[view.waiting[0]] + hold if len(view.waiting) else 0.0
        if view.clock < due:
            return due
        for i in view.running:
            ls.take(view, i, 1)
        for i in view.waiting:
            ls.take(view, i, ls.ALL)
        return float("inf")

    return ls.Scheduler("sleeper", compose, mixes_phases=True, chunks_prefill=True)


def test_an_engine_that_sleeps_is_asked_when_it_wakes_and_not_before():
    asked = []
    inner = sleeper(2.5)

    def compose(view):
        asked.append((int(view.engine), float(view.clock)))
        return inner.compose(view)

    # Engine 1 has events of its own at 1 and 2 s; engine 0 sleeps from 0 to 2.5 s.
    tasks = table([0.0, 0.0, 1.0], [1, 1, 1], [1, 1, 1], engine=[0, 1, 1])
    result = simulate_network(
        ls.Scheduler("logged", compose), tasks, [SECOND] * 2, round_robin, interpreted=True, horizon=10.0
    )
    assert [clock for engine, clock in asked if engine == 0] == [0.0, 2.5]
    assert result.requests.finish.tolist() == [3.5, 3.5, 3.5]
    assert result.batches.start.tolist() == [2.5, 2.5]


def test_a_horizon_before_the_engine_wakes_starts_nothing():
    tasks = table([0.0], [1], [1])
    result = simulate_network(sleeper(5.0), tasks, [SECOND], round_robin, interpreted=True, horizon=3.0)
    assert len(result.batches) == 0 and not result.stalled and result.end == 3.0


def test_stalled_with_and_without_a_horizon():
    idle = ls.Scheduler("idle", lambda view: float("inf"))
    for horizon in (None, 3.0):
        result = simulate_network(
            idle, table([0.0], [1], [1]), [SECOND], round_robin, interpreted=True, horizon=horizon
        )
        assert result.stalled and not result.drained
