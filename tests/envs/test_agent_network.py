import gymnasium as gym
import numpy as np
import pytest

import llmsched_env as ls
from llmsched_env.envs.agent_network import AgentNetworkEnv, class_weights
from llmsched_env.envs.network_features import class_features
from llmsched_env.envs.network_runner import UNROUTED
from llmsched_env.results import metrics
from llmsched_env.simulator.simulate import simulate_network
from llmsched_env.tables.task_table import TaskTable
from llmsched_env.workloads import RequestTable
from llmsched_env.workloads.rybko_stolyar import RYBKO_STOLYAR_ENGINES, rybko_stolyar
from llmsched_env.workloads.task_sources import FixedTasks

ROWS = ("requests", "tasks", "batches", "batch_entries", "token_gaps")
ONE_SECOND = ls.EngineConfig(ls.Staircase(c=1.0, a=0.0, b0=1), token_budget=10)


def chains(arrival, prompts, outputs, klass, engine):
    """Tasks that are chains of equal length; the other arguments are lists of lists, one a task."""
    n, length = np.shape(prompts)
    calls = RequestTable.from_columns(
        np.repeat(arrival, length), np.ravel(prompts), np.ravel(outputs), klass=np.ravel(klass)
    )
    starts = np.concatenate([np.arange(t * length, (t + 1) * length - 1) for t in range(n)]).astype(int)
    edges = np.stack([starts, starts + 1], axis=1)
    return TaskTable.from_columns(calls, np.repeat(np.arange(n), length), edges, engine=np.ravel(engine))


def some_tasks(seed, n=60, span=8.0, output_high=20):
    rng = np.random.default_rng(seed)
    klass = rng.integers(0, 3, (n, 2))
    return chains(
        np.sort(rng.uniform(0, span, n)),
        rng.integers(1, 40, (n, 2)),
        rng.integers(1, output_high, (n, 2)),
        klass,
        klass % 2,
    )


ENGINES = 2 * (ls.EngineConfig(ls.Staircase(c=0.05, a=0.02, b0=16), token_budget=64, kv_blocks=40),)


def play(env, policy, seed):
    observations, rewards = [env.reset(seed=seed)[0]], []
    truncated = False
    while not truncated:
        obs, reward, _, truncated, info = env.step(policy(observations[-1]))
        observations.append(obs)
        rewards.append(reward)
    return np.array(observations), np.array(rewards), info


def random_policy(env, seed):
    rng = np.random.default_rng(seed)
    return lambda obs: rng.integers(env.action_space.nvec)


@pytest.mark.parametrize("interval", [20.0, 3.7])
def test_constant_action_is_the_scheduler_bit_for_bit(interval):
    env = AgentNetworkEnv(horizon=100.0, decision_interval=interval, record="entries")
    action = np.array([0, 2, 1, 1, 2, 0, 1, 2])
    play(env, lambda obs: action, seed=4)
    schedulers = [
        class_weights(4)(**{f"weight_{k}": float(w) for k, w in enumerate(row)}) for row in action.reshape(2, 4)
    ]
    runner = env._runner
    theirs = simulate_network(
        schedulers, runner.tables[0], RYBKO_STOLYAR_ENGINES, UNROUTED, runner.seeds[0], horizon=100.0, record="entries"
    )
    ours = env.result()
    assert len(ours.batches) > 150
    for name in ROWS:
        assert getattr(ours, name).tobytes() == getattr(theirs, name).tobytes(), name


def test_an_arm_is_the_action_that_it_stands_for():
    arms = [[0, 2, 1, 1, 2, 0, 1, 2], [2, 1, 0, 2, 0, 1, 2, 0], [1] * 8]
    env = AgentNetworkEnv(horizon=100.0, decision_interval=4.0, record="entries", arms=arms)
    whole = AgentNetworkEnv(horizon=100.0, decision_interval=4.0, record="entries")
    assert env.action_space == gym.spaces.Discrete(3)
    chosen = np.random.default_rng(0).integers(3, size=25)
    steps = [iter(chosen), iter(chosen)]
    ours = play(env, lambda obs: next(steps[0]), seed=6)
    theirs = play(whole, lambda obs: np.array(arms[next(steps[1])]), seed=6)
    assert ours[0].tobytes() == theirs[0].tobytes() and ours[1].tobytes() == theirs[1].tobytes()
    assert env.result().batch_entries.tobytes() == whole.result().batch_entries.tobytes()
    vector = gym.make_vec("llmsched/AgentNetwork-v0", 2, horizon=100.0, decision_interval=4.0, arms=arms)
    observations = [vector.reset(seed=6)[0][0]]
    observations += [vector.step(np.array([arm, 0]))[0][0] for arm in chosen[:-1]]
    assert np.array(observations).tobytes() == ours[0][:-1].tobytes()


@pytest.mark.parametrize("reward", ["tasks", "calls"])
def test_rewards_sum_to_integrals(reward):
    source = FixedTasks(some_tasks(0))
    env = AgentNetworkEnv(source, ENGINES, horizon=10.0, decision_interval=0.3, reward=reward, record="requests")
    _, rewards, info = play(env, random_policy(env, 1), seed=1)
    result = env.result()
    calls = metrics.integral_in_system(result.requests, 0.0, 10.0)
    tasks = (np.nan_to_num(result.tasks.finish, nan=10.0) - result.tasks.arrival).sum()
    assert -rewards.sum() == pytest.approx({"tasks": tasks, "calls": calls}[reward], rel=1e-9)
    assert info["episode_mean_tasks"] == pytest.approx(tasks / 10.0, rel=1e-9)
    assert info["episode_mean_calls"] == pytest.approx(calls / 10.0, rel=1e-9)
    assert info["time"] == 10.0
    assert info["episode_finished"] == np.isfinite(result.tasks.finish).sum() > 0
    assert info["episode_arrived"] == len(result.tasks)
    assert info["num_calls"] == (result.requests.status == "active").sum()


def test_batches_are_work_conserving_under_any_actions():
    """Every batch is full or holds all that could be in it (no memory limit, no limit of requests)."""
    engines = 2 * (ls.EngineConfig(ls.Staircase(c=0.05, a=0.02, b0=16), token_budget=24),)
    env = AgentNetworkEnv(FixedTasks(some_tasks(3)), engines, horizon=10.0, decision_interval=0.3, record="batches")
    play(env, random_policy(env, 3), seed=0)
    batches = env.result().batches
    tokens = batches.prefill_tokens + batches.decode_tokens
    not_full = batches[tokens < 24]
    assert len(not_full) > 20 and (tokens == 24).sum() > 20
    assert (not_full.num_seqs == not_full.num_in_system).all()


def test_classes_are_served_by_weight_and_equal_ones_in_order_of_arrival():
    # a call of (7, 1) takes 7 of the 10 tokens; all are at engine 0
    table = chains(np.zeros(4), [[7]] * 4, [[1]] * 4, [[0], [1], [1], [0]], [[0]] * 4)

    def first_scheduled(*weights):
        weights = {f"weight_{k}": w for k, w in enumerate(weights)}
        result = simulate_network(class_weights(2)(**weights), table, [ONE_SECOND], UNROUTED)
        return result.requests.first_scheduled.tolist()

    assert first_scheduled(1.0, 1.0) == [0, 0, 1, 2]  # 7+3, 4+6, 1+7, and what is left over goes on
    assert first_scheduled(0.0, 1.0) == [1, 0, 0, 2]
    assert first_scheduled(2.0, 1.0) == [0, 1, 2, 0]


def test_weights_act_on_batches_that_start_at_or_after_the_tick():
    table = chains(np.zeros(2), [[60], [60]], [[1], [1]], [[0], [1]], [[0], [0]])
    env = AgentNetworkEnv(
        FixedTasks(table), [ONE_SECOND], levels=2, horizon=5.0, decision_interval=0.5, record="entries"
    )
    env.reset(seed=0)
    # set at 0, 0.5, 1, ...; batches start at 0, 1, 2, ...
    for k in range(10):
        env.step(np.array([0, 1] if k in (3, 4, 7) else [1, 0]))
    assert env.result().batch_entries.request.tolist() == [0, 0, 1, 0, 0]


@pytest.mark.parametrize("seed", range(3))
def test_observations_do_not_depend_on_lengths_still_to_come(seed):
    rng = np.random.default_rng(seed + 50)
    table, cut = some_tasks(seed), 4.0
    env = AgentNetworkEnv(FixedTasks(table), ENGINES, horizon=cut, decision_interval=0.25, record="entries")
    seen = play(env, random_policy(env, seed), seed=0)[0]
    entries, rows = env.result().batch_entries, env.result().requests
    world = env._runner.simulators[0].world
    unfinished = np.isnan(world.hidden.finish)
    longer = np.where(unfinished, world.req.generated + rng.integers(30, 60, len(table)), table.calls.output_tokens)
    calls = RequestTable.from_columns(table.calls.arrival, table.calls.prompt_tokens, longer, klass=table.calls.klass)
    changed = AgentNetworkEnv(
        FixedTasks(TaskTable(calls, table.task, table.delay, table.engine, table.edges)),
        ENGINES, horizon=cut, decision_interval=0.25, record="entries",
    )  # fmt: skip
    assert unfinished.sum() > 20 and (rows.status == "finished").sum() > 5
    np.testing.assert_array_equal(seen, play(changed, random_policy(env, seed), seed=0)[0])
    assert changed.result().batch_entries.tobytes() == entries.tobytes()


def test_observed_features_of_a_case_worked_by_hand():
    # at engine 0: call of class 0 with 4 + 3 tokens, then one of class 1 with 20 + 2; after each, one of class 2 at 1
    table = chains([0.0, 0.0], [[4, 5], [20, 5]], [[3, 1], [2, 1]], [[0, 2], [1, 2]], [[0, 1], [0, 1]])
    env = AgentNetworkEnv(FixedTasks(table), [ONE_SECOND] * 2, horizon=10.0, decision_interval=1.0)
    features = class_features(2, 3)
    assert env.observation_space.shape == (len(features),) == (4 * 6 + 3 * 2 + 2 * 3 + 2,)

    def values(obs):
        scale = np.array([0.0 if f.scale is None else np.log1p(f.scale) for f in features])
        return np.where(scale > 0, np.expm1(obs * scale), obs).round(3)

    obs, _ = env.reset(seed=0)
    obs = values(obs)
    np.testing.assert_allclose(obs[:8], [1, 0, 4, 0, 1, 0, 20, 0])
    np.testing.assert_allclose(obs[24:30], 0)  # no batch yet
    np.testing.assert_allclose(obs[30:], [1, 1e-9, 1, 1e-9, 0, 0, 2, 2], atol=0.001)
    obs = values(
        env.step(np.array([1, 0, 0, 0, 0, 0]))[0]
    )  # 4 prompt tokens of the first, 6 of the second, until t = 1
    np.testing.assert_allclose(obs[:8], [0, 1, 0, 1, 0, 1, 14, 0])
    obs = values(env.step(np.array([0, 1, 0, 0, 0, 0]))[0])  # all 10 tokens to the second
    np.testing.assert_allclose(obs[:8], [0, 1, 0, 1, 0, 1, 4, 0])
    for _ in range(2):  # two outputs each, the last ones; both tasks go on at engine 1
        obs = values(env.step(np.array([1, 0, 0, 0, 0, 0]))[0])
    np.testing.assert_allclose(obs[:20], 0)
    np.testing.assert_allclose(obs[20:24], [2, 0, 10, 0])
    np.testing.assert_allclose(obs[30:], [0, 2, 0, 2, 2, 0, 2, 2], atol=0.001)


def test_env_i_is_the_single_env_of_its_seed():
    """Through several episodes with different actions everywhere, values are equal to the last bit."""
    kwargs = {"horizon": 60.0, "decision_interval": 12.0}
    vector = gym.make_vec("llmsched/AgentNetwork-v0", num_envs=4, vectorization_mode="vector_entry_point", **kwargs)
    obs, _ = vector.reset(seed=7)
    singles = [AgentNetworkEnv(**kwargs) for _ in range(4)]
    for i, single in enumerate(singles):
        np.testing.assert_array_equal(single.reset(seed=7 + i)[0], obs[i])
    rng = np.random.default_rng(0)
    for step in range(12):
        actions = rng.integers(vector.single_action_space.nvec, size=(4, 8))
        obs, rewards, terminated, truncated, infos = vector.step(actions)
        assert truncated.all() == (step % 5 == 4) and not terminated.any()
        for i, single in enumerate(singles):
            seen, reward, _, done, info = single.step(actions[i])
            assert reward == rewards[i] and done == truncated[i]
            if done:
                np.testing.assert_array_equal(infos["final_obs"][i], seen)
                assert {name: infos["final_info"][name][i] for name in info} == info
                seen = single.reset()[0]
            else:
                assert {name: infos[name][i] for name in info} == info
            np.testing.assert_array_equal(obs[i], seen)


def test_rybko_stolyar_loads_both_engines_as_asked():
    table = rybko_stolyar(load=0.9, horizon=20000.0).sample(1)
    work = table.calls.prompt_tokens + table.calls.output_tokens
    rate = 0.9 * 768 / 608
    sizes = {0: (64, 64), 1: (544, 544), 2: (64, 64), 3: (544, 544)}  # means and variances of sums of Poisson numbers
    for k, (mean, variance) in sizes.items():
        mine = work[table.calls.klass == k]
        assert abs(len(mine) - rate * 20000) < 4 * np.sqrt(rate * 20000)
        assert abs(mine.mean() - mean) < 4 * np.sqrt(variance / len(mine))
    assert table.engine[:2].tolist() in ([0, 1], [1, 0])
    np.testing.assert_array_equal(table.engine, np.array([0, 1, 1, 0])[table.calls.klass])


def test_text_shows_the_state():
    env = AgentNetworkEnv(horizon=60.0, render_mode="ansi")
    env.reset(seed=0)
    before = env.render()
    env.step(np.zeros(8, int))
    assert env.render() != before and "backlog" in before


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"tasks": "rybko"}, "rybko-stolyar"),
        ({"load": 0.0}, "load must be .*0"),
        ({"horizon": -1.0}, "horizon must be .*-1"),
        ({"decision_interval": 0.0}, "decision_interval must be .*0"),
        ({"reward": "speed"}, "reward must be .*'speed'"),
        ({"record": "all"}, "record must be .*'all'"),
        ({"levels": 1}, "levels must be .*1"),
        ({"classes": 0}, "classes must be .*0"),
        ({"arms": []}, "arms must hold one or more"),
        ({"arms": [[3] * 8]}, r"arms must hold actions of MultiDiscrete.* got \(3"),
        ({"tasks": FixedTasks(some_tasks(0))}, "engines must be given"),
        ({"tasks": FixedTasks(some_tasks(0)), "engines": ENGINES, "load": 0.5}, "load must be None .*0.5"),
    ],
)
def test_bad_arguments_are_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        AgentNetworkEnv(**kwargs)


def test_tasks_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="classes must be .* got 1 and klass 2"):
        AgentNetworkEnv(FixedTasks(some_tasks(0)), ENGINES, classes=1).reset(seed=0)
    free = TaskTable.from_columns(some_tasks(0).calls)
    with pytest.raises(ValueError, match="router must be given"):
        AgentNetworkEnv(FixedTasks(free), ENGINES).reset(seed=0)


@pytest.mark.parametrize("seed", range(4))
def test_every_task_finishes_in_little_memory(seed):
    """Calls are preempted and come back; no weights leave the engines stuck."""
    engine = ls.EngineConfig(ls.Staircase(c=0.05, a=0.02, b0=16), token_budget=64, kv_blocks=6)
    rng = np.random.default_rng(seed)
    schedulers = [class_weights(3)(**{f"weight_{k}": float(rng.integers(3)) for k in range(3)}) for _ in range(2)]
    result = simulate_network(schedulers, some_tasks(seed, output_high=50), [engine] * 2, UNROUTED)
    assert not result.stalled and np.isfinite(result.tasks.finish).all()
    assert result.requests.preemptions.sum() > 0
