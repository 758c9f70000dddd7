"""What a copy of an environment takes, and to go back to it: one H100, azure-chat at load 0.9, episodes of 120 s.

The state is that in the middle of the episode. Medians of many calls, one after the other, on one core.
"""

import pickle
import timeit
from statistics import median

import gymnasium as gym

import llmsched_env  # noqa: F401  (registers the environments)

HORIZON, CALLS = 120.0, 1000  # s


def main() -> None:
    """Print one line: medians of clone_state and restore_state, and the size of a state."""
    env = gym.make("llmsched/BatchQueue-v1", load=0.9, horizon=HORIZON).unwrapped
    env.reset(seed=0)
    for _ in range(int(HORIZON)):  # of 0.5 s: half of it
        *_, info = env.step(env.numbers.neutral)
    state = env.clone_state()
    clone = median(timeit.repeat(env.clone_state, number=1, repeat=CALLS))
    restore = median(timeit.repeat(lambda: env.restore_state(state), number=1, repeat=CALLS))
    print(
        f"state: {1e6 * clone:.0f} us to clone, {1e6 * restore:.0f} us to restore, "
        f"{len(pickle.dumps(state)) / 1e6:.1f} MB, at {state.time:.0f} s of an episode of {HORIZON:.0f} s, "
        f"{info['num_in_system']} requests present"
    )


if __name__ == "__main__":
    main()
