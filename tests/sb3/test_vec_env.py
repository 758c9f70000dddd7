"""The adapter gives what Stable-Baselines3 expects, and what the native environment gave."""

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.vec_env import VecMonitor

from llmsched_env.envs.batch_queue import BatchQueueVectorEnv
from llmsched_env.sb3 import SB3VecEnv


@pytest.fixture
def short(small):
    return small | {"horizon": 1.0, "load": (0.5, 1.2), "decision_interval": 0.07}


def test_steps_are_those_of_the_native_environment(short):
    native, adapter = BatchQueueVectorEnv(5, **short), SB3VecEnv(BatchQueueVectorEnv(5, **short))
    assert adapter.seed(3) == [3, 4, 5, 6, 7]
    obs, _ = native.reset(seed=3)
    np.testing.assert_array_equal(adapter.reset(), obs)
    rng = np.random.default_rng(0)
    ended = 0
    for _ in range(50):
        actions = rng.integers(native.single_action_space.nvec, size=(5, 4))
        obs, rewards, terminated, truncated, batch = native.step(actions)
        seen, seen_rewards, dones, infos = adapter.step(actions)
        np.testing.assert_array_equal(seen, obs)
        np.testing.assert_array_equal(seen_rewards, rewards.astype(np.float32))
        np.testing.assert_array_equal(dones, terminated | truncated)
        for i in range(5):
            if not dones[i]:
                assert infos[i] == {}
                continue
            ended += 1
            np.testing.assert_array_equal(infos[i]["terminal_observation"], batch["final_obs"][i])
            assert infos[i]["TimeLimit.truncated"] is True
            assert infos[i]["episode_finished"] == batch["final_info"]["episode_finished"][i]
            assert 0 <= infos[i]["episode_good"] <= infos[i]["episode_finished"] <= infos[i]["episode_arrived"]
    assert ended == 5 * (50 // 15)  # 1 s is 15 ticks of 0.07 s, the last one shorter


def test_a_seed_holds_for_one_reset(short):
    adapter = SB3VecEnv(BatchQueueVectorEnv(2, **short))
    actions = np.zeros((2, 4), int)

    def episode():
        adapter.reset()
        return np.array([adapter.step(actions)[0] for _ in range(10)])

    adapter.seed(8)
    first, second = episode(), episode()
    adapter.seed(8)
    np.testing.assert_array_equal(episode(), first)
    assert not np.array_equal(first, second)


def test_an_episode_that_drains_is_not_a_time_limit(small):
    adapter = SB3VecEnv(BatchQueueVectorEnv(1, **small | {"horizon": None}, decision_interval=1.0))
    adapter.seed(0)
    adapter.reset()
    for _ in range(200):
        _, _, dones, infos = adapter.step(np.array([[2, 1, 0, 0]]))
        if dones[0]:
            break
    assert infos[0]["TimeLimit.truncated"] is False
    assert infos[0]["episode_finished"] == infos[0]["episode_arrived"] > 0


def test_monitored_returns_are_sums_of_rewards(short):
    env = VecMonitor(SB3VecEnv(BatchQueueVectorEnv(3, **short)), info_keywords=("episode_mean_in_system",))
    env.seed(1)
    env.reset()
    total = np.zeros(3)
    for step in range(1, 16):
        _, rewards, dones, infos = env.step(np.zeros((3, 4), int))
        total += rewards
        assert dones.all() == (step == 15)
    for i in range(3):
        assert infos[i]["episode"]["l"] == 15
        assert infos[i]["episode"]["r"] == pytest.approx(total[i], rel=1e-5)
        # The reward is minus the integral of the number in system, here over one second.
        assert infos[i]["episode"]["episode_mean_in_system"] == pytest.approx(-total[i], rel=1e-5)


def test_attributes_are_shared(short):
    adapter = SB3VecEnv(BatchQueueVectorEnv(3, **short))
    assert adapter.get_attr("knobs", [0, 2]) == [adapter.env.knobs] * 2
    assert adapter.env_is_wrapped(gym.Wrapper) == [False] * 3
    with pytest.raises(NotImplementedError, match="knobs"):
        adapter.set_attr("knobs", None)
    with pytest.raises(NotImplementedError, match="render"):
        adapter.env_method("render")


def test_another_autoreset_mode_is_refused():
    with pytest.raises(ValueError, match="SAME_STEP"):
        SB3VecEnv(gym.make_vec("CartPole-v1", num_envs=2, vectorization_mode="vector_entry_point"))
