"""Presets are the published numbers, and their samples follow them."""

import csv
import json
import math
from importlib import resources

import numpy as np
import pytest
from scipy import stats

from llmsched_env.machine.batch_time import Staircase
from llmsched_env.machine.config import EngineConfig
from llmsched_env.slo import SLO
from llmsched_env.workloads import load_trace, preset

REQUESTS = [
    "azure-chat",
    "azure-code",
    "sharegpt-chat",
    "arxiv-summarize",
    "mooncake-longctx-chat",
    "mooncake-tool-agent",
    "reasoning-r1",
    "bursty-api",
]
SESSIONS = ["coding-agent", "swe-agent"]
ALL = [*REQUESTS, *SESSIONS, "multi-tenant"]
SLICES = {
    "azure-chat": "azure_2023/*conv*",
    "azure-code": "azure_2023/*code*",
    "sharegpt-chat": "lengths/sharegpt*",
    "arxiv-summarize": "lengths/arxiv*",
    "mooncake-longctx-chat": "mooncake/conversation*",
    "mooncake-tool-agent": "mooncake/mooncake_trace_arxiv*",
}


def distance(values, levels, knots):
    """Kolmogorov-Smirnov distance of a sample to a table; where counts are whole, to the jump of the sample there."""
    below = np.searchsorted(np.sort(values), knots, side="left") / len(values)
    upto = np.searchsorted(np.sort(values), knots, side="right") / len(values)
    levels = np.array(levels) / 100
    return max(0.0, np.max(levels - upto), np.max(below - levels))


def shipped():
    return json.loads(resources.files("llmsched_env").joinpath("data/workload_presets.json").read_text())


def numbers(name):
    own = shipped()["presets"][name]
    return own, own.get("quantile_levels", shipped()["quantile_levels"])


def session_laws(name):
    """A large draw of the session laws, by the name of their table."""
    law = preset(name).source.law
    calls = law.draw(np.random.default_rng(0), 6000)
    later = calls.number > 0
    drawn = {
        "calls_per_session": np.bincount(calls.session),
        "output_tokens": calls.output_tokens,
        "first_prompt_tokens": calls.prompt_tokens[~later],
        "prompt_tokens": calls.prompt_tokens,
        "tool_time_s": calls.wait,
    }
    u = np.random.default_rng(1).random(20_000)
    for table in ("new_after_tool", "new_after_human", "tool_wait", "human_wait"):
        if hasattr(law, table):
            title = f"{table}_s" if "wait" in table else table.replace("new_", "new_tokens_")
            drawn[title] = getattr(law, table).quantile(u)
    return drawn


def test_shipped_numbers_are_those_of_the_reference_table(shared):
    reference = json.loads((shared / "traces/workload_presets.json").read_text())
    ours = shipped()
    assert ours["quantile_levels"] == reference["quantile_levels_default"]
    assert set(reference["presets"]) <= set(ours["presets"]) == set(ALL)
    for name, expected in reference["presets"].items():
        for key, value in ours["presets"][name].items():
            if key == "arrival":
                assert value.items() <= expected["arrival"].items(), name
            elif not key.startswith("context_window"):
                assert value == expected[key], (name, key)


@pytest.mark.parametrize("name", ALL)
def test_every_preset_samples_scales_and_has_its_targets(name):
    engine = EngineConfig(batch_time=Staircase(c=0.01, a=0.01, b0=256))
    workload = preset(name, horizon=300.0)
    table = workload.sample(0)
    assert workload.name == name and table.horizon == 300.0 and table.arrival[-1] < 300.0
    assert np.array_equal(table.arrival, workload.sample(0).arrival)
    assert workload.scaled(3.0).rate == pytest.approx(3.0)
    assert workload.at_load(0.9, engine).load == 0.9
    for target, expected in numbers(name)[0]["slo"].items():
        expected = expected if isinstance(expected, list) else [expected]
        targets = preset(name, slo=target).sample(0)
        assert set(targets.ttft_slo) == {own["ttft_s"] for own in expected}
        assert set(targets.tpot_slo) == {own["tpot_s"] for own in expected}
    assert np.isinf(preset(name, slo=None).sample(0).ttft_slo).all()
    assert set(preset(name, slo=SLO(3.0)).sample(0).ttft_slo) == {3.0}


@pytest.mark.parametrize("name", ALL)
def test_mean_rate_is_the_one_asked_for(name):
    # Counts of many seeds, whose spread gives the standard error.
    horizon, rate = (120.0, 2.0) if name in SESSIONS else (400.0, 5.0)
    workload = preset(name, rate=rate, horizon=horizon)
    counts = np.array([len(workload.sample(seed)) for seed in range(24 if name in SESSIONS else 100)])
    assert abs(counts.mean() - rate * horizon) <= 4 * counts.std(ddof=1) / math.sqrt(len(counts))


@pytest.mark.parametrize("name", REQUESTS)
def test_lengths_are_within_2_percent_of_the_quantile_table(name):
    own, levels = numbers(name)
    table = preset(name, rate=100.0, horizon=1000.0).sample(0)
    assert len(table) > 40_000
    for column in ("prompt_tokens", "output_tokens"):
        assert distance(getattr(table, column), levels, own[f"{column}_quantiles"]) <= 0.02, column
    correlation = stats.spearmanr(table.prompt_tokens, table.output_tokens).statistic
    assert correlation == pytest.approx(own.get("rank_correlation", 0.0), abs=0.03)


def test_multi_tenant_clients_follow_their_own_numbers():
    own, levels = numbers("multi-tenant")
    table = preset("multi-tenant", rate=100.0, horizon=1000.0).sample(0)
    total = sum(client["rate_per_s"] for client in own["clients"])
    for i, client in enumerate(own["clients"]):
        mine = table.client == i
        share = client["rate_per_s"] / total
        assert mine.mean() == pytest.approx(share, rel=0.05)
        gaps = np.diff(table.arrival[mine])
        assert gaps.std() / gaps.mean() == pytest.approx(client["interarrival_cv"], rel=0.1)
        assert set(table.klass[mine]) == {client["klass"]}
        for column in ("prompt_tokens", "output_tokens"):
            assert distance(getattr(table, column)[mine], levels, client[f"{column}_quantiles"]) <= 0.02


@pytest.mark.parametrize("name", SESSIONS)
def test_sessions_are_within_2_percent_of_every_quantile_table(name):
    own, levels = numbers(name)
    drawn = session_laws(name)
    tables = [key.removesuffix("_quantiles") for key in own if key.endswith("_quantiles")]
    assert len(tables) >= 4
    for table in tables:
        assert distance(drawn[table], levels, own[f"{table}_quantiles"]) <= 0.02, table


@pytest.mark.parametrize("name", SLICES)
def test_presets_resemble_the_slice_of_their_trace(shared, name):
    (path,) = (shared / "traces").glob(SLICES[name])
    trace, drawn = load_trace(path).sample(0), preset(name, rate=50.0, horizon=1000.0).sample(1)
    for column in ("prompt_tokens", "output_tokens"):
        assert stats.ks_2samp(getattr(trace, column), getattr(drawn, column)).statistic <= 0.15, column


def test_coding_agents_resemble_recorded_sessions(shared):
    text = (shared / "traces/agents/agent_calls_derived.csv").read_text()
    rows = list(csv.DictReader(text.splitlines()))
    drawn = session_laws("coding-agent")
    for title, values in {
        "output_tokens": [int(row["output_tokens"]) for row in rows],
        "first_prompt_tokens": [int(row["input_tokens"]) for row in rows if row["trigger"] == "first"],
        "new_after_tool": [int(row["new_tokens"]) for row in rows if row["trigger"] == "tool"],
    }.items():
        sample = drawn[title.replace("new_", "new_tokens_")]
        assert stats.ks_2samp(values, sample).statistic <= 0.15, title


@pytest.mark.parametrize(("name", "expected"), [("azure-chat", (1.3, 3.4, 11.7)), ("azure-code", (11, 56, 90))])
def test_dispersion_of_counts_is_that_of_the_fitted_process(name, expected):
    for width, index in zip((1, 10, 60), expected, strict=True):
        edges = np.arange(0, 36_000 + 1, width)
        counts = [np.histogram(preset(name, horizon=36_000.0).sample(seed).arrival, edges)[0] for seed in range(12)]
        assert np.var(counts) / np.mean(counts) == pytest.approx(index, rel=0.2), width


def test_sessions_grow_and_share_their_former_prompt():
    table = preset("coding-agent", rate=3.0, horizon=300.0).sample(0)
    follows = np.flatnonzero(table.parent >= 0)
    assert len(follows) > 0.5 * len(table)
    assert np.array_equal(table.session[follows], table.session[table.parent[follows]])
    grown = table.prompt_tokens[follows] > table.prompt_tokens[table.parent[follows]]
    assert grown.mean() > 0.9
    kept = table.shared_tokens[follows][grown] == table.prompt_tokens[table.parent[follows]][grown]
    assert kept.mean() > 0.9  # the others begin anew with more tokens than before
    waited = table.arrival[follows] - table.arrival[table.parent[follows]]
    served = 3.0 + 0.05 * (table.output_tokens[table.parent[follows]] - 1)
    assert (waited >= served - 1e-6).all()


def test_tool_agents_share_the_system_prompt_of_their_class():
    own, _ = numbers("mooncake-tool-agent")
    table = preset("mooncake-tool-agent", horizon=2000.0).sample(0)
    for k, group in enumerate(own["classes"]):
        mine = np.flatnonzero(table.klass == k)
        assert len(mine) / len(table) == pytest.approx(group["weight"], abs=0.03)
        assert set(table.parent[mine]) == {-1, mine[0]}
        assert table.shared_tokens[mine].max() == group["shared_prefix_tokens"]
    assert set(np.round(table.arrival % 3.0, 9)) == {0.0}


def test_arxiv_requests_stay_below_their_cap():
    table = preset("arxiv-summarize", rate=100.0).sample(0)
    assert (table.prompt_tokens + table.output_tokens).max() <= 4096
    prompt, output = preset("arxiv-summarize").length_sample()
    assert (prompt + output).max() <= 4096


def test_hours_of_the_day_change_the_rate():
    day = preset("reasoning-r1", rate=1.0, horizon=86_400.0, diurnal=True).sample(0)
    by_hour = np.histogram(day.arrival, np.arange(25) * 3600)[0]
    expected = np.array(numbers("reasoning-r1")[0]["arrival"]["hourly_multipliers"])
    assert by_hour / by_hour.mean() == pytest.approx(expected / expected.mean(), abs=0.15)
    with pytest.raises(ValueError, match="diurnal must be False for azure-chat"):
        preset("azure-chat", diurnal=True)


def test_arguments_replace_the_defaults():
    workload = preset("azure-chat", rate=8.0, horizon=50.0, slo=None)
    assert (workload.rate, workload.slo, workload.sample(0).horizon, workload.name) == (8.0, None, 50.0, "azure-chat")
    assert preset("azure-chat", slo=SLO(3.0)).slo == SLO(3.0)
    assert preset("azure-chat").slo == SLO(1.0, 0.1)


def test_unknown_names_list_what_exists():
    with pytest.raises(ValueError, match="'azure-cht'; did you mean 'azure-chat'"):
        preset("azure-cht")
    with pytest.raises(ValueError, match="known: 'azure-chat', 'azure-code', .*'multi-tenant'"):
        preset("xyz")
    with pytest.raises(ValueError, match="slo of preset azure-code .*known: 'default', 'strict'"):
        preset("azure-code", slo="xyz")
    with pytest.raises(ValueError, match="rate must be a finite number > 0"):
        preset("azure-chat", rate=-1.0)
    with pytest.raises(ValueError, match="slo must be a name, an SLO or None, got 5"):
        preset("azure-chat", slo=5)
