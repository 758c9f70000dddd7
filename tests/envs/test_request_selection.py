import gymnasium as gym
import numpy as np
import pytest

import baselines
import llmsched_env as ls
from llmsched_env.envs.features import NUM_FEATURES
from llmsched_env.envs.request_selection import (
    BATCH_FEATURES,
    SLOT_FEATURES,
    RequestSelectionEnv,
    RequestSelectionVectorEnv,
    selected,
)
from llmsched_env.results import metrics

ROWS = ("requests", "batches", "batch_entries", "token_gaps")
SECOND = ls.EngineConfig(ls.Staircase(c=1.0, a=0.0, b0=1))  # every batch takes 1 s


def at_once(prompts, outputs=None, **columns):
    """Requests that are all there at time 0."""
    return ls.Workload.from_arrays([0.0] * len(prompts), prompts, outputs or [1] * len(prompts), **columns)


def slot(obs, k):
    """The features of slot `k` by name."""
    at = NUM_FEATURES + len(BATCH_FEATURES) + k * len(SLOT_FEATURES)
    return dict(zip((f.name for f in SLOT_FEATURES), obs[at : at + len(SLOT_FEATURES)].tolist(), strict=True))


def allowed(env):
    return np.flatnonzero(env.action_masks()).tolist()


@pytest.mark.parametrize("slots", [1, 16])
@pytest.mark.parametrize(
    "variant", [{}, {"kv_blocks": 60}, {"kv_blocks": 90, "schedule_ahead": 1}, {"max_num_seqs": 6}]
)
def test_picking_the_first_slot_is_sarathi_bit_for_bit(small, play, variant, slots):
    engine = ls.EngineConfig(ls.Staircase(c=0.01, a=0.02, b0=64), token_budget=2048, **variant)
    env = RequestSelectionEnv(
        **small | {"engine": engine, "load": 1.2}, slots=slots, token_budget=300, record="entries"
    )
    play(env, lambda obs: 0, seed=5)
    workload = ls.Workload.from_table(env._runner.tables[0], "episode")
    theirs = ls.simulate(baselines.sarathi(token_budget=300), workload, engine, horizon=10.0, record="entries")
    assert len(theirs.requests) > 50
    if "kv_blocks" in variant:
        assert theirs.requests.preemptions.sum() > 0
    for table in ROWS:
        assert getattr(env.result(), table).tobytes() == getattr(theirs, table).tobytes(), table


def test_picking_the_shortest_prompt_is_shortest_prompt_first(small, play):
    env = RequestSelectionEnv(**small | {"load": 1.1}, slots=1024, token_budget=300, record="entries")
    prompts = slice(NUM_FEATURES + len(BATCH_FEATURES) + 1, None, len(SLOT_FEATURES))

    def shortest(obs):
        mask = env.action_masks()
        return int(np.argmin(np.where(mask[:-1], obs[prompts], np.inf))) if mask[:-1].any() else 1024

    play(env, shortest, seed=2)
    workload = ls.Workload.from_table(env._runner.tables[0], "episode")
    rule = ls.envs.batch_queue.parametric(token_budget=300, order=1)
    theirs = ls.simulate(rule, workload, small["engine"], horizon=10.0, record="entries")
    assert env.result().requests.tobytes() == theirs.requests.tobytes()


def test_choices_slots_and_masks_of_a_case_worked_by_hand():
    workload = at_once([30, 10, 50, 20], [2, 2, 2, 2], slo=ls.SLO(ttft=1.5))
    env = RequestSelectionEnv(workload, SECOND, load=None, horizon=None, slots=2, token_budget=60, record="entries")
    obs, info = env.reset(seed=0)
    assert allowed(env) == [0, 1]  # of an empty batch one must be served
    assert info["action_mask"].tolist() == [True, True, False]
    assert slot(obs, 0)["prompt_left"] == pytest.approx(np.log1p(30) / np.log1p(131072))
    assert slot(obs, 0)["slack"] == pytest.approx(0.5 + 0.5 * np.log1p(1500) / np.log1p(600000))
    assert (slot(obs, 0)["whole"], slot(obs, 0)["known_output"], obs[NUM_FEATURES]) == (1, 0, 1)
    obs, reward, *_, info = env.step(1)  # the prompt of 10
    assert (reward, info["time"], allowed(env)) == (0.0, 0.0, [0, 1, 2])
    assert obs[NUM_FEATURES] == np.float32(50 / 60)
    assert slot(obs, 1)["prompt_left"] == pytest.approx(np.log1p(50) / np.log1p(131072))
    assert slot(obs, 1)["whole"] == 1
    obs, reward, *_, info = env.step(0)  # the prompt of 30; 20 tokens are free
    assert (reward, info["time"], slot(obs, 0)["whole"], slot(obs, 1)["whole"]) == (0.0, 0.0, 0, 1)
    obs, reward, *_, info = env.step(1)  # the prompt of 20: the batch is full and runs
    assert (reward, info["time"]) == (-4.0, 1.0)
    # Three decode. The last one waits: its prompt of 50 fits the 57 tokens that are free.
    assert allowed(env) == [0, 2] and slot(obs, 1)["present"] == 0
    assert obs[NUM_FEATURES + 1] == np.float32(3 / 60)
    obs, reward, *_, info = env.step(2)  # hold it back
    assert (reward, info["time"]) == (-4.0, 2.0)
    assert slot(obs, 0)["slack"] == pytest.approx(0.5 - 0.5 * np.log1p(500) / np.log1p(600000))
    assert allowed(env) == [0]
    _, reward, terminated, _, info = env.step(2)  # "done" is not allowed: it counts as the first slot
    assert (terminated, info["time"], reward) == (True, 4.0, -2.0)
    assert allowed(env) == [2]
    entries = env.result().batch_entries
    expected = [(0, 1, 10), (0, 0, 30), (0, 3, 20), (1, 0, 1), (1, 1, 1), (1, 3, 1), (2, 2, 50), (3, 2, 1)]
    # Running requests decode in the order in which they were admitted: 1, 0, 3.
    assert sorted((e.batch, e.request, e.tokens) for e in entries) == sorted(expected)


def test_work_conserving_allows_done_only_where_nothing_fits(small):
    env = RequestSelectionEnv(**small | {"load": 1.5}, slots=3, work_conserving=True)
    env.reset(seed=0)
    rng, over = np.random.default_rng(0), False
    while not over:
        mask = env.action_masks()
        assert mask[-1] == (not mask[:-1].any())
        _, _, terminated, over, _ = env.step(int(rng.choice(np.flatnonzero(mask))))
    assert not terminated and mask.any()


def test_memory_and_seats_are_in_the_mask():
    engine = ls.EngineConfig(ls.Staircase(c=1.0, a=0.0, b0=1), kv_blocks=4, block_size=16)
    env = RequestSelectionEnv(at_once([40, 20, 16], [3, 3, 3]), engine, load=None, horizon=None, slots=3)
    env.reset(seed=0)
    assert allowed(env) == [0, 1, 2]
    env.step(0)  # takes three of four blocks: only the prompt of 16 fits
    assert allowed(env) == [1, 3]
    env = RequestSelectionEnv(at_once([4, 4, 4], [3, 3, 3]), SECOND, load=None, horizon=None, slots=3, max_num_seqs=2)
    env.reset(seed=0)
    env.step(2)
    assert allowed(env) == [0, 1, 3]
    *_, info = env.step(0)  # no seat is left until the two have left
    assert info["time"] == 3.0 and allowed(env) == [0]


@pytest.mark.parametrize("seed", [0, 1])
def test_no_reward_is_lost_between_choices(small, play, seed):
    env = RequestSelectionEnv(**small, slots=4, token_budget=200, record="requests")
    rng = np.random.default_rng(seed)
    times = []

    def policy(obs):
        times.append(env._runner.simulator.clock(0))
        return int(rng.integers(5))  # any action, allowed or not

    observations, rewards, info, _, _ = play(env, policy, seed)
    integral = metrics.integral_in_system(env.result().requests, 0.0, 10.0)
    assert -rewards.sum() == pytest.approx(integral, rel=1e-9)
    assert all(env.observation_space.contains(obs) for obs in observations)
    waits = np.diff([*times, info["time"]])
    assert (waits == 0).sum() > 10 and (rewards[waits == 0] == 0).all()


def test_predicted_lengths_are_seen_and_true_ones_are_not():
    columns = {"predicted_output": [5.0, np.nan]}
    seen = []
    for outputs in ([7, 9], [70, 90]):
        env = RequestSelectionEnv(at_once([4, 4], outputs, **columns), SECOND, load=None, horizon=None)
        seen.append(env.reset(seed=0)[0])
    np.testing.assert_array_equal(*seen)
    assert slot(seen[0], 0)["known_output"] == pytest.approx(np.log1p(5) / np.log1p(16384))
    assert slot(seen[0], 1)["known_output"] == 0


def test_the_vector_environment_is_its_single_ones(small):
    short = small | {"horizon": 2.0, "load": (0.5, 1.5)}
    vector = gym.make_vec("llmsched/RequestSelection-v0", num_envs=3, slots=4, **short)
    assert isinstance(vector, RequestSelectionVectorEnv)
    singles = [RequestSelectionEnv(**short, slots=4) for _ in range(3)]
    obs, infos = vector.reset(seed=7)
    first = [env.reset(seed=7 + i) for i, env in enumerate(singles)]
    rng, ended = np.random.default_rng(1), 0
    for i, (single, info) in enumerate(first):
        np.testing.assert_array_equal(obs[i], single)
        np.testing.assert_array_equal(infos["action_mask"][i], info["action_mask"])
    for _ in range(120):
        actions = rng.integers(5, size=3)
        obs, rewards, _, truncated, infos = vector.step(actions)
        np.testing.assert_array_equal(infos["action_mask"], vector.action_masks())
        for i, env in enumerate(singles):
            single, reward, _, over, info = env.step(int(actions[i]))
            assert (rewards[i], truncated[i]) == (reward, over)
            if over:
                ended += 1
                np.testing.assert_array_equal(infos["final_obs"][i], single)
                np.testing.assert_array_equal(infos["final_info"]["action_mask"][i], info["action_mask"])
                single, _ = env.reset()
            np.testing.assert_array_equal(obs[i], single)
            np.testing.assert_array_equal(infos["action_mask"][i], env.action_masks())
    assert ended >= 3


def test_gymnasium_samples_with_the_masks(small):
    env = RequestSelectionEnv(**small, slots=3)
    vector = RequestSelectionVectorEnv(2, **small, slots=3)
    _, info = env.reset(seed=0)
    vector.reset(seed=0)
    for _ in range(30):
        assert info["action_mask"].dtype == env.action_masks().dtype == np.int8
        action = env.action_space.sample(mask=env.action_masks())
        assert info["action_mask"][action] == 1
        _, _, _, _, info = env.step(action)
        masks = vector.action_masks()
        actions = vector.action_space.sample(mask=tuple(masks))
        assert masks[np.arange(2), actions].all()
        vector.step(actions)


def test_the_asking_scheduler_is_refused_outside():
    with pytest.raises(ValueError, match="'selected' asks for a choice"):
        ls.simulate(selected, at_once([4]), SECOND)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"slots": 0}, "slots must be .*0"),
        ({"slots": 2000}, "slots must be .*2000"),
        ({"token_budget": 0}, "token_budget must be .*0"),
        ({"max_num_seqs": 0}, "max_num_seqs must be .*0"),
        ({"reward": "speed"}, "reward must be .*'speed'"),
    ],
)
def test_bad_arguments_are_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        RequestSelectionEnv(**kwargs)
