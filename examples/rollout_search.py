"""Rollout search on BatchQueue: try every setting from the present state, simulate what follows, take the best.

At each decision the state of the episode is copied into every slot of a vector environment. Slot k takes action k, and
then the best constant action to the end of the episode. The action whose requests fare best is taken. This is one step
of policy iteration from the best constant action (D. Bertsekas, "Rollout, Policy Iteration, and Distributed
Reinforcement Learning", 2020), so its result is never worse.

The rollouts know the requests to come, which no server does. So this is no scheduler to deploy: it shows how much
better decisions by the state can be than the best constant action, which is chosen in hindsight as well.
"""

from itertools import product

import numpy as np

from llmsched_env.envs.batch_queue import ORDERS, BatchQueueEnv, BatchQueueVectorEnv

SETTING = {"workload": "sharegpt-chat", "load": 0.95, "decision_interval": 2.0, "reward": "goodput"}  # on one H100
BUDGETS = (256, 512, 1024, 2048)  # tokens in a batch


def run(env: BatchQueueEnv, action: np.ndarray) -> tuple[int, int]:
    """Requests, and those within their targets, when `action` is taken from here to the end."""
    while True:
        *_, ended, info = env.step(action)
        if ended:
            return info["episode_arrived"], info["episode_good"]


def roll_out(slots: BatchQueueVectorEnv, first: np.ndarray, then: np.ndarray) -> np.ndarray:
    """f8[slots]: the same of every slot with an action of its own in `first`, and then with that of `then`."""
    good, ended = np.zeros(slots.num_envs), False
    actions = first
    while not ended:
        _, rewards, _, truncated, _ = slots.step(actions)
        good += rewards
        actions, ended = then, bool(truncated.any())  # all at once, as they are at the same time
    return good


def search(env: BatchQueueEnv, slots: BatchQueueVectorEnv, actions: np.ndarray, base: int, seed: int) -> int:
    """Requests within their targets when every decision is the best one by rollouts that end with `actions[base]`."""
    env.reset(seed=seed)
    slots.reset(seed=0)  # whatever they hold is overwritten
    then = np.tile(actions[base], (len(actions), 1))
    while True:
        state = env.clone_state()
        for k in range(len(actions)):
            slots.restore_state(k, state)
        good = roll_out(slots, actions, then)
        best = base if good[base] == good.max() else int(good.argmax())
        *_, ended, info = env.step(actions[best])
        if ended:
            return info["episode_good"]


def main(horizon: float = 60.0, seeds: int = 3) -> list[tuple[int, int, int]]:
    """Print and return, of each episode: requests, those within targets by the best constant action and by search."""
    env = BatchQueueEnv(**SETTING, horizon=horizon)
    settings = product(BUDGETS, ORDERS, (False, True))
    actions = np.array([env.knobs.encode(token_budget=b, order=o, hold_prefill=h) for b, o, h in settings])
    slots = BatchQueueVectorEnv(**SETTING, horizon=horizon, num_envs=len(actions))
    rows = []
    for seed in range(seeds):
        env.reset(seed=seed)
        start, constant = env.clone_state(), []
        for action in actions:
            env.restore_state(start)
            requests, good = run(env, action)
            constant.append(good)
        base = int(np.argmax(constant))
        found = search(env, slots, actions, base, seed)
        rows.append((requests, constant[base], found))
        good = f"{constant[base]} by the best constant action, {found} by search"
        print(f"episode {seed}: of {requests} requests within their targets: {good}")
    arrived, least, most = np.sum(rows, axis=0)
    print(f"misses: {arrived - least} to {arrived - most}, {1 - (arrived - most) / (arrived - least):.0%} fewer")
    return rows


if __name__ == "__main__":
    main()
