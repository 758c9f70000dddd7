"""Speed of the native vector environment: 64 engines, one decision per batch, azure-chat lengths at load 0.9.

Observation, reward and autoreset are included. The action is that of Sarathi-Serve with a budget of 512.
"""

import time

import gymnasium as gym
import numpy as np

import llmsched_env  # noqa: F401  (registers the environments)

NUM_ENVS, STEPS, ROUNDS = 64, 3000, 5


def main() -> None:
    """Print one line: env-steps per second, best of several rounds, and what a round simulates."""
    env = gym.make_vec("llmsched/BatchQueue-v0", num_envs=NUM_ENVS, vectorization_mode="vector_entry_point", load=0.9)
    actions = np.tile(env.unwrapped.knobs.encode(token_budget=512), (NUM_ENVS, 1))
    env.reset(seed=0)
    best, episodes = np.inf, 0
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for _ in range(STEPS):
            _, _, terminated, truncated, _ = env.step(actions)
            episodes += int((terminated | truncated).sum())
        best = min(best, time.perf_counter() - start)
    print(
        f"vector env: {NUM_ENVS * STEPS / best:,.0f} env-steps/s on one core ({NUM_ENVS} envs, one decision per batch, "
        f"{episodes} episodes ended on the way)"
    )


if __name__ == "__main__":
    main()
