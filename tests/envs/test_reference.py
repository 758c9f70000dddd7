"""Rewards against a reference on the same requests, groups that share requests, and episodes that change."""

from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest

import baselines
import llmsched_env as ls
from llmsched_env.compiled import interpreted
from llmsched_env.envs.batch_queue import BatchQueueEnv, BatchQueueVectorEnv, parametric
from llmsched_env.envs.index_policy import IndexPolicyEnv
from llmsched_env.envs.request_selection import RequestSelectionEnv
from llmsched_env.policies.index import index
from llmsched_env.results import metrics

SARATHI = baselines.sarathi(token_budget=512)


class Plain:
    """Sarathi as an object, which numba cannot compile."""

    compose = staticmethod(interpreted(SARATHI.compose))

    def __call__(self, view):
        return self.compose(view)


def on_same_requests(env, scheduler, horizon):
    workload = ls.Workload.from_table(env._runner.tables[0], "episode")
    return ls.simulate(scheduler, workload, env.episodes.engine, horizon=horizon)


@pytest.fixture
def binary():
    """Times are multiples of 1/64 s, so that sums of rewards are exact."""
    rng = np.random.default_rng(3)
    arrival = np.sort(rng.integers(0, 64 * 8, 60)) / 64
    workload = ls.Workload.from_arrays(arrival, rng.integers(1, 400, 60), rng.integers(1, 30, 60), slo=ls.SLO(1, 0.1))
    engine = ls.EngineConfig(ls.Staircase(c=1 / 64, a=1 / 32, b0=64), token_budget=2048)
    return {"workload": workload, "engine": engine, "load": None}


@pytest.mark.parametrize("interval", [None, 0.25])
@pytest.mark.parametrize("horizon", [8.0, None])
@pytest.mark.parametrize("reward", ["latency", "goodput"])
def test_rewards_sum_to_the_own_total_less_the_references(binary, play, random_policy, interval, horizon, reward):
    env = BatchQueueEnv(
        **binary, horizon=horizon, decision_interval=interval, reward=reward, reference=SARATHI, record="requests"
    )
    _, rewards, _, terminated, truncated = play(env, random_policy(env, 1), seed=2)
    assert (terminated, truncated) == (horizon is None, horizon is not None)

    def total(run):
        if reward == "goodput":
            return np.count_nonzero(metrics.within_limits(run.requests))
        return -metrics.integral_in_system(run.requests, 0.0, run.end)

    reference = on_same_requests(env, SARATHI, horizon)
    assert rewards.sum() == total(env.result()) - total(reference) != 0


def test_each_step_compares_over_its_own_time(binary, random_policy):
    env = BatchQueueEnv(**binary, horizon=8.0, decision_interval=0.5, reference=SARATHI)
    env.reset(seed=0)
    policy, rows, truncated = random_policy(env, 0), None, False
    while not truncated:
        before = env._runner.simulator.clock(0)
        _, reward, _, truncated, info = env.step(policy(None))
        rows = on_same_requests(env, SARATHI, 8.0).requests if rows is None else rows
        assert info["reference_latency"] == -metrics.integral_in_system(rows, before, info["time"])
        assert reward == info["reward_latency"] - info["reference_latency"]


@pytest.mark.parametrize("interval", [None, 0.07])
@pytest.mark.parametrize("kind", ["knobs", "index", "plain"])
def test_the_reference_itself_gets_nothing(small, play, interval, kind):
    """Bit for bit, also for a scheduler that runs as plain Python."""
    if kind == "index":
        env = IndexPolicyEnv(**small, decision_interval=interval, reference=index)
        constant = env.numbers.encode()
    else:
        scheduler = SARATHI if kind == "knobs" else replace(SARATHI, compose=Plain())
        env = BatchQueueEnv(**small | {"load": 1.3}, decision_interval=interval, reference=scheduler)
        constant = env.knobs.encode(token_budget=512)
    _, rewards, info, _, _ = play(env, lambda obs: constant, seed=4)
    assert len(rewards) > 50 and info["reward_latency"] < 0
    assert (rewards == 0.0).all()


def test_choices_within_a_batch_are_compared_as_well(small, play):
    """Slot 0 again and again is Sarathi."""
    env = RequestSelectionEnv(**small, slots=4, reference=SARATHI)
    _, rewards, info, _, _ = play(env, lambda obs: 0, seed=4)
    assert len(rewards) > 50 and info["reward_latency"] < 0
    assert (rewards == 0.0).all()


def test_the_reference_changes_nothing_else(small, play, random_policy):
    plain, compared = (BatchQueueEnv(**small, decision_interval=0.1, reference=r) for r in (None, SARATHI))
    first = play(plain, random_policy(plain, 5), seed=6)
    second = play(compared, random_policy(compared, 5), seed=6)
    np.testing.assert_array_equal(first[0], second[0])
    assert first[2] == {name: value for name, value in second[2].items() if not name.startswith("reference_")}
    assert not np.array_equal(first[1], second[1])


def test_vector_environments_compare_each_engine_with_its_own_reference(small):
    kwargs = small | {"horizon": 2.0, "load": (0.5, 1.2), "decision_interval": 0.1, "reference": SARATHI}
    vector = gym.make_vec("llmsched/BatchQueue-v0", num_envs=5, vectorization_mode="vector_entry_point", **kwargs)
    singles = [gym.make("llmsched/BatchQueue-v0", **kwargs) for _ in range(5)]
    vector.reset(seed=7)
    for i, single in enumerate(singles):
        single.reset(seed=7 + i)
    rng, ended = np.random.default_rng(0), 0
    for _ in range(70):
        actions = rng.integers(vector.single_action_space.nvec, size=(5, 4))
        _, rewards, _, _, infos = vector.step(actions)
        for i, single in enumerate(singles):
            _, reward, _, truncated, info = single.step(actions[i])
            assert reward == rewards[i]
            of = infos["final_info"] if truncated else infos
            assert of["reference_latency"][i] == info["reference_latency"]
            if truncated:
                ended += 1
                single.reset()
    assert ended == 5 * 3


def test_bad_references_are_refused(small):
    with pytest.raises(ValueError, match="reference must be a Scheduler or None, got 'sarathi'"):
        BatchQueueEnv(**small, reference="sarathi")
    with pytest.raises(ValueError, match="without a controller, got 'parametric'"):
        BatchQueueEnv(**small, reference=replace(parametric, controller=object()))
    env = BatchQueueEnv(**small, reference=ls.Scheduler("sleepless", lambda view: view.clock))
    env.reset(seed=0)
    with pytest.raises(ValueError, match="'sleepless' .* woken at a time that is not later"):
        for _ in range(9):
            env.step(env.knobs.encode())


def test_groups_share_their_requests(small):
    kwargs = small | {"horizon": 1.0, "load": (0.5, 1.2), "decision_interval": 0.25}
    env = BatchQueueVectorEnv(6, **kwargs, shared_traces=3)
    single = BatchQueueEnv(**kwargs)
    env.reset(seed=5)
    single.reset(seed=8)
    seen = []
    for step in range(13):
        tables = [table.arrival.tobytes() + table.output_tokens.tobytes() for table in env._runner.tables]
        assert tables[:3] == tables[:1] * 3 and tables[3:] == tables[3:4] * 3 and tables[0] != tables[3]
        seen.append(tables[0])
        assert env._runner.tables[3].arrival.tobytes() == single._runner.tables[0].arrival.tobytes()
        env.step(np.tile([[4, 5, step % 4, 0]], (6, 1)))
        if single.step([4, 5, 0, 0])[3]:
            single.reset()
    assert len(set(seen)) == 4  # an episode is four steps
    env.reset()
    assert env._runner.tables[0].arrival.tobytes() == env._runner.tables[2].arrival.tobytes()
    fresh = BatchQueueVectorEnv(2, **kwargs, shared_traces=2)
    fresh.reset()
    assert fresh._runner.tables[0].arrival.tobytes() == fresh._runner.tables[1].arrival.tobytes()


@pytest.mark.parametrize("group", [0, 4, 1.5])
def test_bad_groups_are_refused(small, group):
    with pytest.raises(ValueError, match=r"shared_traces must .*, got "):
        BatchQueueVectorEnv(6, **small, shared_traces=group)


def test_episodes_to_come_may_be_changed(small):
    env = BatchQueueVectorEnv(2, **small | {"horizon": 2.0, "load": 0.3}, decision_interval=0.5)
    env.reset(seed=0)
    action = np.tile(env.knobs.encode(), (2, 1))
    env.step(action)
    env.set_episodes(load=(2.0, 2.0), horizon=1.0)
    lengths, arrived, steps = [], [], 1
    for _ in range(7):
        *_, truncated, infos = env.step(action)
        steps += 1
        if truncated.all():
            lengths.append(0.5 * steps)
            arrived.append(infos["final_info"]["episode_arrived"].sum() / (2 * lengths[-1]))
            steps = 0
    assert lengths == [2.0, 1.0, 1.0]  # the present episode ends as it began
    assert min(arrived[1:]) > 2 * arrived[0]
    assert (env.episodes.load, env.episodes.horizon) == ((2.0, 2.0), 1.0)
    with pytest.raises(ValueError, match="horizon must be"):
        env.set_episodes(load=1.0, horizon=0.0)
    with pytest.raises(ValueError, match="load must be"):
        env.set_episodes(load=(1.0, 0.5), horizon=2.0)
