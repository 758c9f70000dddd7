"""Networks whose behaviour is known: independent queues, power of two choices, acyclic graphs around load 1."""

import math

import numpy as np
import pytest

import baselines
import llmsched_env as ls
from baselines.routers import power_of_two, random_router
from llmsched_env.intervals import mean_interval
from llmsched_env.results import metrics
from llmsched_env.simulator.simulate import simulate_network
from llmsched_env.tables.task_table import TaskTable
from tests.network.cases import table


def test_two_engines_behind_random_routing_are_two_m_d_1_queues():
    # One token a request and a batch, one batch a second.
    engine = ls.EngineConfig(ls.Staircase(c=1.0, a=0.0, b0=1), token_budget=1)
    load, horizon, seeds = 0.7, 3000.0, 20
    expected = load + load**2 / (2 * (1 - load))
    workload = ls.Workload.poisson(rate=2 * load, prompt_tokens=1, output_tokens=1, horizon=horizon)
    present = np.empty((seeds, 2))
    for seed in range(seeds):
        result = simulate_network(baselines.sarathi, workload, [engine] * 2, random_router, seed, record="requests")
        for g in (0, 1):
            rows = result.requests[result.requests.engine == g]
            present[seed, g] = metrics.integral_in_system(rows, 100.0, horizon) / (horizon - 100.0)
    for g in (0, 1):
        error = present[:, g].std(ddof=1) / math.sqrt(seeds)
        assert error < 0.05
        assert abs(present[:, g].mean() - expected) < 4 * error


def test_power_of_two_has_its_mean_field_value():
    # A request is a prompt of exponential length that runs alone in one batch, so that service is exponential.
    per_second, load, engines, horizon, seeds = 1000, 0.9, 50, 3000.0, 6
    engine = ls.EngineConfig(ls.Staircase(c=0.0, a=1 / per_second, b0=1), token_budget=16384, max_num_seqs=1)
    mean_field = sum(load ** (2.0**i - 2) for i in range(1, 20))
    assert mean_field == pytest.approx(2.61, abs=0.005)
    means = []
    for seed in range(seeds):
        rng, n = np.random.default_rng(seed), int(load * engines * horizon)
        arrival = np.sort(rng.uniform(0, horizon, n))  # so many that the load is met exactly; so do the lengths
        prompt = np.maximum(1, np.rint(-per_second * np.log((rng.permutation(n) + 0.5) / n))).astype(int)
        tasks = table(arrival, prompt, np.ones(len(arrival), int))
        rows = simulate_network(
            baselines.sarathi(token_budget=16384), tasks, [engine] * engines, power_of_two, seed, record="requests"
        ).requests
        means.append((rows.finish - rows.arrival)[arrival > 100.0].mean())
    assert np.std(means, ddof=1) / math.sqrt(seeds) < 0.01 * mean_field
    # 50 engines, of which one is drawn twice at times, are about 3 % above infinitely many.
    assert np.mean(means) == pytest.approx(mean_field, rel=0.05)


ACYCLIC = ls.EngineConfig(ls.Staircase(c=0.01128, a=0.03547, b0=128), token_budget=512, first_token="separate")
TOKEN_RATE = 512 / 0.15316
HORIZON = 400.0


def acyclic_tasks(graph: int, load: float, seed: int, engines: int = 3) -> TaskTable:
    """Tasks of three random graphs in which calls only pass to engines of higher number.

    Calls fork and join at random. The task rate makes the busiest engine's load `load`.
    """
    rng = np.random.default_rng(graph)
    kinds = []
    for _ in range(3):
        at = np.sort(rng.integers(0, engines, rng.integers(2, 6)))
        edges = [(a, b) for b in range(len(at)) for a in range(b) if at[a] < at[b] and rng.random() < 0.6]
        kinds.append(
            (at, np.array(edges, int).reshape(-1, 2), rng.integers(20, 200, len(at)), rng.integers(5, 80, len(at)))
        )
    work = sum(np.bincount(at, weights=p + o, minlength=engines) for at, _, p, o in kinds) / 3
    rate = load * TOKEN_RATE / work.max()
    rng = np.random.default_rng([graph, seed])
    arrival = np.sort(rng.uniform(0, HORIZON, rng.poisson(rate * HORIZON)))
    picked = rng.integers(0, 3, len(arrival))
    sizes = np.array([len(kinds[k][0]) for k in picked])
    first = np.cumsum(sizes) - sizes
    column = lambda j: np.concatenate([kinds[k][j] for k in picked])  # noqa: E731
    return table(
        np.repeat(arrival, sizes),
        rng.poisson(column(2)) + 1,
        rng.poisson(column(3)) + 1,
        task=np.repeat(np.arange(len(arrival)), sizes),
        engine=column(0),
        klass=np.repeat(picked, sizes),
        edges=np.concatenate([kinds[k][1] + start for k, start in zip(picked, first, strict=True)]),
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n, s in baselines.REGISTRY.items() if s.work_conserving])
@pytest.mark.parametrize("graph", range(3))
@pytest.mark.parametrize("load", [0.9, 1.2])
def test_acyclic_networks_are_stable_below_load_1_and_not_above(name, graph, load):
    scheduler, growth = baselines.get(name)(token_budget=512), []
    if "max_num_seqs" in scheduler.params:  # a cap on requests would leave the theorem behind
        scheduler = scheduler(max_num_seqs=math.inf)
    for seed in range(5):
        tasks = acyclic_tasks(graph, load, seed)
        result = simulate_network(scheduler, tasks, [ACYCLIC] * 3, random_router, seed, horizon=HORIZON)
        times = np.linspace(HORIZON / 2, HORIZON, 200)
        growth.append(np.polyfit(times, result.backlog(times), 1)[0] / (load * TOKEN_RATE))
    mean, half_width = mean_interval(growth)
    if load < 1:
        assert mean + half_width < 0.05
    else:
        assert mean - half_width > 0.05
