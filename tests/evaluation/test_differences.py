"""Sentences say what the numbers say."""

from dataclasses import replace

import numpy as np
import pytest

import baselines
import llmsched_env as ls
from llmsched_env.evaluation import compare
from llmsched_env.evaluation.differences import BLOCKS, difference, differences_text
from llmsched_env.intervals import paired_interval
from llmsched_env.objectives import OBJECTIVES

ENGINE = ls.EngineConfig(ls.Staircase(c=0.01, a=0.02, b0=64), token_budget=512)
SLO = ls.SLO(ttft=0.5, tpot=0.1)


def made_up(values):
    """A comparison whose cells have these mean E2E latencies (ms): by scheduler a row a load, a column a seed."""
    workload = ls.Workload.poisson(5.0, 50, 5, horizon=2.0, slo=SLO)
    loads, seeds = (0.5, 0.8), tuple(range(3))
    comparison = compare(
        dict.fromkeys(values, baselines.sarathi), {"w": workload}, loads, seeds, ENGINE, progress=False
    )
    for name, rows in values.items():
        for load, row in zip(loads, rows, strict=True):
            cell = comparison.cells[name, "w", load]
            metrics = cell.metrics | {"mean_e2el_ms": tuple(row), "slo_attainment": (1.0, 0.9, 0.95)}
            comparison.cells[name, "w", load] = replace(cell, metrics=metrics)
    return comparison


def test_outcomes_and_sentences():
    comparison = made_up(
        {
            "agent": [(100.0, 200.0, 300.0), (100.0, 200.0, 300.0)],
            "slow": [(150.0, 251.0, 349.0), (149.0, 250.0, 351.0)],
            "slower": [(950.0, 1051.0, 1149.0), (949.0, 1050.0, 1151.0)],
            "alike": [(150.0, 150.0, 301.0), (150.0, 150.0, 301.0)],
            "turns": [(150.0, 251.0, 349.0), (90.0, 189.0, 291.0)],
        }
    )
    cells = {name: comparison.cells[name, "w", 0.5] for name in ("agent", "slow", "alike")}
    latency = OBJECTIVES["mean_e2el"]
    slow = difference(cells["agent"], cells["slow"], comparison, latency)
    # By hand: differences -50, -51, -49 ms, mean -50, standard error 1/sqrt(3), t(2) = 4.303.
    assert (slow.outcome, slow.mean) == ("better", pytest.approx(-0.050))
    assert slow.half_width == pytest.approx(4.303e-3 / np.sqrt(3), rel=1e-3)
    assert difference(cells["slow"], cells["agent"], comparison, latency).outcome == "worse"
    assert difference(cells["agent"], cells["alike"], comparison, latency).outcome == "not significantly different"

    first, second = differences_text(comparison).split("\n\n")
    sentence = first.splitlines()[0]
    assert sentence.startswith("Mean E2E latency: the agent is ")
    assert "better than slow and slower everywhere" in sentence
    assert "not significantly different from alike everywhere" in sentence
    assert "compared with turns better at load 0.5, worse at load 0.8" in sentence
    assert "load 0.5, agent 0.2 s: slow -0.0500 ±0.0025 s" in first
    assert "not significantly different from slow, slower, alike and turns everywhere" in second


def test_of_one_trace_spans_are_compared():
    rng = np.random.default_rng(0)
    n = 100
    trace = ls.Workload.from_arrays(
        np.sort(rng.uniform(0, 20, n)), rng.integers(10, 400, n), rng.integers(1, 9, n), slo=SLO
    )
    schedulers = {"agent": baselines.sarathi(token_budget=512), "other": baselines.sarathi(token_budget=64)}
    comparison = compare(schedulers, {"trace": trace}, ["recorded"], [0], ENGINE, progress=False)
    agent, other = (comparison.cells[name, "trace", "recorded"] for name in schedulers)
    rows = [np.split(cell.requests.finish - cell.requests.arrival, BLOCKS) for cell in (agent, other)]
    mean, half_width = paired_interval(*([span.mean() for span in spans] for spans in rows))
    found = difference(agent, other, comparison, OBJECTIVES["mean_e2el"])
    assert (found.mean, found.half_width) == (pytest.approx(mean), pytest.approx(half_width))
    assert found.outcome == ("better" if mean + half_width < 0 else "not significantly different")
    assert "rough, from 10 spans of one trace" in differences_text(comparison)
