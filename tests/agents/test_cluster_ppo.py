"""PPO in clusters where the best that a constant can do is known."""

import numpy as np
import pytest

from agents.problems.network_ppo import EPISODE_NUMBERS
from agents.sb3.environment import make_training_env
from agents.sb3.ppo import PPOSettings, make_model
from agents.training_budget import TrainingBudget
from baselines.routers import least_outstanding_tokens, random_router, round_robin
from llmsched_env.envs.cluster import ClusterEnv

FAST, SLOW = "llama-3.1-8b_h100-80gb_tp1_aic", "llama-3.1-8b_rtx4090-24gb_tp1_lss"
SETTING = {"engines": (SLOW, FAST), "load": 0.4, "horizon": 20.0}
SETTINGS = PPOSettings(n_steps=64, batch_size=512, learning_rate=1e-3, ent_coef=0.0, time_constant=10.0)


def trained(steps, interval=None, **kwargs):
    """A model that has learned from random weights for so many steps."""
    env = make_training_env(16, interval, SETTINGS.time_constant, "llmsched/Cluster-v0", EPISODE_NUMBERS, **kwargs)
    env.seed(0)
    budget = TrainingBudget(steps)
    model = make_model(env, interval, SETTINGS, budget, 0)
    budget.start()
    return model.learn(steps)


def mean_calls(choose, seeds=range(1000, 1006), **kwargs):
    """f8[seeds]: time average of the calls in the system."""
    values = []
    for seed in seeds:
        env = ClusterEnv(**kwargs)
        obs, _ = env.reset(seed=seed)
        over = False
        while not over:
            obs, _, terminated, truncated, info = env.step(choose(obs))
            over = terminated or truncated
        values.append(info["episode_mean_calls"])
    return np.array(values)


@pytest.mark.slow
def test_it_learns_to_send_all_calls_to_the_fast_engine():
    """At 0.4 of both, 0.47 of the fast one, the slow one (six times as slow) only makes calls wait for themselves."""
    model = trained(40_000, **SETTING)
    learned = mean_calls(lambda obs: int(model.predict(obs, deterministic=True)[0]), **SETTING)
    slow, fast = (mean_calls(lambda obs, engine=engine: engine, **SETTING) for engine in (0, 1))
    rng = np.random.default_rng(0)
    drawn = mean_calls(lambda obs: int(rng.integers(2)), **SETTING)
    assert fast.mean() < 0.8 * min(drawn.mean(), slow.mean())  # the best constant is known
    assert learned.mean() < 1.03 * fast.mean()


@pytest.mark.slow
def test_it_learns_which_router_is_best():
    arms = (random_router, round_robin, least_outstanding_tokens)
    setting = SETTING | {"load": 0.8, "routers": arms}
    model = trained(16_000, 1.0, **setting)
    setting["decision_interval"] = 1.0
    learned = mean_calls(lambda obs: int(model.predict(obs, deterministic=True)[0]), **setting)
    constants = [mean_calls(lambda obs, arm=arm: arm, **setting).mean() for arm in range(len(arms))]
    assert min(constants) < 0.8 * np.median(constants)
    assert learned.mean() < 1.03 * min(constants)
