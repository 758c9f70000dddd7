"""Actions that are none, steps out of turn, and environments that are pickled in the middle of an episode."""

import copy
import pickle

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.spaces import Box, Discrete, MultiDiscrete

import llmsched_env  # noqa: F401  # registers the environments
from llmsched_env.envs.actions import checked_actions

BOX, SLOTS, KNOBS = Box(-1.0, 1.0, (2,), np.float32), Discrete(3), MultiDiscrete([3, 2])


@pytest.mark.parametrize(
    ("space", "action", "message"),
    [
        (BOX, [0.0], r"shape \(2,\), got \(1,\)"),
        (BOX, [[0.0, 0.0]], r"shape \(2,\), got \(1, 2\)"),
        (BOX, [0.0, np.nan], r"finite numbers, got nan at \[1\]"),
        (BOX, [np.inf, 0.0], r"finite numbers, got inf at \[0\]"),
        (BOX, ["a", "b"], "finite numbers, got a"),
        (BOX, [[1.0], [1.0, 2.0]], "must be an array"),
        (BOX, None, "shape"),
        (SLOTS, 3, r"whole numbers of Discrete\(3\), got 3"),
        (SLOTS, -1, "got -1"),
        (SLOTS, 1.5, "got 1.5"),
        (SLOTS, None, "finite numbers, got None"),
        (SLOTS, [1], r"shape \(\), got \(1,\)"),
        (KNOBS, [0, 2], r"got 2 at \[1\]"),
        (KNOBS, [10**18, 0], r"at \[0\]"),
        (KNOBS, [0, 1, 0], "shape"),
    ],
)
def test_an_action_that_is_none_is_refused(space, action, message):
    with pytest.raises(ValueError, match=message):
        checked_actions(action, space)


def test_actions_come_in_the_dtype_of_the_space():
    assert checked_actions([2.0, 1], KNOBS).tolist() == [2, 1] and checked_actions([2.0, 1], KNOBS).dtype == np.int64
    assert checked_actions([[7, -9]], BOX, (1,)).tolist() == [[7.0, -9.0]]  # what clips it is the environment
    assert checked_actions(np.int32(2), SLOTS).shape == ()
    with pytest.raises(ValueError, match=r"shape \(4, 2\), got \(3, 2\)"):
        checked_actions(np.zeros((3, 2)), BOX, (4,))


ENVS = [
    "BatchQueue-v0",
    pytest.param("BatchQueue-v1", marks=pytest.mark.slow),
    pytest.param("IndexPolicy-v0", marks=pytest.mark.slow),
    "RequestSelection-v0",
    pytest.param("AgentNetwork-v0", marks=pytest.mark.slow),
    pytest.param("Cluster-v0", marks=pytest.mark.slow),
    pytest.param("Cluster-v1", marks=pytest.mark.slow),
]


def made(name, **more):
    return gym.make(f"llmsched/{name}", disable_env_checker=True, **more).unwrapped


@pytest.mark.parametrize("name", ENVS)
def test_steps_out_of_turn_are_refused_as_those_of_gymnasium(name):
    env = made(name, horizon=3.0)
    action = env.action_space.sample()
    with pytest.raises(ResetNeeded, match="before calling env.reset"):
        env.step(action)
    env.reset(seed=0)
    for wrong in (np.zeros((1, 4), int), np.zeros((1, 99)), "x", [[0]], np.full(env.action_space.shape, np.nan)):
        with pytest.raises(ValueError, match="action must"):
            env.step(wrong)
    ended = False
    while not ended:
        *_, terminated, truncated, _ = env.step(env.action_space.sample())
        ended = terminated or truncated
    with pytest.raises(ResetNeeded, match="after the end"):
        env.step(action)
    env.reset()
    env.step(action)


@pytest.mark.parametrize("name", ENVS)
def test_a_batch_of_actions_must_have_one_for_each_environment(name):
    envs = gym.make_vec(f"llmsched/{name}", num_envs=3, vectorization_mode="vector_entry_point")
    with pytest.raises(ResetNeeded):
        envs.step(envs.action_space.sample())
    envs.reset(seed=0)
    short = envs.action_space.sample()[:2]
    for wrong in (short, np.zeros((3, 77)), envs.action_space.sample()[None], None):
        with pytest.raises(ValueError, match="action must be of shape|finite numbers"):
            envs.step(wrong)
    envs.step(envs.action_space.sample())


@pytest.mark.parametrize("name", ENVS)
@pytest.mark.parametrize("again", [lambda env: pickle.loads(pickle.dumps(env)), copy.deepcopy], ids=["pickle", "copy"])
def test_an_environment_goes_on_where_it_was_pickled(name, again):
    env = made(name, horizon=4.0)
    env.reset(seed=3)
    env.action_space.seed(0)
    for _ in range(2):
        env.step(env.action_space.sample())
    twin = again(env)
    for _ in range(3):
        action = env.action_space.sample()
        ours, its = env.step(action), twin.step(action)
        assert np.array_equal(ours[0], its[0]) and ours[1:] == its[1:]
        if ours[2] or ours[3]:
            break
    assert np.array_equal(env.reset()[0], twin.reset()[0])


def test_a_vector_environment_goes_on_where_it_was_pickled():
    envs = gym.make_vec("llmsched/BatchQueue-v0", num_envs=2, vectorization_mode="vector_entry_point", horizon=4.0)
    envs.reset(seed=3)
    envs.step(envs.action_space.sample())
    envs.unwrapped.set_episodes(load=0.5, horizon=2.0)
    twin = pickle.loads(pickle.dumps(envs))
    for _ in range(20):
        actions = envs.action_space.sample()
        ours, its = envs.step(actions), twin.step(actions)
        assert all(np.array_equal(a, b) for a, b in zip(ours[:4], its[:4], strict=True))
