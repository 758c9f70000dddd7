import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env

import llmsched_env as ls


def test_every_registered_id_is_listed():
    registered = {name for name in gym.registry if name.startswith("llmsched/")}
    assert registered == set(ls.envs.ENV_IDS)


VARIANTS = {
    "llmsched/BatchQueue-v0": [{}, {"decision_interval": 0.1}, {"reward": "goodput"}, {"render_mode": "ansi"}],
    "llmsched/BatchQueue-v1": [
        {},
        {"pausing": True, "decision_interval": None},
        {"actions": "knobs", "render_mode": "ansi"},
    ],
    "llmsched/IndexPolicy-v0": [{}, {"decision_interval": 0.1, "reward": "goodput", "render_mode": "ansi"}],
    "llmsched/RequestSelection-v0": [
        {},
        {"reward": "goodput", "slots": 4, "token_budget": 256, "render_mode": "ansi"},
        {"work_conserving": True, "load": 1.5},
    ],
    "llmsched/AgentNetwork-v0": [
        {"horizon": 200.0},
        {"decision_interval": 0.5},
        {"horizon": 90.0, "reward": "calls", "render_mode": "ansi"},
    ],
    "llmsched/Cluster-v1": [{}, {"engines": ["llama-2-7b_a100-80gb_tp1"] * 2, "reward": "slo", "render_mode": "ansi"}],
    "llmsched/Cluster-v0": [{}, {"engines": ["llama-2-7b_a100-80gb_tp1"]}, {"reward": "tasks", "render_mode": "ansi"}],
}


@pytest.mark.parametrize(
    ("env_id", "kwargs"), [(env_id, kwargs) for env_id in ls.envs.ENV_IDS for kwargs in VARIANTS[env_id]]
)
def test_both_checkers_pass_without_a_warning(env_id, kwargs):
    env = gym.make(env_id, **{"horizon": 3.0} | kwargs).unwrapped
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env)
        sb3_check_env(env)


def test_spec_can_be_written_as_json():
    spec = gym.make("llmsched/BatchQueue-v0", horizon=3.0, load=(0.5, 1.0), engine="llama-2-7b_a100-80gb_tp1").spec
    again = gym.envs.registration.EnvSpec.from_json(spec.to_json())
    env = gym.make(again)
    assert env.unwrapped.episodes.engine.name == "llama-2-7b_a100-80gb_tp1"
    assert env.unwrapped.episodes.load == (0.5, 1.0)


@pytest.mark.parametrize(
    ("env_id", "kwargs"),
    [
        ("llmsched/IndexPolicy-v0", {"load": 0.7, "horizon": 3.0, "decision_interval": 0.2}),
        ("llmsched/RequestSelection-v0", {"load": 0.7, "horizon": 3.0, "slots": 3, "max_num_seqs": 8}),
        ("llmsched/AgentNetwork-v0", {"load": 0.7, "horizon": 40.0, "decision_interval": 5.0}),
        ("llmsched/Cluster-v0", {"load": (0.5, 1.0), "horizon": 3.0, "engines": ["llama-2-7b_a100-80gb_tp1"] * 2}),
    ],
)
def test_an_environment_made_again_from_its_json_is_the_same(env_id, kwargs):
    env = gym.make(env_id, **kwargs)
    again = gym.make(gym.envs.registration.EnvSpec.from_json(env.spec.to_json()))
    first, second = env.reset(seed=1), again.reset(seed=1)
    for _ in range(5):
        np.testing.assert_array_equal(first[0], second[0])
        first, second = env.step(env.action_space.sample() * 0), again.step(env.action_space.sample() * 0)
        np.testing.assert_equal(first[1:], second[1:])


def test_registering_again_changes_nothing():
    before = dict(gym.registry)
    ls.envs.register_envs()
    assert gym.registry == before
