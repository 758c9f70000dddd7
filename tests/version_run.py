"""Run by `test_versions` on each version: a small simulation, compiled and interpreted, and steps of an environment."""

import hashlib
import json
import platform
from importlib.metadata import version

import gymnasium as gym
import numpy as np

import baselines
import llmsched_env as ls


def rows_digest(interpreted: bool) -> str:
    """Digest of all rows of one run with little memory, so that requests are preempted."""
    engine = ls.EngineConfig(ls.gpu_profile("llama-3.1-8b_h100-80gb_tp1_aic").batch_time, kv_blocks=120)
    workload = ls.preset("azure-chat", horizon=6.0).at_load(0.9, engine)
    result = ls.simulate(baselines.sarathi, workload, engine, seed=1, record="entries", interpreted=interpreted)
    digest = hashlib.sha256()
    for name in ("requests", "batches", "batch_entries", "token_gaps"):
        digest.update(getattr(result, name).tobytes())
    return digest.hexdigest()


def observed() -> list[float]:
    """Observation and reward after a few steps of an environment."""
    env = gym.make("llmsched/BatchQueue-v0", horizon=5.0)
    env.reset(seed=0)
    for _ in range(5):
        observation, reward, *_ = env.step(np.zeros(env.action_space.shape, np.int64))
    return [*np.round(observation, 6).tolist(), round(float(reward), 6)]


print(
    json.dumps(
        {
            "versions": [platform.python_version(), version("numba"), version("numpy")],
            "rows": rows_digest(interpreted=False),
            "interpreted": rows_digest(interpreted=True),
            "observed": observed(),
        }
    )
)
