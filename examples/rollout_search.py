"""Rollout search on BatchQueue: try many actions from the present state, simulate what follows, take the best.

At each decision the state of the episode is copied into every slot of a vector environment. Slot k takes action k, and
then the best constant action until all requests have left. The action after which the fewest miss their SLO is taken.
This is one step of policy iteration from the best constant action (D. Bertsekas, "Rollout, Policy Iteration, and
Distributed Reinforcement Learning", 2020), so its result is never worse.

The rollouts know the requests to come, which no server does. So this is no scheduler to deploy: it shows how much
better decisions by the state can be than the best constant action, which is chosen in hindsight as well.
"""

from itertools import product

import gymnasium as gym
import numpy as np

import llmsched_env as ls

SECONDS = 60.0  # of arrivals; an episode ends when the last request has left
LOAD = 1.1  # a rush: more than one H100, the default engine, can serve within the targets


def candidates(env: gym.Env) -> np.ndarray:
    """f4[actions, numbers]: the neutral action, and 24 orders of the queue and lengths of steps."""
    numbers = env.numbers
    grid = product((0, 1), (0, 4), (0, 10), (0.6, 0.9, 1.5))
    orders = [numbers.encode(by_length=b, by_slack=s, late=late, step_share=share) for b, s, late, share in grid]
    return np.array([numbers.neutral, *orders])


def constant(env: gym.Env, action: np.ndarray) -> dict:
    """The last info when `action` is taken from here to the end."""
    while True:
        *_, ended, _, info = env.step(action)
        if ended:
            return info


def roll_out(slots: gym.vector.VectorEnv, first: np.ndarray, then: np.ndarray) -> np.ndarray:
    """f8[slots]: requests that miss their SLO from here on when each slot takes its action of `first`, then `then`."""
    missed, going_on, actions = np.zeros(slots.num_envs), np.ones(slots.num_envs, bool), first
    while going_on.any():
        _, rewards, ended, _, _ = slots.step(actions)
        missed -= rewards * going_on
        going_on &= ~ended
        actions = then
    return missed


def search(env: gym.Env, slots: gym.vector.VectorEnv, actions: np.ndarray, base: int) -> dict:
    """The last info when each action is the best one by rollouts that end with `actions[base]`."""
    then = np.tile(actions[base], (len(actions), 1))
    while True:
        state = env.clone_state()
        for k in range(len(actions)):
            slots.restore_state(k, state)
        missed = roll_out(slots, actions, then)
        best = base if missed[base] == missed.min() else int(missed.argmin())
        *_, ended, _, info = env.step(actions[best])
        if ended:
            return info


def main(seconds: float = SECONDS, episodes: int = 3) -> list[tuple[int, int, int]]:
    """Print and return the misses of each episode: by the neutral action, the best constant one, and search."""
    workload = ls.preset("sharegpt-chat", horizon=seconds)
    setting = {"workload": workload, "load": LOAD, "horizon": None, "decision_interval": 2.0, "reward": "slo"}
    env = gym.make("llmsched/BatchQueue-v1", **setting).unwrapped
    actions = candidates(env)
    slots = gym.make_vec(
        "llmsched/BatchQueue-v1", num_envs=len(actions), vectorization_mode="vector_entry_point", **setting
    ).unwrapped
    slots.reset(seed=0)  # every state that it holds is overwritten
    rows = []
    for episode in range(episodes):
        env.reset(seed=episode)
        start, missed = env.clone_state(), []
        for action in actions:
            env.restore_state(start)
            missed.append(constant(env, action)["episode_missed"])
        env.restore_state(start)
        info = search(env, slots, actions, base=int(np.argmin(missed)))
        rows.append((missed[0], min(missed), info["episode_missed"]))
        ways = "neutral {}, best constant action {}, search {}".format(*rows[-1])
        print(f"episode {episode}, misses of {info['episode_arrived']} requests: {ways}")
    neutral, best, found = np.sum(rows, axis=0)
    print(f"all: neutral {neutral}, best constant action {best}, search {found}: {1 - found / best:.0%} fewer")
    return rows


if __name__ == "__main__":
    main()
