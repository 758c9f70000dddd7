"""`llmsched/Cluster-v1`: what its agent sees, and reward `slo` of networks."""

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import baselines
import llmsched_env as ls
from baselines.routers import join_shortest_queue, least_outstanding_seconds
from llmsched_env.envs.cluster_features import OF_OUTLOOK, outlook_features
from llmsched_env.envs.cluster_v1 import ClusterV1Env
from llmsched_env.features import names
from llmsched_env.results.metrics import within_limits
from llmsched_env.simulator.router import Router
from llmsched_env.simulator.simulate import simulate_network
from llmsched_env.tables.task_table import TaskTable
from llmsched_env.workloads import RequestTable
from llmsched_env.workloads.task_sources import FixedTasks
from tests.envs.test_cluster import ENGINES, play, random_policy, requests, with_prefixes
from tests.network.cases import seeded_case

WIDTH = len(OF_OUTLOOK)


def measured(obs, engines):
    """By name, what the features of each engine (a row each) measured; and those after them."""
    scale = np.array([0.0 if f.scale is None else np.log1p(f.scale) for f in outlook_features(engines)])
    values = np.where(scale > 0, np.expm1(obs * scale), obs)
    blocks = values[: engines * WIDTH].reshape(engines, WIDTH)
    rest = dict(zip(names(outlook_features(engines))[engines * WIDTH :], values[engines * WIDTH :], strict=True))
    return dict(zip(names(OF_OUTLOOK), blocks.T, strict=True)), rest


def close(values, expected):
    np.testing.assert_allclose(values, expected, rtol=1e-3, atol=1e-3)


def test_features_of_a_case_worked_by_hand():
    """Engine 0 takes 1 ms a token, engine 1 takes 2 ms; both have memory for 200 tokens, and batches of at most 50."""
    engines = [
        ls.EngineConfig(ls.Staircase(c=0.0, a=a, b0=1), token_budget=50, kv_blocks=20, block_size=10)
        for a in (0.001, 0.002)
    ]
    calls = RequestTable.from_columns(
        [0.0, 0.0, 0.061, 0.061], [80, 20, 30, 40], [9, 90, 9, 9], predicted_output=[5, 10, 4, np.nan],
        ttft_slo=[1, 1, 0.5, 1], tpot_slo=[0.1] * 4,
    )  # fmt: skip
    env = ClusterV1Env(FixedTasks(TaskTable.from_columns(calls)), engines, load=None, horizon=None)
    seen, rest = measured(env.reset(seed=0)[0], 2)
    close(seen["prefill_ms"], [512, 1024])
    close(seen["decode_ms"], [64, 128])
    close(seen["call_prefill_ms"], [80, 160])
    close(seen["call_decode_ms"], [5 * 1, 5 * 2])
    close(seen["kv_to_come"], [85 / 200] * 2)
    for name in ("prefill_outstanding_ms", "decode_outstanding_ms", "kv_used", "waiting", "running", "held_up_ms"):
        close(seen[name], [0, 0])
    close(seen["room"], [1, 1])
    close([rest["prompt_tokens"], rest["predicted_output"], rest["ttft_ms"], rest["tpot_ms"]], [80, 5, 1000, 100])
    close([rest["short_rate"], rest["long_rate"]], [0.5, 0.05])
    seen, rest = measured(env.step(0)[0], 2)  # the second call, at the same moment: the first is on its way
    close(seen["waiting"], [1, 0])
    close(seen["prefill_outstanding_ms"], [80, 0])
    close(seen["decode_outstanding_ms"], [5 * 1, 0])
    close(seen["held_up_ms"], [20, 0])
    close(rest["short_rate"], 1.0)
    # At 61 ms engine 0 runs the second batch of the first call, and engine 1 the decode of the 11th token of its own.
    seen, rest = measured(env.step(1)[0], 2)
    close(seen["waiting"], [0, 0])
    close(seen["running"], [1, 1])
    close(seen["kv_used"], [8 / 20, 4 / 20])  # batches under way have their blocks
    close(rest["short_rate"], np.exp(-0.0305) + 0.5)
    close(seen["step_ms"], [2, 4])
    close(seen["held_up_ms"], [30, 60])
    seen, rest = measured(env.step(0)[0], 2)
    close(rest["predicted_output"], 128)
    close(seen["room"], [0, 0])  # 160 tokens are free at most, and 168 are asked for


@pytest.mark.parametrize("tasks", ["requests", "agents"])
def test_choosing_as_a_router_does_gives_its_rows_bit_for_bit(tasks):
    workload = ls.Workload.poisson(10.0, ls.dist.Uniform(1, 400), ls.dist.Geometric(20), horizon=20.0)
    source = workload if tasks == "requests" else FixedTasks(with_prefixes(0))
    env = ClusterV1Env(source, ENGINES, load=None, horizon=None, record="entries")

    def shortest(obs):
        seen, _ = measured(obs, 3)
        return int(np.argmin((seen["waiting"] + seen["running"]).round()))

    play(env, shortest, seed=5)
    ours = env.result()
    theirs = simulate_network(
        baselines.vllm_v1, env._runner.tables[0], ENGINES, join_shortest_queue, env._runner.seeds[0], record="entries"
    )
    for name in ("requests", "tasks", "batches", "batch_entries"):
        assert getattr(ours, name).tobytes() == getattr(theirs, name).tobytes(), name


@pytest.mark.parametrize("seed", range(3))
def test_observations_do_not_depend_on_lengths_still_to_come(seed):
    rng = np.random.default_rng(seed)
    n, cut = 80, 4.0
    arrival, prompt, output = np.sort(rng.uniform(0, 6, n)), rng.integers(1, 300, n), rng.integers(1, 60, n)
    predicted = rng.uniform(1, 60, n)

    def env_of(output):
        calls = RequestTable.from_columns(arrival, prompt, output, predicted_output=predicted)
        source = FixedTasks(TaskTable.from_columns(calls))
        return ClusterV1Env(source, ENGINES, load=None, horizon=cut, record="requests")

    env = env_of(output)
    seen = play(env, random_policy(seed))[0]
    rows, longer = env.result().requests, output + 40
    finished = np.flatnonzero(rows.finish <= cut)
    longer[: len(rows)] = np.maximum(output[: len(rows)], rows.generated + rng.integers(30, 90, len(rows)))
    longer[finished] = output[finished]
    assert 3 < len(rows) - len(finished) < len(rows) - 3
    np.testing.assert_array_equal(seen, play(env_of(longer), random_policy(seed))[0])


def test_workloads_by_name_have_predicted_lengths_and_others_their_own():
    named = ClusterV1Env("azure-chat", load=0.5, horizon=5.0)
    named.reset(seed=1)
    table = named._runner.tables[0].calls
    assert np.log(table.predicted_output / table.output_tokens).std() == pytest.approx(0.6, rel=0.3)
    plain = ClusterV1Env(ls.preset("azure-chat", horizon=5.0), load=0.5)
    plain.reset(seed=1)
    assert np.isnan(plain._runner.tables[0].calls.predicted_output).all()


def test_rules_that_are_told_true_lengths_are_refused():
    with pytest.raises(ValueError, match="scheduler must be one that does without true lengths, got 'srpt'"):
        ClusterV1Env(scheduler=baselines.srpt)
    told = Router("told", lambda fleet, i: 0, needs_lengths="true")
    with pytest.raises(ValueError, match="router must be one that does without true lengths, got 'told'"):
        ClusterV1Env(routers=(told, least_outstanding_seconds), decision_interval=1.0)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), horizon=st.none() | st.floats(0.1, 3.0), actions=st.integers(0, 2**16))
def test_slo_rewards_sum_to_minus_the_calls_that_missed(seed, horizon, actions):
    """With preemption, calls that are turned away, and clients that give up; those undecided at the end count 0."""
    case, rng = seeded_case(seed), np.random.default_rng(seed)
    n = len(case.tasks)
    own = case.tasks.calls
    calls = RequestTable.from_columns(
        np.sort(rng.uniform(0, 2, n)), own.prompt_tokens * rng.integers(1, 9, n), own.output_tokens,
        ttft_slo=rng.uniform(0, 2, n), tpot_slo=rng.uniform(0, 0.6, n),
        timeout=np.where(rng.random(n) < 0.3, rng.uniform(0, 2, n), np.inf),
    )  # fmt: skip
    env = ClusterV1Env(
        FixedTasks(TaskTable.from_columns(calls)), case.engines, load=None, horizon=horizon, reward="slo",
        record="requests",
    )  # fmt: skip
    _, rewards, info, terminated = play(env, random_policy(actions, len(case.engines)))
    rows = env.result().requests
    good = int(np.count_nonzero(within_limits(rows)))
    assert -rewards.sum() == info["episode_missed"] and (rewards <= 0).all()
    assert info["episode_missed"] + info["episode_undecided"] + good == len(rows)
    if terminated:
        assert info["episode_undecided"] <= np.count_nonzero(rows.status == "active")


def test_the_infos_after_an_episode_are_those_of_the_next():
    vector = gym.make_vec(
        "llmsched/Cluster-v1", num_envs=2, vectorization_mode="vector_entry_point",
        workload=requests([0.25, 0.5], [10, 10], [3, 3]), engines=ENGINES, load=None, horizon=1.0,
    )  # fmt: skip
    vector.reset(seed=0)
    for _ in range(2):
        *_, truncated, infos = vector.step(np.zeros(2, np.int64))
    assert truncated.all()
    assert infos["final_info"]["time"].tolist() == [1.0, 1.0] and infos["time"].tolist() == [0.25, 0.25]
    assert infos["final_info"]["reward_calls"][0] < 0 and infos["reward_calls"].tolist() == [0.0, 0.0]
