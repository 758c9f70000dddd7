from dataclasses import replace

import numpy as np
import pytest

import baselines
import llmsched_env as ls
from llmsched_env.envs.batch_queue import FEATURES, BatchQueueEnv
from llmsched_env.features import names
from llmsched_env.results import metrics


def workload_of(env, seed):
    """The very requests of the environment's first episode after reset(seed)."""
    env.reset(seed=seed)
    table = env._runner.tables[0]
    return ls.Workload.from_table(table, "episode")


@pytest.mark.parametrize("interval", [None, 0.05])
@pytest.mark.parametrize("engine", ["toy", "llama-3.1-8b_h100-80gb_tp1_aic"])
def test_constant_action_is_the_scheduler_bit_for_bit(small, play, interval, engine):
    if engine != "toy":
        small |= {"workload": "azure-chat", "engine": engine, "load": 1.3}
    env = BatchQueueEnv(**small, decision_interval=interval, record="entries")
    action = env.knobs.encode(token_budget=512)
    play(env, lambda obs: action, seed=5)
    ours = env.result()
    theirs = ls.simulate(
        baselines.sarathi(token_budget=512), workload_of(env, 5), env.episodes.engine, horizon=10.0, record="entries"
    )
    assert len(ours.requests) > 50
    for table in ("requests", "batches", "batch_entries", "token_gaps"):
        assert getattr(ours, table).tobytes() == getattr(theirs, table).tobytes(), table


def test_steps_of_noisy_engines_scatter_by_the_seed_of_the_episode(small, play):
    """The same in a simulation with that seed, for the reference too, and other ones in the next episode."""
    engine = replace(small["engine"], step_noise=0.3, believed_batch_time=ls.Staircase(c=0.02, a=0.01, b0=64))
    scheduler = baselines.sarathi(token_budget=512)
    env = BatchQueueEnv(**small | {"engine": engine}, record="entries", reference=scheduler)
    action = env.knobs.encode(token_budget=512)
    _, rewards, *_ = play(env, lambda obs: action, seed=5)
    assert rewards == pytest.approx(np.zeros(len(rewards)), abs=1e-9)
    ours = env.result()
    theirs = ls.simulate(scheduler, workload_of(env, 5), engine, seed=ours.seed, horizon=10.0, record="entries")
    assert np.array_equal(ours.batches, theirs.batches)
    play(env, lambda obs: action, seed=6)
    assert env.result().seed != ours.seed


@pytest.mark.parametrize("interval", [None, 0.07])
@pytest.mark.parametrize("seed", [0, 1])
def test_rewards_sum_to_the_integral_of_the_number_in_system(small, play, random_policy, interval, seed):
    env = BatchQueueEnv(**small, decision_interval=interval, record="requests")
    _, rewards, info, terminated, truncated = play(env, random_policy(env, seed), seed)
    requests = env.result().requests
    integral = metrics.integral_in_system(requests, 0.0, 10.0)
    assert -rewards.sum() == pytest.approx(integral, rel=1e-9)
    assert info["episode_mean_in_system"] == pytest.approx(integral / 10.0, rel=1e-9)
    assert (terminated, truncated, info["time"]) == (False, True, 10.0)


def test_goodput_counts_requests_within_their_slo(small, play, random_policy):
    env = BatchQueueEnv(**small, reward="goodput", record="requests")
    _, rewards, info, _, _ = play(env, random_policy(env, 3), seed=3)
    summary = env.result().summary()
    good = summary["request_goodput"] * 10.0
    assert rewards.sum() == info["episode_good"] == pytest.approx(good)
    assert 0 < good < info["episode_arrived"]


def test_slo_argument_overrides_the_workload(small, play, random_policy):
    hopeless = BatchQueueEnv(**small, reward="goodput", slo=(1e-6, 1e-6))
    assert play(hopeless, random_policy(hopeless, 3), seed=3)[1].sum() == 0
    generous = BatchQueueEnv(**small, reward="goodput", slo=ls.SLO())
    info = play(generous, random_policy(generous, 3), seed=3)[2]
    assert info["episode_good"] == info["episode_finished"] > 0


def test_without_horizon_the_episode_ends_when_all_have_left(small, play):
    env = BatchQueueEnv(**small | {"horizon": None, "load": None}, record="requests")
    action = env.knobs.encode(token_budget=2048)
    _, rewards, info, terminated, truncated = play(env, lambda obs: action, seed=1)
    result = env.result()
    assert (terminated, truncated) == (True, False)
    assert info["episode_finished"] == info["episode_arrived"] == len(result.requests)
    latency = (result.requests.finish - result.requests.arrival).sum()
    assert -rewards.sum() == pytest.approx(latency, rel=1e-9)  # Little's law


def test_ticks_come_at_multiples_of_the_interval_idle_or_not():
    engine = ls.EngineConfig(ls.Staircase(c=0.1, a=0.0, b0=1))
    workload = ls.Workload.from_arrays([0.25, 3.0], [5, 5], [2, 2])
    env = BatchQueueEnv(workload, engine, load=None, horizon=4.1, decision_interval=0.5)
    env.reset(seed=0)
    times = []
    truncated = False
    while not truncated:
        _, _, _, truncated, info = env.step(env.knobs.encode())
        times.append(info["time"])
    assert times == [0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.1]


def test_parameters_act_on_batches_that_start_at_or_after_the_tick():
    engine = ls.EngineConfig(ls.Staircase(c=1.0, a=0.0, b0=1))  # every batch takes 1 s
    workload = ls.Workload.from_arrays([0.0], [400], [1])
    env = BatchQueueEnv(workload, engine, load=None, horizon=8.0, decision_interval=0.5, record="batches")
    env.reset(seed=0)
    for budget in (64, 128, 256, 64, 64, 64, 64, 64):  # set at 0, 0.5, 1, 1.5, ...; batches start at 0, 1, 2, ...
        env.step(env.knobs.encode(token_budget=budget))
    assert env.result().batches.prefill_tokens.tolist() == [64, 256, 64, 16]


def test_decision_before_every_batch_and_only_with_requests_present():
    engine = ls.EngineConfig(ls.Staircase(c=1.0, a=0.0, b0=1))
    workload = ls.Workload.from_arrays([2.0, 10.0], [4, 4], [2, 1])
    env = BatchQueueEnv(workload, engine, load=None, horizon=None, record="batches")
    env.reset(seed=0)
    assert env._runner.simulator.clock(0) == 2.0
    ends = []
    terminated = False
    while not terminated:
        _, reward, terminated, _, info = env.step(env.knobs.encode())
        ends.append((info["time"], reward))
    assert ends == [(3.0, -1.0), (10.0, -1.0), (11.0, -1.0)]


@pytest.mark.parametrize("seed", range(3))
def test_observations_do_not_depend_on_lengths_still_to_come(small, seed):
    """Two workloads that differ only in output lengths look the same until the first difference shows."""
    rng = np.random.default_rng(seed)
    n, cut = 60, 4.0
    arrival = np.sort(rng.uniform(0, 8, n))
    prompt, output = rng.integers(1, 300, n), rng.integers(1, 60, n)
    first = ls.Workload.from_arrays(arrival, prompt, output)
    actions = np.random.default_rng(seed + 100).integers([12, 6, 4, 2], size=(2000, 4))
    kwargs = {"engine": small["engine"], "load": None, "horizon": 8.0, "slo": (0.5, 0.05)}

    env = BatchQueueEnv(first, **kwargs, record="entries", decision_interval=0.05)
    seen = trajectory(env, actions, cut)
    rows = env.result().requests
    unfinished = np.flatnonzero(~(rows.finish <= cut))
    longer = output.copy()
    longer[unfinished] = rows.generated[unfinished] + rng.integers(30, 90, len(unfinished))
    longer[len(rows) :] += 40
    changed = BatchQueueEnv(
        ls.Workload.from_arrays(arrival, prompt, longer), **kwargs, record="entries", decision_interval=0.05
    )
    assert len(unfinished) > 3
    np.testing.assert_array_equal(seen, trajectory(changed, actions, cut))
    assert env.result().batch_entries.tobytes() == changed.result().batch_entries.tobytes()


def trajectory(env, actions, until):
    seen = [env.reset(seed=0)[0]]
    for action in actions:
        obs, _, _, _, info = env.step(action)
        seen.append(obs)
        if info["time"] >= until - 1e-9:
            return np.array(seen)
    raise AssertionError("ran out of actions")


def test_all_observations_stay_in_the_box_under_overload(small, play, random_policy):
    env = BatchQueueEnv(**small | {"load": 5.0, "horizon": 20.0}, decision_interval=0.2)
    observations = play(env, random_policy(env, 0), seed=0)[0]
    assert all(env.observation_space.contains(obs) for obs in observations)
    moves = dict(zip(names(FEATURES), np.ptp(observations, axis=0) > 0, strict=True))
    assert all(moves[name] for name in names(FEATURES)[: list(moves).index("kv_used")]), "every queue feature moves"


def test_observed_features_of_a_case_worked_by_hand():
    engine = ls.EngineConfig(ls.Staircase(c=1.0, a=0.0, b0=1))
    workload = ls.Workload.from_arrays([0.0, 0.0, 0.5], [10, 30, 7], [9, 9, 9], slo=ls.SLO(ttft=0.8, tpot=0.5))
    env = BatchQueueEnv(workload, engine, load=None, horizon=None, token_budgets=(12,), admission_limits=(3,))

    def value(obs, name):
        k = names(FEATURES).index(name)
        scale = FEATURES[k].scale
        return obs[k] if scale is None else np.expm1(obs[k] * np.log1p(scale))

    obs, _ = env.reset(seed=0)
    assert value(obs, "waiting") == pytest.approx(2, rel=1e-5)
    assert value(obs, "waiting_prompt_tokens") == pytest.approx(40, rel=1e-5)
    obs, *_ = env.step(np.array([0, 0, 0, 0]))  # 10 tokens of the first prompt and 2 of the second, until t = 1
    expected = {
        "waiting": 1, "waiting_prompt_tokens": 7, "head_prompt_tokens": 7, "oldest_wait": 500, "least_ttft_slack": 300,
        "waiting_late": 0, "prefilling": 1, "prefilling_tokens_left": 28, "decoding": 1, "decode_context_tokens": 10,
        "decode_generated_tokens": 1, "decoding_behind": 0, "kv_used": 0, "last_batch_time": 1000, "batch_tokens": 12,
        "batch_prefill_share": 1, "token_budget": 12, "admission_limit": 3, "order_fcfs": 1, "hold_prefill": 0,
    }  # fmt: skip
    assert {name: pytest.approx(value(obs, name), rel=1e-4, abs=1e-6) for name in expected} == expected
    obs, *_ = env.step(np.array([0, 0, 1, 0]))  # one decode and 11 prompt tokens, until t = 2
    assert (value(obs, "decoding_behind"), value(obs, "decode_pace")) == (0, 0.5 * 1.0 / (2 * 0.5))
    assert (value(obs, "waiting_late"), value(obs, "order_shortest_prompt")) == (1, 1)
    obs, *_ = env.step(np.array([0, 0, 1, 0]))  # the same until t = 3: a third token 2 s after the first
    assert value(obs, "decoding_behind") == 1
    assert value(obs, "decode_pace") == pytest.approx(0.5 * 2.0 / (3 * 0.5))


@pytest.mark.parametrize("mode", ["ansi", "rgb_array"])
def test_rendering_shows_the_state(small, mode):
    env = BatchQueueEnv(**small, render_mode=mode)
    env.reset(seed=0)
    before = env.render()
    for _ in range(30):
        env.step(env.knobs.encode(token_budget=64))
    after = env.render()
    if mode == "ansi":
        assert before != after and "waiting" in after
    else:
        assert after.dtype == np.uint8 and after.shape == before.shape == (120, 320, 3) and (before != after).any()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"workload": "azure-chatt"}, "azure-chat"),
        ({"engine": "h100"}, "profile"),
        ({"load": -0.5}, "load must be .*-0.5"),
        ({"load": (0.9, 0.5)}, "load must be .*0.5"),
        ({"horizon": 0.0}, "horizon must be .*0"),
        ({"decision_interval": -1.0}, "decision_interval must be .*-1"),
        ({"reward": "speed"}, "reward must be .*'speed'"),
        ({"record": "all"}, "record must be .*'all'"),
        ({"slo": (0.0, 1.0)}, "ttft must be .*0"),
        ({"token_budgets": (512, 64)}, "token_budgets must be .*ascending"),
        ({"token_budgets": (0, 64)}, "token_budgets must be .*0"),
        ({"admission_limits": ()}, "admission_limits must be"),
        ({"load": 0.9, "workload": ls.Workload.from_arrays([0.0], [1], [1])}, "arrivals do not spread"),
    ],
)
def test_bad_arguments_are_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        BatchQueueEnv(**kwargs)


def test_result_needs_a_record(small):
    env = BatchQueueEnv(**small)
    env.reset(seed=0)
    with pytest.raises(ValueError, match="record"):
        env.result()


def test_the_watermark_is_an_optional_knob(small):
    engine = ls.EngineConfig(ls.Staircase(c=0.01, a=0.02, b0=64), token_budget=2048, kv_blocks=60)
    env = BatchQueueEnv(**{**small, "engine": engine}, watermarks=(0.0, 0.3), record="batches")
    assert env.action_space.nvec.tolist() == [12, 6, 4, 2, 2]
    env.reset(seed=1)
    done = False
    while not done:
        obs, _, terminated, truncated, info = env.step(env.unwrapped.knobs.encode(watermark=0.3))
        done = terminated or truncated
        assert obs[names(FEATURES).index("watermark")] == np.float32(0.3) and 0 <= info["kv_usage"] <= 1
    assert info["episode_preemptions"] == env.result().requests.preemptions.sum()
