import gymnasium as gym
import numpy as np
import pytest

import llmsched_env as ls
from llmsched_env.envs.batch_queue import BatchQueueEnv
from llmsched_env.envs.index_policy import IndexNumbers, IndexPolicyEnv
from llmsched_env.policies.index import index
from llmsched_env.policies.index_params import INDEX_PARAMS
from llmsched_env.simulator.scheduler import Linear, Log

ROWS = ("requests", "batches", "batch_entries", "token_gaps")


def rows_of(env, scheduler):
    workload = ls.Workload.from_table(env._runner.tables[0], "episode")
    return ls.simulate(scheduler, workload, env.episodes.engine, horizon=env.episodes.horizon, record="entries")


@pytest.mark.parametrize("interval", [None, 0.05])
@pytest.mark.parametrize("action", ["defaults", "random"])
def test_a_constant_action_is_the_index_policy_bit_for_bit(small, play, interval, action):
    env = IndexPolicyEnv(**small | {"load": 1.2}, decision_interval=interval, record="entries")
    constant = env.numbers.encode() if action == "defaults" else env.action_space.sample()
    observations, *_ = play(env, lambda obs: constant, seed=5)
    ours, theirs = env.result(), rows_of(env, index(**env.numbers.values(constant)))
    assert len(ours.requests) > 50
    for table in ROWS:
        assert getattr(ours, table).tobytes() == getattr(theirs, table).tobytes(), table
    if action == "defaults":
        assert ours.batch_entries.tobytes() == rows_of(env, index).batch_entries.tobytes()
    assert all(env.observation_space.contains(obs) for obs in observations)


def test_actions_reach_from_end_to_end_of_what_a_tuner_searches():
    numbers = IndexNumbers()
    assert numbers.names == tuple(name for name, param in INDEX_PARAMS.items() if param.tune is not None)
    n = len(numbers.names)
    low, high = numbers.values(-np.ones(n, np.float32)), numbers.values(np.ones(n, np.float32))
    middle = numbers.values(np.zeros(n, np.float32))
    start = numbers.encode()
    for k, name in enumerate(numbers.names):
        param = INDEX_PARAMS[name]
        tune = param.tune
        ends = (min(tune), max(tune)) if isinstance(tune, tuple) else (tune.low, tune.high)
        # A default beyond the range takes the place of its end.
        expected = (min(ends[0], param.default), max(ends[1], param.default))
        assert (low[name], high[name]) == pytest.approx(expected)
        if start[k] != 0 and isinstance(tune, Linear) and not tune.whole:
            assert middle[name] == pytest.approx((tune.low + tune.high) / 2)
        if start[k] != 0 and isinstance(tune, Log):
            assert middle[name] == pytest.approx(np.sqrt(tune.low * tune.high), rel=1e-9, abs=0.51 * tune.whole)
    assert numbers.values(numbers.encode()) == {name: INDEX_PARAMS[name].default for name in numbers.names}
    np.testing.assert_array_equal(
        numbers.params(np.full((2, n), 7.0, np.float32)), numbers.params(np.ones((2, n), np.float32))
    )


def test_encode_sets_numbers_by_name():
    numbers = IndexNumbers()
    values = numbers.values(numbers.encode(by_length=1.5, by_slack=2.0))
    assert (values["by_length"], values["by_slack"]) == pytest.approx((1.5, 2.0), rel=1e-6)
    assert values["caution"] == INDEX_PARAMS["caution"].default
    with pytest.raises(ValueError, match="by_length must be .*5"):
        numbers.encode(by_length=5.0)
    with pytest.raises(ValueError, match="by_luck"):
        numbers.encode(by_luck=1.0)


def test_different_numbers_serve_in_another_order(small, play):
    short = small | {"load": 1.5}
    finished = []
    for action in ({"by_length": 2.0}, {"by_length": 0.0, "by_age": -1.0}):
        env = IndexPolicyEnv(**short, record="requests")
        constant = env.numbers.encode(**action)
        play(env, lambda obs, constant=constant: constant, seed=3)
        finished.append(np.argsort(env.result().requests.first_token).tolist())
    assert finished[0] != finished[1]


def test_the_vector_environment_is_its_single_ones(small):
    vector = gym.make_vec("llmsched/IndexPolicy-v0", num_envs=2, decision_interval=0.2, **small)
    singles = [IndexPolicyEnv(**small, decision_interval=0.2) for _ in range(2)]
    vector.reset(seed=4)
    for i, env in enumerate(singles):
        env.reset(seed=4 + i)
    rng = np.random.default_rng(0)
    for _ in range(30):
        actions = rng.uniform(-1.2, 1.2, (2, *vector.single_action_space.shape)).astype(np.float32)
        obs, rewards, *_ = vector.step(actions)
        for i, env in enumerate(singles):
            single, reward, *_ = env.step(actions[i])
            np.testing.assert_array_equal(obs[i], single)
            assert rewards[i] == reward


@pytest.mark.parametrize("make", [BatchQueueEnv, IndexPolicyEnv])
def test_an_arm_is_its_action(small, play, make):
    whole = make(**small, decision_interval=0.1, record="entries")
    arms = [whole.action_space.sample() for _ in range(3)]
    env = make(**small, decision_interval=0.1, record="entries", arms=[arm.tolist() for arm in arms])
    assert env.action_space == gym.spaces.Discrete(3)
    rng = np.random.default_rng(0)
    picks = rng.integers(3, size=200)
    steps = [iter(picks), iter(picks)]
    ours = play(env, lambda obs: int(next(steps[0])), seed=6)
    theirs = play(whole, lambda obs: arms[next(steps[1])], seed=6)
    np.testing.assert_array_equal(ours[0], theirs[0])
    assert env.result().batch_entries.tobytes() == whole.result().batch_entries.tobytes()


@pytest.mark.parametrize(
    ("make", "arms", "message"),
    [
        (BatchQueueEnv, [], "arms must hold one or more"),
        (BatchQueueEnv, [[99, 0, 0, 0]], r"arms must hold actions of MultiDiscrete.* got \(99"),
        (IndexPolicyEnv, [[0.0]], "arms must hold actions of Box"),
    ],
)
def test_bad_arms_are_refused(make, arms, message):
    with pytest.raises(ValueError, match=message):
        make(arms=arms)
