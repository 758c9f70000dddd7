"""Tiny models of every algorithm, each in an environment that it can learn in."""

from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from sb3_contrib import MaskablePPO
from stable_baselines3 import A2C, DQN, PPO, SAC, TD3
from stable_baselines3.common.vec_env import VecNormalize

import llmsched_env as ls
from llmsched_env.sb3 import SB3VecEnv

ROWS = ("requests", "batches", "batch_entries", "token_gaps")
TICKS = {"decision_interval": 0.1}
KNOBS = TICKS | {"token_budgets": (32.0, 64.0, 256.0), "admission_limits": (4.0, float("inf"))}
ARMS = KNOBS | {"arms": ((0, 0, 0, 0), (1, 1, 1, 0), (2, 1, 3, 1))}
SLOTS = {"slots": 5, "token_budget": 200.0}
ROLLOUT = {"n_steps": 16, "batch_size": 16}
REPLAY = {"learning_starts": 20, "batch_size": 16, "buffer_size": 500}


@dataclass(frozen=True)
class Case:
    """What is trained where."""

    algorithm: Any
    env: str
    env_arguments: dict[str, Any]
    options: dict[str, Any]
    policy: dict[str, Any] = field(default_factory=dict)
    normalized: bool = False


CASES = {
    "PPO": Case(PPO, "BatchQueue", KNOBS, ROLLOUT),
    "PPO, before every batch": Case(PPO, "BatchQueue", KNOBS | {"decision_interval": None}, ROLLOUT),
    "PPO with ReLU": Case(
        PPO, "BatchQueue", KNOBS, ROLLOUT, {"activation_fn": torch.nn.ReLU, "net_arch": {"pi": [16, 8], "vf": [4]}}
    ),
    "PPO without a hidden layer": Case(PPO, "IndexPolicy", TICKS, ROLLOUT, {"net_arch": []}),
    "PPO, normalized": Case(PPO, "BatchQueue", KNOBS, ROLLOUT, normalized=True),
    "A2C": Case(A2C, "IndexPolicy", TICKS, {}),
    "DQN": Case(DQN, "BatchQueue", ARMS, REPLAY),
    "DQN with Tanh, normalized": Case(
        DQN, "BatchQueue", ARMS, REPLAY, {"activation_fn": torch.nn.Tanh, "net_arch": [8]}, normalized=True
    ),
    "SAC": Case(SAC, "IndexPolicy", TICKS, REPLAY, {"net_arch": [16, 16]}),
    "SAC with ELU, normalized": Case(
        SAC, "IndexPolicy", TICKS, REPLAY, {"activation_fn": torch.nn.ELU, "net_arch": [16]}, normalized=True
    ),
    "TD3": Case(TD3, "IndexPolicy", TICKS, REPLAY, {"net_arch": [16]}),
    "MaskablePPO": Case(MaskablePPO, "RequestSelection", SLOTS, ROLLOUT),
    "MaskablePPO, normalized": Case(MaskablePPO, "RequestSelection", SLOTS, ROLLOUT, normalized=True),
}


def train(case: Case, runs: dict[str, Any], steps: int = 64) -> Any:
    """A model that has learned for some steps, and whose actions differ from observation to observation."""
    env = SB3VecEnv(gym.make_vec(f"llmsched/{case.env}-v0", num_envs=2, **runs, **case.env_arguments))
    if case.normalized:
        env = VecNormalize(env)
    model = case.algorithm("MlpPolicy", env, policy_kwargs=case.policy, seed=1, device="cpu", **case.options)
    model.learn(steps)
    noise = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for weights in model.policy.parameters():
            weights += 2.0 * torch.randn(weights.shape, generator=noise) / weights.shape[-1] ** 0.5
    return model


def episode(model: Any, case: Case, runs: dict[str, Any], seed: int = 4) -> tuple[ls.Workload, ls.Result, np.ndarray]:
    """The requests, the rows and the actions of an episode that the environment is stepped through with `predict`."""
    env = gym.make(f"llmsched/{case.env}-v0", **runs, **case.env_arguments, record="entries").unwrapped
    normalize = model.get_vec_normalize_env()
    obs, info = env.reset(seed=seed)
    workload = ls.Workload.from_table(env._runner.tables[0], "episode")
    actions, over = [], False
    while not over:
        masks = {"action_masks": info["action_mask"]} if case.algorithm is MaskablePPO else {}
        seen = obs if normalize is None else normalize.normalize_obs(obs)
        actions.append(model.predict(seen, deterministic=True, **masks)[0])
        obs, _, terminated, truncated, info = env.step(actions[-1])
        over = terminated or truncated
    return workload, env.result(), np.array(actions)


def same_rows(one: ls.Result, other: ls.Result) -> bool:
    """Whether all rows are the same to the byte."""
    return all(getattr(one, table).tobytes() == getattr(other, table).tobytes() for table in ROWS)
