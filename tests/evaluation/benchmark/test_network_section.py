"""The claims about the agent network follow from the rows that are kept."""

import json

import pytest

from llmsched_env.evaluation.benchmark import network_section
from llmsched_env.evaluation.benchmark.network_cases import PRIORITIES, NetworkSetting, compare, run_scheduler
from llmsched_env.evaluation.benchmark.network_section import (
    network_sections,
    network_verdicts,
    read_networks,
    run_networks,
)

SHORT = NetworkSetting(horizon=120.0)  # long enough for priorities to matter


def rows(**tasks):
    """Rows of four stable runs with so many tasks present."""
    return {
        name.replace("_", " "): [
            {"peak": 12.0, "early_peak": 10.0, "growth": 1e-6 * (-1) ** k, "mean_tasks": mean + 0.01 * k}
            for k in range(4)
        ]
        for name, mean in tasks.items()
    }


def test_claims_are_judged_by_their_rows():
    good = rows(the_policy=1.0, type_A_first=2.0, plas=1.5)
    assert [v.reached for v in network_verdicts(good)] == [True, True]
    assert "fewer than 2 of 2; least saved +0.500 ± 0.000✓ (plas)" in network_verdicts(good)[1].found
    tied = rows(the_policy=1.0, type_A_first=2.0, plas=1.0)
    assert [v.reached for v in network_verdicts(tied)] == [True, False]
    beaten = rows(the_policy=1.0, type_A_first=0.9, plas=1.5)
    assert [v.reached for v in network_verdicts(beaten)] == [False, False]
    growing = rows(the_policy=1.0, type_A_first=2.0)
    for run in growing["the policy"]:
        run["growth"] += 0.5
    assert not network_verdicts(growing)[0].reached and "unstable" in network_verdicts(growing)[0].found


def test_runs_are_kept_and_only_new_ones_are_simulated(monkeypatch, tmp_path):
    seen, real = [], network_section.all_numbers

    def counted(schedulers, setting, seeds):
        seen.append((schedulers[0].name, list(seeds)))
        return real(schedulers, setting, seeds)

    monkeypatch.setattr(network_section, "all_numbers", counted)
    first, other = PRIORITIES["entering first"], PRIORITIES["type A first"]
    path = tmp_path / "networks.json"
    assert network_sections(path) == []
    run_networks({"the policy": first}, SHORT, 2, path, progress=False)
    found = run_networks({"the policy": first, "type A first": other}, SHORT, 3, path, progress=False)
    assert [seeds for _, seeds in seen] == [[0, 1], [2], [0, 1, 2]]
    run = lambda setting, seed: run_scheduler(first, setting, seed)  # noqa: E731
    assert found == compare("the policy", run, SHORT, range(3), {"type A first": other})
    assert found["the policy"] != found["type A first"]
    [section] = network_sections(path)
    assert {row[0] for row in section.tables[0].rows} == {"the policy", "type A first"} and len(section.claims) == 2
    record = json.loads(path.read_text())
    record["kept"].popitem()  # as if it had been interrupted
    path.write_text(json.dumps(record))
    assert read_networks(path) == {} and network_sections(path) == []


def test_another_horizon_is_another_run(tmp_path):
    first, path = {"the policy": PRIORITIES["entering first"]}, tmp_path / "networks.json"
    short = run_networks(first, SHORT, 2, path, progress=False)
    shorter = run_networks(first, NetworkSetting(horizon=60.0), 2, path, progress=False)
    assert shorter["the policy"][0]["mean_tasks"] != pytest.approx(short["the policy"][0]["mean_tasks"])
