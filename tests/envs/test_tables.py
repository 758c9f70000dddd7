"""Features and rewards are rows of tables: names, places, documentation and values follow from them."""

import inspect
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest

from llmsched_env.compiled import interpreted
from llmsched_env.envs import network_features
from llmsched_env.envs.agent_network import AgentNetworkEnv, AgentNetworkVectorEnv
from llmsched_env.envs.batch_queue import FEATURES, KNOB_FEATURES, OBSERVATION, BatchQueueEnv, BatchQueueVectorEnv
from llmsched_env.envs.cluster import ClusterEnv, ClusterVectorEnv
from llmsched_env.envs.features import ENGINE_FEATURES, MEMORY_SIZE, engine_features, engine_writer, look
from llmsched_env.envs.index_policy import IndexPolicyEnv, IndexPolicyVectorEnv
from llmsched_env.envs.request_selection import (
    BATCH_FEATURES,
    SLOT_FEATURES,
    RequestSelectionEnv,
    RequestSelectionVectorEnv,
)
from llmsched_env.envs.rewards import ENGINE_REWARDS, ENGINE_STEP, NETWORK_REWARDS, Reward
from llmsched_env.features import Feature, names, scaled_writer, writer
from llmsched_env.fields import field_names, records

TABLES = {
    BatchQueueEnv: (FEATURES, ENGINE_REWARDS),
    IndexPolicyEnv: (ENGINE_FEATURES,),
    RequestSelectionEnv: (ENGINE_FEATURES, BATCH_FEATURES, SLOT_FEATURES),
    AgentNetworkEnv: (
        network_features.OF_CLASS_AT_ENGINE,
        network_features.OF_ENGINE,
        network_features.OF_CLASS,
        network_features.OF_NETWORK,
        NETWORK_REWARDS,
    ),
    ClusterEnv: (
        network_features.OF_DESTINATION,
        network_features.OF_CALL,
        network_features.OF_NETWORK,
        NETWORK_REWARDS,
    ),
}
PAIRS = [
    (BatchQueueEnv, BatchQueueVectorEnv),
    (IndexPolicyEnv, IndexPolicyVectorEnv),
    (RequestSelectionEnv, RequestSelectionVectorEnv),
    (AgentNetworkEnv, AgentNetworkVectorEnv),
    (ClusterEnv, ClusterVectorEnv),
]


@pytest.mark.parametrize("environment", TABLES)
def test_docstrings_list_every_feature_and_reward(environment):
    lines = [line.strip() for line in environment.__doc__.splitlines()]
    assert "{" not in environment.__doc__
    for table in TABLES[environment]:
        for place, row in enumerate(table):
            first = f"| `{row.name}` | {row.meaning} |"
            first = first if isinstance(row, Reward) else f"| {place} {first}"
            assert any(line.startswith(first) for line in lines), first


@pytest.mark.parametrize("table", [FEATURES, ENGINE_FEATURES, (*BATCH_FEATURES, *SLOT_FEATURES)])
def test_names_are_unique(table):
    assert len(set(names(table))) == len(table)


def test_environments_of_one_engine_differ_in_the_knobs_only():
    reserved = [k for k, (ours, theirs) in enumerate(zip(FEATURES, ENGINE_FEATURES, strict=True)) if ours != theirs]
    assert [FEATURES[k] for k in reserved] == list(KNOB_FEATURES)
    assert [ENGINE_FEATURES[k].name for k in reserved] == [f"reserved_{k}" for k in range(len(reserved))]


def test_compiled_observations_are_the_interpreted_ones(small, random_policy):
    env = BatchQueueEnv(**small | {"load": 1.2, "horizon": 3.0})
    policy, observe, memory = random_policy(env, 0), interpreted(OBSERVATION.observe), np.zeros(MEMORY_SIZE)
    obs, over, expected = env.reset(seed=0)[0], False, np.empty(len(FEATURES), np.float32)
    while not over:
        observe(env._runner.simulator.view(0), memory, expected)
        assert obs.tobytes() == expected.tobytes()
        obs, _, _, over, _ = env.step(policy(obs))


def test_an_inserted_feature_changes_no_other(small, random_policy):
    extra = Feature("running", "requests running", 4096, lambda view, seen: len(view.running))
    longer = (FEATURES[0], extra, *FEATURES[1:])
    observe, write = interpreted(look), [interpreted(engine_writer(table)) for table in (FEATURES, longer)]
    env = BatchQueueEnv(**small | {"horizon": 2.0})
    policy, memory = random_policy(env, 0), np.zeros(MEMORY_SIZE)
    obs, over = env.reset(seed=0)[0], False
    while not over:
        view = env._runner.simulator.view(0)
        seen = observe(view, memory)
        rows = [np.empty(len(table), np.float32) for table in (FEATURES, longer)]
        for values, out in zip(write, rows, strict=True):
            values(view, seen, out)
        before, after = (
            dict(zip(names(table), row.tolist(), strict=True))
            for table, row in zip((FEATURES, longer), rows, strict=True)
        )
        assert after.pop("running") == np.float32(np.log1p(len(view.running)) / np.log1p(4096))
        assert after == before
        obs, _, _, over, _ = env.step(policy(obs))


def test_features_between_stand_where_the_reserved_ones_do():
    one = Feature("one", "1", None, lambda view, seen: 1.0)
    place = names(ENGINE_FEATURES).index("reserved_0")
    table = engine_features((one,))
    assert table[place] is one and len(table) == len(ENGINE_FEATURES) - len(KNOB_FEATURES) + 1


@pytest.mark.parametrize("rounded", [False, True])
def test_values_are_scaled_and_clipped(rounded):
    table = (
        Feature("share", "", None, lambda x: x),
        Feature("count", "", 100, lambda x: x),
        Feature("difference", "", 100, lambda x: x, signed=True),
    )
    write, out = interpreted(scaled_writer(table, ("x",), rounded)), np.empty(3)
    for x, expected in {
        0.0: (0.0, 0.0, 0.5),
        0.25: (0.25, np.log1p(0.25) / np.log1p(100), 0.5 + 0.5 * np.log1p(0.25) / np.log1p(100)),
        100.0: (1.0, 1.0, 1.0),
        -100.0: (0.0, 0.0, 0.0),
        np.inf: (1.0, 1.0, 1.0),
        -1e9: (0.0, 0.0, 0.0),
    }.items():
        write(x, out)
        assert out == pytest.approx(expected)


@pytest.mark.parametrize("reward", ENGINE_REWARDS + NETWORK_REWARDS, ids=lambda reward: reward.name)
def test_rewards_are_in_info_under_their_names(reward):
    env_id = "BatchQueue" if reward in ENGINE_REWARDS else "Cluster"
    env = gym.make(f"llmsched/{env_id}-v0", horizon=1.0, reward=reward.name)
    env.reset(seed=0)
    _, value, *_, info = env.step(env.action_space.sample())
    assert value == info[f"reward_{reward.name}"]


def test_a_step_counts_everything_that_a_reward_may_read(small, play, random_policy):
    engine = {"engine": replace(small["engine"], kv_blocks=60)}
    env = BatchQueueEnv(**small | engine | {"load": 1.2})
    steps, policy = [], random_policy(env, 1)

    def watched(obs):
        steps.append(env._runner._state.step[0].item())
        return policy(obs)

    info = play(env, watched, 1)[2]
    steps.append(env._runner._state.step[0].item())
    sums = dict(zip(field_names(ENGINE_STEP), np.sum(steps, axis=0).tolist(), strict=True))
    totals, state = env._runner.simulator.world.totals[0], env._runner.simulator.world.engines[0]
    assert sums["seconds"] == pytest.approx(info["time"])
    assert sums["request_seconds"] == pytest.approx(state.request_seconds)
    assert sums["good_requests"] == state.good_requests > 0
    for name in ("arrived", "finished", "generated", "preemptions", "recomputed"):
        assert sums[name] == totals[name] > 0, name


def test_a_reward_is_one_row():
    table = (*ENGINE_REWARDS, Reward("output", "output tokens", "tokens", lambda step: step.generated))
    write, step, terms = interpreted(writer(table, ("step",))), records(ENGINE_STEP), np.empty(len(table))
    step.request_seconds, step.missed, step.good_requests, step.generated = 2.5, 3, 1.0, 7
    write(step[0], terms)
    assert terms[:3].tolist() == [-2.5, -3.0, 1.0] and terms[-1] == 7.0


@pytest.mark.parametrize(("single", "vector"), PAIRS)
def test_single_and_vector_environments_take_the_same_arguments(single, vector):
    of_single, of_vector = (dict(inspect.signature(cls).parameters) for cls in (single, vector))
    assert next(iter(of_vector)) == "num_envs"
    for name in ("record", "render_mode"):
        assert of_single.pop(name).default == {"record": "off", "render_mode": None}[name]
    for name in ("num_envs", "shared_traces"):
        assert of_vector.pop(name, inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=1)).default == 1
    assert of_single == of_vector
    with pytest.raises(TypeError, match="unexpected keyword argument 'loads'"):
        single(loads=0.9)
    with pytest.raises(TypeError, match="unexpected keyword argument 'record'"):
        vector(record="batches")
