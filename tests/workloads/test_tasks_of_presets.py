"""Presets as tasks follow the published numbers."""

import json
import math
from importlib import resources

import numpy as np
import pytest

from llmsched_env.machine.batch_time import Staircase
from llmsched_env.machine.config import EngineConfig
from llmsched_env.slo import SLO
from llmsched_env.workloads import preset, task_preset


def distance(values, levels, knots):
    """Kolmogorov-Smirnov distance of a sample to a table, at its knots."""
    values, levels = np.sort(values), np.array(levels) / 100
    below = np.searchsorted(values, knots, side="left") / len(values)
    upto = np.searchsorted(values, knots, side="right") / len(values)
    return max(0.0, np.max(levels - upto), np.max(below - levels))


@pytest.fixture(scope="module")
def numbers():
    return json.loads(resources.files("llmsched_env").joinpath("data/workload_presets.json").read_text())


@pytest.fixture(scope="module")
def coding():
    return task_preset("coding-agent", rate=10.0, horizon=600.0).sample(0)


def ends_alone(table):
    """bool[n]: calls of sessions themselves; those of sub-agents are on a path beside an edge of their session."""
    main = np.zeros(len(table), bool)
    following = {}
    for a, b in table.edges.tolist():
        following[a] = max(b, following.get(a, -1))  # the next call of a session stands behind its sub-agents
    for i in np.flatnonzero(np.append(True, np.diff(table.task) > 0)).tolist():
        while i is not None:
            main[i] = True
            i = following.get(i)
    return main


def test_coding_agents_follow_every_table(coding, numbers):
    own, levels = numbers["presets"]["coding-agent"], numbers["quantile_levels"]
    calls, main = coding.calls, ends_alone(coding)
    first = main & (coding.hops() == 0)
    later = ~np.isin(np.arange(len(coding)), np.flatnonzero(first))
    tables = {
        "calls_per_session": np.bincount(coding.task[main]),
        "first_prompt_tokens": calls.prompt_tokens[first],
        "output_tokens": calls.output_tokens,
    }
    for name, values in tables.items():
        assert distance(values, levels, own[f"{name}_quantiles"]) <= 0.02, name
    # Delays are a mixture of tools and people.
    share = own["human_turn_probability"]
    tool, human = (np.array(own[f"{who}_wait_s_quantiles"], float) for who in ("tool", "human"))
    delay = coding.delay[main & later]
    at = np.unique(np.concatenate([tool, human]))[1:-1]

    def level(table):
        return np.interp(np.log(at), np.log(np.maximum(table, 1e-9)), np.array(levels) / 100)

    inside = at >= max(tool[1], human[1])
    expected = (1 - share) * level(tool) + share * level(human)
    measured = np.searchsorted(np.sort(delay), at, side="right") / len(delay)
    assert np.abs(measured - expected)[inside].max() <= 0.02


def test_coding_agents_reuse_the_prompt_before_them(coding, numbers):
    calls, main = coding.calls, ends_alone(coding)
    later = main & (calls.parent >= 0)
    assert np.array_equal(coding.task[calls.parent[later]], coding.task[later])
    hit = calls.shared_tokens[later].sum() / calls.prompt_tokens[later].sum()
    assert hit == pytest.approx(numbers["presets"]["coding-agent"]["prefix_hit_fraction_after_first_call"], abs=0.02)


def test_some_coding_sessions_wait_for_sub_agents(coding, numbers):
    own = numbers["presets"]["coding-agent"]["subagent"]
    main = ends_alone(coding)
    with_helpers = np.unique(coding.task[~main])
    share = len(with_helpers) / coding.num_tasks
    assert abs(share - own["sessions_with"]) <= 4.5 * math.sqrt(own["sessions_with"] / coding.num_tasks)
    begins = ~main & (coding.calls.parent < 0)
    per_session = np.bincount(coding.task[begins])[with_helpers]
    assert abs(per_session.mean() - own["per_such_session_mean"]) <= 4.5 * per_session.std() / len(per_session) ** 0.5
    mean = np.count_nonzero(~main) / begins.sum()
    assert abs(mean - own["calls_mean"]) <= 4.5 * own["calls_mean"] / math.sqrt(begins.sum())
    ins = np.bincount(coding.edges[:, 1], minlength=len(coding))
    waiting = np.flatnonzero(ins > 1)
    assert main[waiting].all()  # the session's next call, after the call before it and all its sub-agents
    assert (ins[waiting] - 1).sum() == begins.sum()


def test_tool_agents_are_tasks_of_one_call_that_follow_their_tables(numbers):
    own, levels = numbers["presets"]["mooncake-tool-agent"], numbers["quantile_levels"]
    source = task_preset("mooncake-tool-agent", rate=100.0, horizon=500.0)
    table = source.sample(0)
    assert table.num_tasks == len(table) and source.rate == 100.0
    for name in ("prompt_tokens", "output_tokens"):
        assert distance(getattr(table.calls, name), levels, own[f"{name}_quantiles"]) <= 0.02, name
    plain = preset("mooncake-tool-agent", rate=100.0, horizon=500.0).sample(0)
    assert np.array_equal(table.calls.shared_tokens, plain.shared_tokens) and table.calls.shared_tokens.any()


def test_tasks_arrive_at_the_rate_asked_for():
    counts = np.array([task_preset("coding-agent", 1.0, 50.0).sample(seed).num_tasks for seed in range(30)])
    assert abs(counts.mean() - 50) <= 4.5 * math.sqrt(50 / 30)
    source = task_preset("swe-agent", horizon=20.0)
    assert source.rate == 1.0 and source.name == "swe-agent" and source.sample(0).calls.horizon == 20.0
    engine = EngineConfig(Staircase(c=0.01, a=0.01, b0=256))
    assert source.at_load(0.5, [engine] * 2).load == 0.5
    assert source.at_load(0.5, [engine] * 2).rate == pytest.approx(2 * source.at_load(0.5, engine).rate)


def test_targets_and_bad_names():
    assert set(task_preset("coding-agent", horizon=5.0).sample(0).calls.ttft_slo) == {3.0}
    assert set(task_preset("coding-agent", horizon=5.0, slo=SLO(9.0)).sample(0).calls.ttft_slo) == {9.0}
    assert np.isinf(task_preset("coding-agent", horizon=5.0, slo=None).sample(0).calls.ttft_slo).all()
    with pytest.raises(ValueError, match="'coding-agnt'; did you mean 'coding-agent'"):
        task_preset("coding-agnt")
    with pytest.raises(ValueError, match=r"rate must be a finite number > 0 \(tasks/s\), got -1"):
        task_preset("coding-agent", rate=-1.0)
