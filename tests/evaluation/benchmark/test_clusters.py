"""Clusters in the benchmark: two engines, pairs chosen on tuning seeds, differences by seed."""

from dataclasses import replace

import numpy as np
import pytest

import baselines
from baselines import routers
from llmsched_env.evaluation.benchmark import clusters, results
from llmsched_env.evaluation.benchmark.baseline_search import TuningPlan
from llmsched_env.evaluation.benchmark.cell_runs import MEASURES
from llmsched_env.evaluation.benchmark.clusters import (
    SAME_ROUTER,
    ClusterRuns,
    RoutedScheduler,
    best_pair,
    cluster_cells,
)
from llmsched_env.evaluation.benchmark.results import difference
from llmsched_env.evaluation.benchmark.sections import cluster_sections
from llmsched_env.evaluation.benchmark.stages import Benchmark, read_current_results
from llmsched_env.evaluation.suite import H100, RTX4090, Site
from llmsched_env.policies.index import index
from llmsched_env.simulator.simulate import simulate_network
from llmsched_env.theory import load

SITE = Site("azure-chat", "strict", H100)
TUNING, TEST = (20000, 20001), (30000, 30001, 30002)
SCHEDULERS = [baselines.get("sarathi"), baselines.get("slo_first")]
ROUTERS = [routers.get("round_robin"), routers.get("join_shortest_queue")]


@pytest.fixture(scope="module")
def cell():
    [small] = cluster_cells([SITE], [1.1], engines=2, horizon=6.0)
    return small


@pytest.fixture
def simulated(monkeypatch):
    """How many pairs each call to the simulator had."""
    seen, real = [], clusters.map_cases

    def counted(run, pairs, cases):
        seen.append(len(pairs))
        return real(run, pairs, cases)

    monkeypatch.setattr(clusters, "map_cases", counted)
    return seen


def test_the_load_is_that_of_all_engines():
    cells = cluster_cells([SITE, Site("azure-chat", "default", RTX4090)], [0.8, 0.95])
    assert [c.name for c in cells][:2] == [f"4 x azure-chat (strict) on h100-80gb, load {x}" for x in (0.8, 0.95)]
    for c in cells:
        assert load(c.workload, c.engine) == pytest.approx(4 * c.load)
        assert load(c.single.workload, c.engine) == pytest.approx(c.load) and c.single.engine == c.engine
        assert not c.held_out and c.workload.sample(20000).horizon == 60.0
    with pytest.raises(ValueError, match="engines must be"):
        cluster_cells([SITE], [0.8], engines=1)


def test_the_best_pair_is_that_of_the_tuning_seeds(cell, simulated, tmp_path):
    def attainment(scheduler, router, seeds):
        engines = (cell.engine,) * 2
        runs = [simulate_network(scheduler, cell.workload, engines, router, seed) for seed in seeds]
        return np.mean([run.summary()["slo_attainment"] for run in runs])

    values = {(s.name, r.name): attainment(s, r, TUNING) for s in SCHEDULERS for r in ROUTERS}
    assert len(set(values.values())) == 4  # it matters which
    best = best_pair(cell, "slo_attainment", SCHEDULERS, TUNING, tmp_path, ROUTERS)
    assert (best.scheduler.name, best.router.name) == max(values, key=values.get)
    behind = best_pair(cell, "slo_attainment", SCHEDULERS, TUNING, tmp_path, ROUTERS[:1])
    assert behind.scheduler.name == max((s.name for s in SCHEDULERS), key=lambda n: values[n, "round_robin"])
    assert simulated == [4]  # the second search found all runs kept
    [again] = ClusterRuns(cell, TUNING, tmp_path).values([best], "slo_attainment")
    assert again == pytest.approx(max(values.values()))


def test_the_time_of_decisions_is_charged_on_every_engine(cell, tmp_path):
    quick = SCHEDULERS[0]
    slow = replace(quick, decision_time=(0.01, 0.0))
    a, b = ClusterRuns(cell, TUNING, tmp_path).of([RoutedScheduler(s, ROUTERS[1]) for s in (quick, slow)])
    column = MEASURES.index("mean_e2el")
    assert (b[:, column] > a[:, column]).all()


def test_the_policy_is_compared_on_the_same_requests(cell, simulated, tmp_path):
    trials = {"slo_attainment": 1, "mean_e2el": 1}
    plan = TuningPlan({s.name: s for s in SCHEDULERS}, (), dict.fromkeys(trials, {}), TUNING, trials)
    policies = {"slo_attainment": index, "mean_e2el": index, "p99_ttft": index}
    run = Benchmark([], policies, plan, {}, TEST, tmp_path, resamples=100, progress=False)
    judged_cells = run.cluster([cell], SCHEDULERS[:1], ROUTERS[0], ROUTERS)
    assert [c.objective for c in judged_cells] == ["slo_attainment", "mean_e2el"]  # nothing is claimed of the third
    for found, column in zip(judged_cells, (0, 1), strict=True):
        [own] = ClusterRuns(cell, TEST, tmp_path).of([RoutedScheduler(index, ROUTERS[0])])
        assert np.array_equal(found.runs[results.POLICY], own[:, column])
        theirs = found.runs[results.TUNED]
        gain = own[:, 0] - theirs if column == 0 else (theirs - own[:, 1]) / theirs.mean()
        assert found.difference.mean == pytest.approx(gain.mean())
        assert found.difference == difference(found.runs[results.POLICY], theirs, found.objective, 100)
        assert found.settings[results.POLICY].startswith("round_robin, index(")
        assert found.settings[SAME_ROUTER].startswith("round_robin, ")
    runs = len(simulated)
    again = run.cluster([cell], SCHEDULERS[:1], ROUTERS[0], ROUTERS)
    assert len(simulated) == runs and [c.difference for c in again] == [c.difference for c in judged_cells]
    kept = read_current_results(tmp_path / "cluster.json")
    assert [(c.name, c.difference) for c in kept] == [(c.name, c.difference) for c in again]


def test_the_section_says_what_was_found(cell):
    def made(number, policy, pair):
        runs = {results.POLICY: policy, results.TUNED: pair, SAME_ROUTER: pair - 0.001}
        settings = {
            results.POLICY: "round_robin, index(x=1)",
            results.TUNED: "power_of_two, sarathi(x=1)",
            SAME_ROUTER: "round_robin, sarathi(x=1)",
        }
        keeps = dict.fromkeys(runs, True)
        d = difference(policy, pair, "slo_attainment", 100)
        return results.CellResult(
            f"cluster {number}", False, "slo_attainment", runs, settings, np.full(6, np.nan), keeps, d
        )

    base = 0.9 + 0.01 * np.arange(6)
    [section] = cluster_sections([made(0, base + 0.02, base), made(1, base - 0.02, base)], 100)
    [table] = section.tables
    assert [row[0] for row in table.rows] == ["cluster 0", "cluster 1"]
    assert table.rows[0][4].endswith("✓") and table.rows[1][4].endswith("✗")
    assert table.rows[0][3] == "power_of_two, sarathi" and "behind round_robin" in table.caption
    assert [v.reached for _, v in section.claims] == [False] * 4
    assert all(v.text.startswith("Clusters: ") for _, v in section.claims)
    [won] = cluster_sections([made(0, base + 0.02, base)], 100)
    assert [v.reached for _, v in won.claims] == [True] * 4
    assert cluster_sections([]) == []
