import gymnasium as gym
import numpy as np
import pytest

import llmsched_env as ls
from baselines.routers import join_shortest_queue, least_outstanding_tokens, round_robin
from llmsched_env.envs.batch_queue import parametric
from llmsched_env.envs.cluster import ClusterEnv
from llmsched_env.envs.network_features import OF_DESTINATION, routing_features
from llmsched_env.results import metrics
from llmsched_env.simulator.router import Router
from llmsched_env.simulator.simulate import simulate_network
from llmsched_env.tables.task_table import TaskTable
from llmsched_env.workloads import RequestTable
from llmsched_env.workloads.task_sources import FixedTasks

ENGINE = ls.EngineConfig(ls.Staircase(c=0.01, a=0.02, b0=64), token_budget=256, kv_blocks=100, prefix_caching=True)
SLOW = ls.EngineConfig(ls.Staircase(c=0.03, a=0.03, b0=64), token_budget=128)
ENGINES = (ENGINE, ENGINE, SLOW)
WORKLOAD = ls.Workload.poisson(10.0, ls.dist.Uniform(1, 400), ls.dist.Geometric(20), horizon=20.0)
WIDTH = len(OF_DESTINATION)


def shortest(obs):
    """The engine with the fewest unfinished calls."""
    return int(np.argmin(obs[: 3 * WIDTH : WIDTH]))


def play(env, policy, seed=0):
    observations, rewards = [env.reset(seed=seed)[0]], []
    while True:
        obs, reward, terminated, truncated, info = env.step(policy(observations[-1]))
        observations.append(obs)
        rewards.append(reward)
        if terminated or truncated:
            return np.array(observations), np.array(rewards), info, terminated


def random_policy(seed, engines=3):
    rng = np.random.default_rng(seed)
    return lambda obs: int(rng.integers(engines))


def with_prefixes(seed, n=50, output_high=40):
    """Chains of three calls that each begin with the one before, as an agent makes them, with tool times between."""
    rng = np.random.default_rng(seed)
    new, output = rng.integers(1, 120, (n, 3)), rng.integers(1, output_high, (n, 3))
    prompt = np.cumsum(new, axis=1)
    prompt[:, 1:] += np.cumsum(output, axis=1)[:, :-1]
    number = np.arange(3 * n).reshape(n, 3)
    parent = np.where(np.arange(3) > 0, number - 1, -1)
    shared = np.hstack([np.zeros((n, 1), int), prompt[:, 1:] - new[:, 1:]])
    calls = RequestTable.from_columns(
        np.repeat(np.sort(rng.uniform(0, 8, n)), 3), prompt.ravel(), output.ravel(),
        parent=parent.ravel(), shared_tokens=shared.ravel(),
    )  # fmt: skip
    edges = np.stack([number[:, :-1].ravel(), number[:, 1:].ravel()], axis=1)
    return TaskTable.from_columns(calls, np.repeat(np.arange(n), 3), edges, delay=rng.uniform(0, 0.5, 3 * n))


def requests(arrival, prompt, output):
    """Tasks of one call."""
    return FixedTasks(TaskTable.from_columns(RequestTable.from_columns(arrival, prompt, output)))


@pytest.mark.parametrize("horizon", [10.0, None])
@pytest.mark.parametrize("tasks", ["requests", "agents"])
def test_choosing_as_a_router_does_gives_its_rows_bit_for_bit(horizon, tasks):
    source = WORKLOAD if tasks == "requests" else FixedTasks(with_prefixes(0))
    env = ClusterEnv(source, ENGINES, load=None, horizon=horizon, record="entries")
    terminated = play(env, shortest, seed=5)[3]
    runner, ours = env._runner, env.result()
    theirs = simulate_network(
        parametric, runner.tables[0], ENGINES, join_shortest_queue, runner.seeds[0], horizon=horizon, record="entries"
    )
    assert terminated == (horizon is None)
    assert len(ours.requests) > 80 and set(ours.requests.engine) == {0, 1, 2}
    for name in ("requests", "tasks", "batches", "batch_entries", "token_gaps"):
        assert getattr(ours, name).tobytes() == getattr(theirs, name).tobytes(), name


@pytest.mark.parametrize("reward", ["tasks", "calls"])
@pytest.mark.parametrize("horizon", [7.0, None])
def test_rewards_sum_to_integrals(reward, horizon):
    env = ClusterEnv(
        FixedTasks(with_prefixes(1)), ENGINES, load=None, horizon=horizon, reward=reward, record="requests"
    )
    _, rewards, info, terminated = play(env, random_policy(2))
    result = env.result()
    end = result.end
    assert end == info["time"] and terminated == (horizon is None)
    calls = metrics.integral_in_system(result.requests, 0.0, end)
    tasks = (np.nan_to_num(result.tasks.finish, nan=end) - result.tasks.arrival).sum()
    assert -rewards.sum() == pytest.approx({"tasks": tasks, "calls": calls}[reward], rel=1e-9)
    assert (rewards <= 0).all()
    assert info["episode_finished"] == np.isfinite(result.tasks.finish).sum()


def test_one_decision_for_each_call_in_the_order_in_which_they_become_ready():
    env = ClusterEnv(FixedTasks(with_prefixes(2)), ENGINES, load=None, horizon=None, record="requests")
    chosen = []
    policy = random_policy(3)

    def choose(obs):
        chosen.append(policy(obs))
        return chosen[-1]

    play(env, choose)
    calls = env.result().requests
    order = np.argsort(calls.arrival, kind="stable")
    assert len(chosen) == len(calls) == 150
    assert len(np.unique(calls.arrival)) == 150  # so that the order is the only one
    assert calls.engine[order].tolist() == chosen


@pytest.mark.parametrize("seed", range(3))
def test_observations_do_not_depend_on_lengths_still_to_come(seed):
    rng = np.random.default_rng(seed)
    n, cut = 80, 4.0
    arrival, prompt = np.sort(rng.uniform(0, 6, n)), rng.integers(1, 300, n)
    output = rng.integers(1, 60, n)
    env = ClusterEnv(requests(arrival, prompt, output), ENGINES, load=None, horizon=cut, record="entries")
    seen = play(env, random_policy(seed))[0]
    rows = env.result().requests
    longer = output + 40
    finished = np.flatnonzero(rows.finish <= cut)
    longer[: len(rows)] = np.maximum(output[: len(rows)], rows.generated + rng.integers(30, 90, len(rows)))
    longer[finished] = output[finished]
    changed = ClusterEnv(requests(arrival, prompt, longer), ENGINES, load=None, horizon=cut, record="entries")
    assert 3 < len(rows) - len(finished) < len(rows) - 3
    np.testing.assert_array_equal(seen, play(changed, random_policy(seed))[0])
    assert env.result().batch_entries.tobytes() == changed.result().batch_entries.tobytes()


def test_observed_features_of_a_case_worked_by_hand():
    engine = ls.EngineConfig(
        ls.Staircase(c=1.0, a=0.0, b0=1), token_budget=100, kv_blocks=20, block_size=10, prefix_caching=True
    )
    calls = RequestTable.from_columns(
        [0.0, 0.0, 0.5, 0.5], [30, 52, 7, 7], [3, 1, 9, 9], parent=[-1, 0, -1, -1], shared_tokens=[0, 32, 0, 0]
    )
    table = TaskTable.from_columns(calls, [0, 0, 1, 2], [(0, 1)], delay=[0, 0.25, 0, 0])
    env = ClusterEnv(FixedTasks(table), [engine] * 2, load=None, horizon=None)
    features = routing_features(2)

    def values(obs):
        scale = np.array([0.0 if f.scale is None else np.log1p(f.scale) for f in features])
        return np.where(scale > 0, np.expm1(obs * scale), obs).round(3)

    obs, info = env.reset(seed=0)
    assert info["time"] == 0.0
    np.testing.assert_allclose(values(obs)[16:], [30, 0, 1, 0])
    obs, reward, *_, info = env.step(1)  # the call of 30 tokens to engine 1; the next is asked for at 0.5
    assert (info["time"], reward) == (0.5, -0.5)
    np.testing.assert_allclose(values(obs)[:8], 0)
    np.testing.assert_allclose(values(obs)[8:16], [1, 30, 0, 1, 3 / 20, 30 / 100, 1, 0], atol=1e-3)
    env.step(1)
    obs, *_, info = env.step(0)  # then the second call of the first task, 0.25 s after the first ended at 3.0
    assert info["time"] == 3.25
    np.testing.assert_allclose(values(obs)[[7, 15, 16, 17]], [0, 30, 52, 1], atol=1e-3)


def test_env_i_is_the_single_env_of_its_seed():
    kwargs = {"workload": WORKLOAD, "engines": ENGINES, "load": (0.5, 1.2), "horizon": 2.0}
    vector = gym.make_vec("llmsched/Cluster-v0", num_envs=5, vectorization_mode="vector_entry_point", **kwargs)
    obs, _ = vector.reset(seed=7)
    singles = [ClusterEnv(**kwargs) for _ in range(5)]
    for i, single in enumerate(singles):
        np.testing.assert_array_equal(single.reset(seed=7 + i)[0], obs[i])
    rng, episodes = np.random.default_rng(0), np.zeros(5, int)
    for _ in range(150):
        actions = rng.integers(3, size=5)
        obs, rewards, terminated, truncated, infos = vector.step(actions)
        for i, single in enumerate(singles):
            seen, reward, term, trunc, info = single.step(actions[i])
            assert (reward, term, trunc) == (rewards[i], terminated[i], truncated[i])
            if term or trunc:
                episodes[i] += 1
                np.testing.assert_array_equal(infos["final_obs"][i], seen)
                assert {name: infos["final_info"][name][i] for name in info} == info
                seen = single.reset()[0]
            else:
                assert {name: infos[name][i] for name in info} == info
            np.testing.assert_array_equal(obs[i], seen)
    assert episodes.min() >= 2


def test_load_is_over_the_capacity_of_all_engines():
    one = ls.theory.capacity(ENGINE, WORKLOAD) * 2 + ls.theory.capacity(SLOW, WORKLOAD)
    env = ClusterEnv(WORKLOAD, ENGINES, load=0.5, horizon=400.0)
    env.reset(seed=0)
    arrivals = len(env._runner.tables[0])
    assert abs(arrivals - 0.5 * one * 400.0) < 4 * np.sqrt(arrivals)


def test_an_episode_without_calls_ends_at_once():
    env = ClusterEnv(requests([5.0], [10], [3]), ENGINES, load=None, horizon=2.0)
    env.reset(seed=0)
    _, reward, terminated, truncated, info = env.step(0)
    assert (reward, terminated, truncated, info["time"], info["episode_arrived"]) == (0.0, False, True, 2.0, 0)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"workload": "azure-chatt"}, "azure-chat"),
        ({"engines": ()}, "engines must hold at least one"),
        ({"engines": ("h100",)}, "profile"),
        ({"load": -0.5}, "load must be .*-0.5"),
        ({"horizon": 0.0}, "horizon must be .*0"),
        ({"reward": "speed"}, "reward must be .*'speed'"),
        ({"record": "all"}, "record must be .*'all'"),
        ({"workload": FixedTasks(with_prefixes(0))}, "load must be None .*0.9"),
    ],
)
def test_bad_arguments_are_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        ClusterEnv(**kwargs)


def test_an_engine_that_there_is_not_is_refused():
    env = ClusterEnv(WORKLOAD, ENGINES, load=None)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"action must hold whole numbers of Discrete\(3\), got 3"):
        env.step(3)


ROUTERS = (round_robin, join_shortest_queue, least_outstanding_tokens)


@pytest.mark.parametrize("arm", range(3))
def test_one_router_all_the_time_is_that_router(arm):
    tasks = with_prefixes(arm)
    env = ClusterEnv(
        FixedTasks(tasks), ENGINES, load=None, horizon=None, record="entries", routers=ROUTERS, decision_interval=0.5
    )
    _, rewards, info, terminated = play(env, lambda obs: arm)
    result, other = env.result(), simulate_network(parametric, tasks, ENGINES, ROUTERS[arm], record="entries")
    for name in ("requests", "tasks", "batches", "batch_entries"):
        assert getattr(result, name).tobytes() == getattr(other, name).tobytes()
    assert terminated and info["time"] == pytest.approx(0.5 * np.ceil(other.end / 0.5))
    assert -rewards.sum() == pytest.approx((other.requests.finish - other.requests.arrival).sum())


def test_routers_take_turns_and_remember():
    # Cyclic routing has sent one call when it stops, and goes on with the second engine when it comes back.
    env = ClusterEnv(
        requests([0.1, 1.1, 1.2, 2.1], [10] * 4, [1] * 4), [ENGINE, ENGINE, ENGINE], load=None, horizon=3.0,
        record="requests", routers=[round_robin, join_shortest_queue], decision_interval=1.0,
    )  # fmt: skip
    env.reset(seed=0)
    for arm in (0, 1, 0):
        _, _, terminated, truncated, _ = env.step(arm)
    assert (terminated, truncated) == (False, True)
    assert env.result().requests.engine.tolist() == [0, 0, 0, 1]


def test_a_router_in_plain_python_can_be_an_arm():
    chosen = {}
    last = Router("last", lambda fleet, i: chosen.setdefault(i, len(fleet.allowed) - 1))
    env = ClusterEnv(
        requests([0.1, 0.2], [10] * 2, [1] * 2), [ENGINE] * 2, load=None, horizon=1.0, record="requests",
        routers=[round_robin, last], decision_interval=1.0,
    )  # fmt: skip
    env.reset(seed=0)
    env.step(1)
    assert env.result().requests.engine.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"routers": ROUTERS}, "decision_interval must be given with routers"),
        ({"routers": (), "decision_interval": 1.0}, "routers must hold at least one"),
        ({"routers": ROUTERS, "decision_interval": 0.0}, "decision_interval must be .* got 0"),
        ({"decision_interval": 1.0}, "decision_interval must be None .* without routers, got 1.0"),
    ],
)
def test_bad_choices_of_routers_are_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        ClusterEnv(WORKLOAD, ENGINES, load=None, **kwargs)


def test_a_router_that_there_is_not_is_refused():
    env = ClusterEnv(WORKLOAD, ENGINES, load=None, routers=ROUTERS, decision_interval=1.0)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"action must hold whole numbers of Discrete\(3\), got 3"):
        env.step(3)
