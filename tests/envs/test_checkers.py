import warnings

import gymnasium as gym
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env

import llmsched_env as ls


def test_every_registered_id_is_listed():
    registered = {name for name in gym.registry if name.startswith("llmsched/")}
    assert registered == set(ls.envs.ENV_IDS)


@pytest.mark.parametrize("env_id", ls.envs.ENV_IDS)
@pytest.mark.parametrize("kwargs", [{}, {"decision_interval": 0.1}, {"reward": "goodput"}, {"render_mode": "ansi"}])
def test_both_checkers_pass_without_a_warning(env_id, kwargs):
    env = gym.make(env_id, horizon=3.0, **kwargs).unwrapped
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env)
        sb3_check_env(env)


@pytest.mark.parametrize("env_id", ls.envs.ENV_IDS)
def test_spec_can_be_written_as_json(env_id):
    spec = gym.make(env_id, horizon=3.0, load=(0.5, 1.0), engine="llama-2-7b_a100-80gb_tp1").spec
    again = gym.envs.registration.EnvSpec.from_json(spec.to_json())
    env = gym.make(again)
    assert env.unwrapped.episodes.engine.name == "llama-2-7b_a100-80gb_tp1"
    assert env.unwrapped.episodes.load == (0.5, 1.0)


def test_registering_again_changes_nothing():
    before = dict(gym.registry)
    ls.envs.register_envs()
    assert gym.registry == before
