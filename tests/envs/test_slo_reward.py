"""Reward `slo`: -1 for each request, once, as soon as it is certain to miss its SLO."""

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import llmsched_env as ls
from llmsched_env.results.metrics import within_limits
from tests.simulator.cases import memory_cases

ENVS = ("BatchQueue-v0", "BatchQueue-v1", "IndexPolicy-v0", "RequestSelection-v0")
SECOND = ls.EngineConfig(ls.Staircase(c=1.0, a=0.0, b0=1))  # every batch takes 1 s
NEUTRAL = np.zeros(12, np.float32)


def play(env, seed, actions):
    """Rewards of an episode of random actions, the last info, and whether it was truncated."""
    _, info = env.reset(seed=seed)
    env.action_space.seed(actions)
    rewards, done = [], False
    while not done:
        mask = info.get("action_mask")
        action = env.action_space.sample(mask) if mask is not None else env.action_space.sample()
        _, reward, terminated, truncated, info = env.step(action)
        rewards.append(reward)
        done = terminated or truncated
    return rewards, info, truncated


@pytest.mark.parametrize("env_id", ENVS)
@settings(max_examples=40, deadline=None)
@given(
    case=memory_cases(),
    horizon=st.none() | st.floats(0.1, 3.0),
    interval=st.none() | st.floats(0.05, 1.0),
    actions=st.integers(0, 2**16),
)
def test_rewards_sum_to_minus_the_requests_that_missed(env_id, case, horizon, interval, actions):
    """Also with preemption, rejection, timeouts and asynchronous scheduling; those undecided at the end count 0."""
    options = {} if env_id.startswith("RequestSelection") else {"decision_interval": interval}
    env = gym.make(
        f"llmsched/{env_id}", workload=case.workload, engine=case.engine, load=None, horizon=horizon, reward="slo",
        record="requests", disable_env_checker=True, **options,
    ).unwrapped  # fmt: skip
    rewards, info, truncated = play(env, 0, actions)
    assert set(np.unique(rewards)) <= {-float(k) for k in range(100)}
    rows = env.result().requests
    arrived = rows[rows.arrival <= info["time"]]
    good = int(np.count_nonzero(within_limits(arrived)))
    assert -sum(rewards) == info["episode_missed"]
    assert info["episode_good"] == good
    assert info["episode_missed"] + info["episode_undecided"] + good == info["episode_arrived"]
    if not truncated:
        unfinished = np.count_nonzero(rows.status == "active")  # where the scheduler is stuck
        assert len(rows) - good - unfinished <= info["episode_missed"] <= len(rows) - good
        assert info["episode_undecided"] <= unfinished


def rewarded(workload, **arguments):
    """(time, reward) of the steps of 0.5 s that pay anything, under the neutral action."""
    env = gym.make(
        "llmsched/BatchQueue-v1", workload=workload, engine=SECOND, load=None, disable_env_checker=True, **arguments
    )
    env.reset(seed=0)
    found, done = [], False
    while not done:
        _, reward, terminated, truncated, info = env.step(NEUTRAL)
        done = terminated or truncated
        if reward != 0:
            found.append((info["time"], reward))
    return found, info


def test_a_late_first_token_is_paid_when_its_deadline_has_passed():
    # First token at 1 s, due at 0.7 s: known at the tick of 1 s. The request goes on to 5 s.
    workload = ls.Workload.from_arrays([0.0], [4], [5], slo=ls.SLO(ttft=0.7, tpot=9))
    assert rewarded(workload, horizon=None)[0] == [(1.0, -1.0)]
    assert rewarded(workload, horizon=0.75)[0] == [(0.75, -1.0)]  # passed, though the token is not there


def test_a_lost_tpot_target_is_paid_as_soon_as_the_true_length_cannot_save_it():
    # Tokens at 1, 2, ..., 6 s where 0.5 s a token are allowed: 2.5 s after the first one, so from 4 s on it is lost.
    workload = ls.Workload.from_arrays([0.0], [4], [6], slo=ls.SLO(ttft=9, tpot=0.5))
    found, info = rewarded(workload, horizon=None)
    assert found == [(4.0, -1.0)]
    assert (info["episode_missed"], info["episode_undecided"], info["episode_good"]) == (1, 0, 0)
    found, info = rewarded(workload, horizon=3.2)
    assert found == []
    assert (info["episode_missed"], info["episode_undecided"]) == (0, 1)


def test_what_is_turned_away_or_given_up_has_missed():
    engine = ls.EngineConfig(SECOND.batch_time, kv_blocks=2, block_size=4)
    too_long = ls.Workload.from_arrays([0.0, 0.0], [4, 40], [2, 2], slo=ls.SLO(ttft=9, tpot=9))
    env = gym.make("llmsched/BatchQueue-v1", workload=too_long, engine=engine, load=None, horizon=None)
    env.reset(seed=0)
    assert env.step(NEUTRAL)[1] == -1.0
