import gymnasium as gym
import numpy as np
import pytest

import llmsched_env as ls
from llmsched_env.envs.batch_queue import BatchQueueEnv


@pytest.fixture
def small():
    """Keyword arguments of a small, busy environment: a toy engine, short requests, few seconds."""
    engine = ls.EngineConfig(ls.Staircase(c=0.01, a=0.02, b0=64), token_budget=2048)
    slo = ls.SLO(ttft=0.5, tpot=0.05)
    workload = ls.Workload.poisson(10.0, ls.dist.Uniform(1, 400), ls.dist.Geometric(20), horizon=20.0, slo=slo)
    return {"workload": workload, "engine": engine, "load": 0.9, "horizon": 10.0}


def run_episode(env: BatchQueueEnv, policy, seed: int):
    """Play one episode; returns (observations, rewards, last info, terminated, truncated)."""
    obs, _ = env.reset(seed=seed)
    observations, rewards = [obs], []
    while True:
        obs, reward, terminated, truncated, info = env.step(policy(obs))
        observations.append(obs)
        rewards.append(reward)
        if terminated or truncated:
            return np.array(observations), np.array(rewards), info, terminated, truncated


@pytest.fixture
def play():
    return run_episode


@pytest.fixture
def random_policy():
    """A random action sequence that depends on its seed alone."""

    def make(env: gym.Env, seed: int):
        rng = np.random.default_rng(seed)
        return lambda obs: rng.integers(env.action_space.nvec)

    return make
