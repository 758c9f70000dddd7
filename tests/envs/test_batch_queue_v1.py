import gymnasium as gym
import numpy as np
import pytest

import llmsched_env as ls
from llmsched_env.envs.batch_queue_v1 import PAUSING, RANGES, BatchQueueV1Env, QueueNumbers
from llmsched_env.envs.outlook import AHEAD_FEATURES
from llmsched_env.features import names
from llmsched_env.policies.index import index
from tests.envs.test_batch_queue import workload_of


@pytest.mark.parametrize("pausing", [False, True])
def test_constant_action_is_the_index_policy_bit_for_bit(small, play, pausing):
    env = BatchQueueV1Env(**small, pausing=pausing, record="entries")
    rng = np.random.default_rng(0)
    for seed, action in enumerate([env.numbers.neutral, *rng.uniform(-1, 1, (2, *env.action_space.shape))]):
        play(env, lambda obs, action=action: action.astype(np.float32), seed=seed)
        ours = env.result()
        scheduler = index(**env.numbers.values(action.astype(np.float32)))
        theirs = ls.simulate(scheduler, workload_of(env, seed), env.episodes.engine, horizon=10.0, record="entries")
        assert len(ours.requests) > 50
        for table in ("requests", "batches", "batch_entries", "token_gaps"):
            assert getattr(ours, table).tobytes() == getattr(theirs, table).tobytes(), table


def test_neutral_serves_in_order_of_arrival_in_steps_below_the_tpot_target(small, play):
    engine = ls.EngineConfig(ls.Hinge(c=0.01, a=1e-3, b0=1), token_budget=2048)
    env = BatchQueueV1Env(**small | {"engine": engine}, slo=(100.0, 0.2), record="batches")  # no first token is late
    play(env, lambda obs: env.numbers.neutral, seed=0)
    rows, batches = env.result().requests, env.result().batches
    scheduled = rows.first_scheduled[~np.isnan(rows.first_scheduled)]
    assert len(scheduled) > 20
    assert (np.diff(scheduled) >= 0).all()
    mixed = batches[(batches.decode_tokens > 0) & (batches.prefill_tokens > 64)]
    assert len(mixed) > 10
    assert 0.17 < mixed.duration.max() <= 0.9 * 0.2 + 1e-9


@pytest.mark.parametrize("pausing", [False, True])
def test_ends_of_the_range_neutral_and_back(pausing):
    numbers = QueueNumbers(pausing)
    ranges = RANGES | (PAUSING if pausing else {})
    assert numbers.names == tuple(ranges)
    for at, end in ((-1.0, "low"), (0.0, "neutral"), (1.0, "high")):
        values = numbers.values(np.full(len(numbers.names), at, np.float32))
        assert values.pop("decline") == max(0.0, values["outside"])  # what was put off stays so
        assert values == pytest.approx({name: getattr(ranges[name], end) for name in ranges}, rel=1e-12)
    assert numbers.encode().tolist() == [0.0] * len(ranges)
    action = np.random.default_rng(0).uniform(0.01, 1, len(ranges)).astype(np.float32)
    np.testing.assert_allclose(numbers.encode(**numbers.values(action)), action, rtol=1e-5)
    with pytest.raises(ValueError, match="step_share must be a finite number >= 0.3 and <= 3"):
        numbers.encode(step_share=10)
    with pytest.raises(ValueError, match="number must be one of"):
        numbers.encode(by_colour=1)


def test_knobs_are_another_action_mode(small, play):
    env = BatchQueueV1Env(**small, actions="knobs", record="entries")
    assert env.action_space == gym.make("llmsched/BatchQueue-v0").action_space
    assert env.observation_space.shape == (len(AHEAD_FEATURES),)
    play(env, lambda obs: env.numbers.encode(token_budget=512), seed=5)
    old = gym.make("llmsched/BatchQueue-v0", **small, decision_interval=0.5, record="entries").unwrapped
    play(old, lambda obs: old.knobs.encode(token_budget=512), seed=5)
    assert env.result().requests.tobytes() == old.result().requests.tobytes()
    with pytest.raises(ValueError, match="pausing must be False with actions='knobs'"):
        BatchQueueV1Env(**small, actions="knobs", pausing=True)
    with pytest.raises(ValueError, match="actions must be one of"):
        BatchQueueV1Env(**small, actions="levers")


def test_what_is_predicted_by_hand():
    """Batches take 0.25 s a started 4 tokens; at 1 s request 0 decodes, and 1 and 2 wait behind a prompt of 16."""
    law = ls.Staircase(c=0.0, a=0.25, b0=4)
    engine = ls.EngineConfig(law, token_budget=4, kv_blocks=40, block_size=4)
    arrival, prompt, output = [0.0, 0.1, 0.9, 0.9], [4, 16, 4, 4096], [100, 10, 10, 10]
    workload = ls.Workload.from_arrays(arrival, prompt, output, slo=ls.SLO(ttft=2.0, tpot=0.5))
    env = BatchQueueV1Env(workload, engine, load=None, horizon=9.0, decision_interval=1.0)
    env.reset(seed=0)
    obs = env.step(env.numbers.neutral)[0]
    seen = dict(zip(names(AHEAD_FEATURES), obs.tolist(), strict=True))
    assert seen["waiting"] == pytest.approx(np.log1p(2 - 1) / np.log1p(4096))  # 4096 tokens exceed the KV cache
    assert seen["waiting_hopeless"] == 0.0
    assert seen["decode_step"] == pytest.approx(0.25 / 0.75)
    assert 0 < seen["prefill_ahead"] < 1
    assert 0 < seen["kv_growth"] < 1


def test_observations_do_not_depend_on_true_lengths(small, play):
    """Two workloads that differ only in the true lengths of requests that have not finished look the same."""
    rng = np.random.default_rng(0)
    arrival, prompt = np.sort(rng.uniform(0, 2, 40)), rng.integers(1, 400, 40)
    guess, truth = np.full(40, 30.0), rng.integers(60, 90, 40)
    seen = []
    for output in (truth, truth + 7):
        workload = ls.Workload.from_arrays(
            arrival, prompt, output, predicted_output=guess, slo=ls.SLO(ttft=0.5, tpot=0.05)
        )
        env = BatchQueueV1Env(workload, small["engine"], load=None, horizon=1.5, decision_interval=0.1)
        seen.append(play(env, lambda obs, env=env: env.numbers.neutral, seed=0)[0])
    assert np.array_equal(*seen)
    assert seen[0].std(axis=0).max() > 0.1
