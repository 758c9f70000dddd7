import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from llmsched_env.envs.batch_queue import BatchQueueEnv, BatchQueueVectorEnv


def make_vec(num_envs, **kwargs):
    return gym.make_vec("llmsched/BatchQueue-v0", num_envs=num_envs, vectorization_mode="vector_entry_point", **kwargs)


def test_make_vec_gives_the_native_environment():
    env = gym.make_vec("llmsched/BatchQueue-v0", num_envs=3, horizon=3.0)
    assert isinstance(env, BatchQueueVectorEnv)
    assert env.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    obs, infos = env.reset(seed=0)
    assert env.observation_space.contains(obs) and env.action_space.contains(env.action_space.sample())
    assert infos["time"].shape == (3,) and infos["_time"].all()


@pytest.mark.parametrize("interval", [None, 0.05])
def test_env_i_of_64_is_the_single_env_of_its_seed(small, interval):
    """Through several episodes with different actions everywhere, values are equal to the last bit."""
    kwargs = small | {"horizon": 2.0, "load": (0.5, 1.2), "decision_interval": interval}
    vector = make_vec(64, **kwargs)
    obs, _ = vector.reset(seed=7)
    singles = {i: BatchQueueEnv(**kwargs) for i in (0, 1, 17, 63)}
    for i, single in singles.items():
        np.testing.assert_array_equal(single.reset(seed=7 + i)[0], obs[i])
    rng = np.random.default_rng(0)
    episodes = dict.fromkeys(singles, 0)
    for _ in range(200):
        actions = rng.integers(vector.single_action_space.nvec, size=(64, 4))
        obs, rewards, terminated, truncated, infos = vector.step(actions)
        for i, single in singles.items():
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
    assert min(episodes.values()) >= 2


def test_an_environment_does_not_depend_on_how_many_there_are(small):
    few, many = make_vec(2, **small), make_vec(9, **small)
    first, _ = few.reset(seed=3)
    second, _ = many.reset(seed=3)
    for _ in range(300):
        np.testing.assert_array_equal(first, second[:2])
        first = few.step(np.zeros((2, 4), int))[0]
        second = many.step(np.zeros((9, 4), int))[0]


def test_same_step_autoreset(small):
    env = make_vec(4, **small | {"horizon": 1.0, "decision_interval": 0.3})
    env.reset(seed=0)
    actions = np.tile(env.unwrapped.knobs.encode(), (4, 1))
    for _ in range(3):
        _, _, terminated, truncated, infos = env.step(actions)
        assert not (terminated | truncated).any() and "final_obs" not in infos
    obs, rewards, terminated, truncated, infos = env.step(actions)
    assert truncated.all() and not terminated.any()
    assert infos["_final_obs"].all() and infos["final_info"]["_episode_arrived"].all()
    assert (infos["final_info"]["time"] == 1.0).all()
    assert not np.array_equal(np.stack(infos["final_obs"]), obs)
    _, _, _, truncated, infos = env.step(actions)
    assert not truncated.any() and (infos["time"] == 0.3).all()


def test_what_a_step_returned_is_not_overwritten_by_the_next(small):
    env = make_vec(3, **small)
    obs, infos = env.reset(seed=0)
    kept = obs.copy(), {k: v.copy() for k, v in infos.items()}
    actions = np.zeros((3, 4), int)
    obs2, rewards2, *_ = env.step(actions)
    kept2 = obs2.copy(), rewards2.copy()
    env.step(actions)
    np.testing.assert_array_equal(obs, kept[0])
    np.testing.assert_array_equal(obs2, kept2[0])
    np.testing.assert_array_equal(rewards2, kept2[1])
    assert all(np.array_equal(infos[k], v) for k, v in kept[1].items())


def test_reset_without_a_seed_goes_on_with_the_generators(small):
    env = make_vec(2, **small)
    first, _ = env.reset(seed=5)
    again, _ = env.reset()
    replay, _ = env.reset(seed=5)
    np.testing.assert_array_equal(first, replay)
    tables = [table.arrival for table in env.unwrapped._runner.tables]
    env.reset()
    assert not np.array_equal(tables[0][:5], env.unwrapped._runner.tables[0].arrival[:5])


def test_seeds_may_be_given_one_by_one(small):
    env = make_vec(2, **small)
    obs, _ = env.reset(seed=[11, 4])
    np.testing.assert_array_equal(obs[1], BatchQueueEnv(**small).reset(seed=4)[0])
    with pytest.raises(ValueError, match="seed must be .* 2 environments, got 3"):
        env.reset(seed=[1, 2, 3])


def test_episodes_that_need_more_room_than_the_first_ones(small):
    """The world grows while other environments are in the middle of an episode; nobody notices."""
    kwargs = small | {"load": (0.2, 3.0), "horizon": 3.0, "decision_interval": 0.5}
    vector = make_vec(5, **kwargs)
    singles = [BatchQueueEnv(**kwargs) for _ in range(5)]
    obs, _ = vector.reset(seed=0)
    for i, single in enumerate(singles):
        single.reset(seed=i)
    sizes = set()
    for step in range(120):
        actions = np.full((5, 4), [4, 5, step % 4, 0])
        obs, rewards, _, truncated, _ = vector.step(actions)
        sizes.add(vector.unwrapped._runner.simulator.capacity)
        for i, single in enumerate(singles):
            _, reward, _, done, _ = single.step(actions[i])
            assert reward == rewards[i]
            if done:
                single.reset()
    assert len(sizes) > 1
