"""The comparison of routers on fixed clusters: costs, what is saved, and every registered router."""

import numpy as np
import pytest

from baselines.routers import ROUTERS, least_outstanding_tokens, round_robin
from llmsched_env.evaluation.benchmark.router_cases import (
    TRAINED,
    Cluster,
    cost,
    costs,
    generation_cases,
    validation_cases,
)
from llmsched_env.evaluation.benchmark.routers import (
    CLUSTERS,
    GROUPS,
    H100,
    L40S,
    RouterComparison,
    compare,
    tables,
)
from llmsched_env.evaluation.cases import TRAINING_SEEDS, TUNING_SEEDS
from llmsched_env.intervals import mean_interval
from llmsched_env.policies import pretrained
from llmsched_env.policies.learned_router import PERCEPTRON, load, with_weights

TINY = Cluster("tiny", "azure-chat", ("llama-3.1-8b_h100-80gb_tp1_aic", "llama-3.1-8b_l40s-48gb_tp1_aic"), 0.9, 30, 1)


def test_cases_are_of_their_own_seeds_and_the_same_every_time():
    held, drawn = validation_cases((0.7, 1.05), 2), generation_cases(0, 5, (0.7, 1.05))
    assert (held, drawn) == (validation_cases((0.7, 1.05), 2), generation_cases(0, 5, (0.7, 1.05)))
    assert [cluster.workload for cluster, _ in drawn] == list(TRAINED)
    assert all(TUNING_SEEDS <= seed < TUNING_SEEDS + 10_000 for _, seed in held)
    assert all(TRAINING_SEEDS <= seed < TRAINING_SEEDS + 9_000 for _, seed in drawn)
    assert len({generation_cases(s, g, (0.7, 1.05))[0] for s in range(2) for g in range(2)}) == 4


def test_a_call_that_never_finishes_counts_to_the_end():
    finish, arrival = [3.0, np.nan], [1.0, 2.0]
    rows = np.rec.fromarrays([arrival, finish], names="arrival,finish")
    result = type("Result", (), {"requests": rows, "end": 10.0})
    assert cost(result, "mean_e2el") == (2.0 + 8.0) / 2


def test_what_is_saved_is_the_share_of_the_others_latency():
    values = np.array([[[1.0, 2.0, 3.0]], [[2.0, 2.5, 4.0]], [[4.0, 4.0, 4.0]]])
    comparison = RouterComparison(("own", "close", "far"), (CLUSTERS[0],), values)
    mean, half = comparison.saved_by_first("close", CLUSTERS)
    logs = np.log([2.0, 1.25, 4 / 3])
    assert mean == pytest.approx(1 - np.exp(-logs.mean()))
    assert half == pytest.approx(np.exp(-logs.mean()) * mean_interval(logs)[1])
    assert comparison.best_other(CLUSTERS[0]) == "close"
    assert f"| {CLUSTERS[0].name} | 0.95 | 2.00 | `close` | 2.83 |" in tables(comparison)


def test_every_registered_router_is_compared():
    comparison = compare(with_weights(np.zeros(PERCEPTRON.size)), 2, [TINY])
    assert set(ROUTERS) <= set(comparison.names) and "least_outstanding_seconds, tuned" in comparison.names
    assert comparison.saved_by_first("least_outstanding_tokens", [TINY]) == (0.0, 0.0)
    assert {cluster.workload for cluster in GROUPS["new"]}.isdisjoint(TRAINED)


def test_the_shipped_router_beats_blind_ones_and_its_start():
    router = pretrained.router()
    assert len(router.weights) == PERCEPTRON.size
    assert router == load(pretrained.file_of(pretrained.ROUTER), "pretrained_router")
    mixed = next(cluster for cluster in CLUSTERS if set(cluster.profiles) == {TINY.profiles[0], TINY.profiles[1]})
    assert all(gpu in "".join(mixed.profiles) for gpu in (H100, L40S))
    own, blind, start = costs([router, round_robin, least_outstanding_tokens], [(mixed, TUNING_SEEDS)])[:, 0]
    assert own < 0.7 * blind and own < 0.9 * start
