"""Clone, step, restore, step is never having cloned: to the byte, in every environment, at any moment."""

import copy
import pickle

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import baselines
import llmsched_env as ls
from baselines.routers import least_outstanding_tokens, power_of_two, round_robin
from llmsched_env.envs.agent_network import AgentNetworkEnv, AgentNetworkVectorEnv
from llmsched_env.envs.batch_queue import BatchQueueEnv, BatchQueueVectorEnv, parametric
from llmsched_env.envs.batch_queue_v1 import BatchQueueV1Env, BatchQueueV1VectorEnv
from llmsched_env.envs.cluster import ClusterEnv, ClusterVectorEnv
from llmsched_env.envs.cluster_v1 import ClusterV1Env, ClusterV1VectorEnv
from llmsched_env.envs.env_state import PerEnv
from llmsched_env.envs.index_policy import IndexPolicyEnv, IndexPolicyVectorEnv
from llmsched_env.envs.request_selection import RequestSelectionEnv, RequestSelectionVectorEnv
from llmsched_env.simulator.network import NetworkSimulator
from llmsched_env.simulator.simulator import Simulator
from llmsched_env.workloads.task_sources import FixedTasks
from tests.envs.test_cluster import with_prefixes

ROWS = ("requests", "batches", "batch_entries", "token_gaps")
LAW = ls.Staircase(c=0.01, a=0.02, b0=64)
LENGTHS = {"prompt_tokens": ls.dist.Uniform(1, 300), "output_tokens": ls.dist.Geometric(20)}
RANDOM = ls.Workload.poisson(8.0, **LENGTHS, horizon=20.0, slo=ls.SLO(ttft=0.5, tpot=0.05))


def conversations(seed=0, n=120):
    """Requests whose prompts begin with earlier ones, some of whose clients give up."""
    rng = np.random.default_rng(seed)
    parent = np.where(np.arange(n) % 3 > 0, np.arange(n) - rng.integers(1, 3, n), -1)
    prompt, output = rng.integers(40, 250, n), rng.integers(1, 40, n)
    shared = np.where(parent < 0, 0, np.minimum(prompt, prompt[parent]) - 3)
    timeout = np.where(rng.random(n) < 0.3, 0.6, np.inf)
    columns = {"parent": parent, "shared_tokens": shared, "timeout": timeout}
    table = ls.RequestTable.from_columns(np.sort(rng.uniform(0, 15, n)), prompt, output, **columns)
    return ls.Workload.from_table(table, "conversations").with_slo(ls.SLO(ttft=0.5, tpot=0.05))


def machine(ahead, noise=0.1, **limits):
    return ls.EngineConfig(
        LAW, token_budget=256, kv_blocks=90, block_size=8, schedule_ahead=ahead, step_noise=noise, **limits
    )


ENGINE = {"workload": conversations(), "engine": machine(1, prefix_caching=True), "load": (0.6, 1.4), "horizon": 3.0}
AGENTS = FixedTasks(with_prefixes(0))
FLEET = (machine(0, prefix_caching=True), machine(1), machine(0))
CASES = {
    "queue": (BatchQueueEnv, BatchQueueVectorEnv, ENGINE | {"reference": baselines.sarathi(token_budget=128)}),
    "queue, interval": (
        BatchQueueEnv,
        BatchQueueVectorEnv,
        ENGINE | {"engine": machine(0, swap_blocks=20), "workload": RANDOM, "decision_interval": 0.11},
    ),
    "queue, v1": (BatchQueueV1Env, BatchQueueV1VectorEnv, ENGINE | {"decision_interval": 0.15, "pausing": True}),
    "index": (IndexPolicyEnv, IndexPolicyVectorEnv, ENGINE | {"engine": machine(0, prefix_caching=True)}),
    "selection": (RequestSelectionEnv, RequestSelectionVectorEnv, ENGINE | {"slots": 5, "token_budget": 200}),
    "cluster": (ClusterEnv, ClusterVectorEnv, {"workload": AGENTS, "engines": FLEET, "load": None, "horizon": 4.0}),
    "cluster, requests": (
        ClusterEnv,
        ClusterVectorEnv,
        {"workload": RANDOM, "engines": FLEET, "load": (0.4, 1.2), "horizon": 3.0},
    ),
    "cluster, v1": (
        ClusterV1Env,
        ClusterV1VectorEnv,
        {"workload": conversations(1), "engines": FLEET, "load": (0.4, 1.2), "horizon": 3.0, "reward": "slo"},
    ),
    "cluster, routers": (
        ClusterEnv,
        ClusterVectorEnv,
        {
            "workload": AGENTS,
            "engines": FLEET,
            "load": None,
            "horizon": 4.0,
            "routers": (round_robin, power_of_two, least_outstanding_tokens),
            "decision_interval": 0.23,
        },
    ),
    "agents": (AgentNetworkEnv, AgentNetworkVectorEnv, {"load": 0.9, "horizon": 90.0, "decision_interval": 2.0}),
}
each_case = pytest.mark.parametrize("case", CASES)


class Player:
    """A single environment played by random actions, through one episode after the other."""

    def __init__(self, env, seed):
        self.env = env
        self.seen = [env.reset(seed=seed)]

    def play(self, actions, steps):
        """What the steps return, and the first observation and info after each episode."""
        seen = []
        for _ in range(steps):
            seen.append(self.env.step(action(self.env, actions)))
            if seen[-1][2] or seen[-1][3]:
                seen.append(self.env.reset())
        return seen


def action(env, rng):
    """A random action; where there is a mask, mostly one that is allowed."""
    space = env.action_space
    if isinstance(space, gym.spaces.Box):
        return rng.uniform(-1, 1, space.shape).astype(np.float32)
    if isinstance(space, gym.spaces.MultiDiscrete):
        return rng.integers(space.nvec)
    if hasattr(env, "action_masks") and rng.random() < 0.9:
        return int(rng.choice(np.flatnonzero(env.action_masks())))
    return int(rng.integers(space.n))


def data(value):
    """Numbers and bytes of nested results, which compare by `==`."""
    if isinstance(value, dict):
        return {name: data(each) for name, each in value.items()}
    if isinstance(value, tuple | list):
        return [data(each) for each in value]
    return (value.shape, value.dtype.str, value.tobytes()) if isinstance(value, np.ndarray) else repr(value)


def rows(env):
    return [
        getattr(env.result(), name).tobytes() for name in (*ROWS, *(["tasks"] if "tasks" in dir(env.result()) else []))
    ]


moments = {
    "seed": st.integers(0, 2**20),
    "before": st.integers(0, 60),
    "astray": st.integers(0, 80),
    "after": st.integers(1, 60),
}


@each_case
@settings(max_examples=15, deadline=None)
@given(**moments)
def test_clone_step_restore_step_is_never_having_cloned(case, seed, before, astray, after):
    kind, _, arguments = CASES[case]
    ours, plain = (Player(kind(**arguments, record="entries"), seed) for _ in range(2))
    assert data(ours.play(np.random.default_rng(1), before)) == data(plain.play(np.random.default_rng(1), before))
    state = ours.env.clone_state()
    ours.play(np.random.default_rng(2), astray)
    ours.env.restore_state(state)
    assert rows(ours.env) == rows(plain.env)
    first = data(plain.play(np.random.default_rng(3), after))
    assert data(ours.play(np.random.default_rng(3), after)) == first
    assert rows(ours.env) == rows(plain.env)
    ours.env.restore_state(pickle.loads(pickle.dumps(state)))  # a second time, as another process has it
    assert data(ours.play(np.random.default_rng(3), after)) == first


@each_case
@settings(max_examples=10, deadline=None)
@given(**moments, source=st.integers(0, 2), target=st.integers(0, 2))
def test_a_state_goes_on_in_another_slot(case, seed, before, astray, after, source, target):
    """As the single environment of its seed, while the other slots notice nothing."""
    single, several, arguments = CASES[case]
    vector, plain, alone = several(num_envs=3, **arguments), several(num_envs=3, **arguments), single(**arguments)
    vector.reset(seed=seed)
    plain.reset(seed=seed)
    alone.reset(seed=seed + source)
    rng = np.random.default_rng(seed)
    for _ in range(before):
        actions = some_actions(vector, rng)
        vector.step(actions)
        plain.step(actions)
        if any(alone.step(actions[source])[2:4]):
            alone.reset()
    state, others = vector.clone_state(source), [i for i in range(3) if i != target]
    kept = {i: vector.clone_state(i) for i in others}
    for _ in range(astray):
        vector.step(some_actions(vector, rng))
    for i in others:
        vector.restore_state(i, kept[i])
    vector.restore_state(target, state)
    for _ in range(after):
        actions = some_actions(vector, rng)
        seen, expected, own = vector.step(actions), plain.step(actions), alone.step(actions[target])
        for i in others:
            assert data([part[i] for part in seen[:4]]) == data([part[i] for part in expected[:4]])
        assert data([part[target] for part in seen[1:4]]) == data([np.asarray(part)[()] for part in own[1:4]])
        obs, infos = own[0], seen[4]
        if own[2] or own[3]:
            assert data(infos["final_obs"][target]) == data(obs)
            obs, infos = alone.reset()[0], infos["final_info"]
        assert data(seen[0][target]) == data(obs)
        assert all(np.array_equal(infos[name][target], value) for name, value in own[4].items())


def some_actions(vector, rng):
    space = vector.single_action_space
    if isinstance(space, gym.spaces.Box):
        return rng.uniform(-1, 1, (vector.num_envs, *space.shape)).astype(np.float32)
    if isinstance(space, gym.spaces.MultiDiscrete):
        return rng.integers(space.nvec, size=(vector.num_envs, len(space.nvec)))
    return rng.integers(space.n, size=vector.num_envs)


@each_case
def test_one_state_in_every_slot_is_one_future_under_several_actions(case):
    single, several, arguments = CASES[case]
    env, vector = single(**arguments), several(num_envs=4, **arguments)
    player = Player(env, 5)
    player.play(np.random.default_rng(0), 20)
    state = env.clone_state()
    vector.reset(seed=9)
    for i in range(4):
        vector.restore_state(i, state)
    same = np.stack([action(env, np.random.default_rng(1))] * 4)
    for _ in range(30):
        obs, rewards, terminated, truncated, _ = vector.step(same)
        assert (obs == obs[0]).all() and (rewards == rewards[0]).all()
        assert (terminated == terminated[0]).all() and (truncated == truncated[0]).all()


def test_room_is_made_for_a_state_that_is_larger():
    """More requests, clients and cached blocks than the environments have met; those beside it notice nothing."""
    engine = ls.EngineConfig(LAW, token_budget=512, prefix_caching=True)
    requests = conversations(1, 300).sample(0)
    clients = np.arange(300) % 7
    table = ls.RequestTable.from_columns(
        requests.arrival, requests.prompt_tokens, requests.output_tokens, client=clients, parent=requests.parent,
        shared_tokens=requests.shared_tokens,
    )  # fmt: skip
    arguments = {"engine": engine, "load": None, "horizon": 12.0, "decision_interval": 0.2}
    large = BatchQueueEnv(ls.Workload.from_table(table, "large"), **arguments)
    player = Player(large, 0)
    player.play(np.random.default_rng(0), 35)
    state = large.clone_state()
    small = conversations(2, 20)
    vector, plain = (BatchQueueVectorEnv(workload=small, **arguments, num_envs=3) for _ in range(2))
    for each in (vector, plain):
        each.reset(seed=1)
        for _ in range(12):
            each.step(np.full((3, 4), [4, 5, 1, 0]))
    vector.restore_state(1, state)
    assert vector._runner.simulator.capacity >= 200 > plain._runner.simulator.capacity
    for _ in range(20):
        actions = np.full((3, 4), [5, 5, 2, 0])
        seen, expected, own = vector.step(actions), plain.step(actions), large.step(actions[1])
        assert data(seen[0][[0, 2]]) == data(expected[0][[0, 2]])
        assert data([seen[0][1], seen[1][1]]) == data([own[0], np.float64(own[1])])


def test_a_state_carries_the_last_observation_and_the_time():
    env = BatchQueueEnv(RANDOM, machine(0), horizon=3.0, decision_interval=0.25)
    env.reset(seed=0)
    obs = env.step(env.knobs.encode())[0]
    state = env.clone_state()
    assert state.time == 0.25
    np.testing.assert_array_equal(state.obs, obs)
    with pytest.raises(ValueError, match="read-only"):
        state.obs[0] = 1.0
    with pytest.raises(AttributeError):
        state.time = 0.0
    assert copy.deepcopy({"node": state})["node"] is state


def test_an_environment_that_was_never_reset_goes_on_from_a_state():
    first, second = (ClusterEnv(RANDOM, FLEET, load=0.8, horizon=3.0) for _ in range(2))
    player = Player(first, 3)
    player.play(np.random.default_rng(0), 5)
    second.restore_state(first.clone_state())
    own, other = first.step(1), second.step(1)
    assert data(own) == data(other)


BASE = {"workload": RANDOM, "engine": machine(0), "horizon": 3.0}


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        (IndexPolicyEnv, BASE, "environment 'BatchQueue', not 'IndexPolicy'"),
        (RequestSelectionEnv, BASE, "environment 'BatchQueue', not 'RequestSelection'"),
        (BatchQueueEnv, BASE | {"engine": machine(1)}, "engine.schedule_ahead 0, not 1"),
        (BatchQueueEnv, BASE | {"engine": machine(0, max_num_seqs=9)}, "engine.max_num_seqs None, not 9"),
        (BatchQueueEnv, BASE | {"reference": baselines.sarathi}, r"reference None, not \{'memory'"),
        (BatchQueueEnv, BASE | {"decision_interval": 0.5}, "decision_interval None, not 0.5"),
        (BatchQueueEnv, BASE | {"record": "requests"}, "record 'off', not 'requests'"),
    ],
)
def test_a_state_of_another_kind_is_refused_by_what_differs(kind, arguments, message):
    env, other = BatchQueueEnv(**BASE), kind(**arguments)
    env.reset(seed=0)
    obs = other.reset(seed=0)[0]
    with pytest.raises(ValueError, match=f"state must be of an environment of this kind, got one with {message}"):
        other.restore_state(env.clone_state())
    np.testing.assert_array_equal(other.clone_state().obs, obs)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"engines": (*FLEET[:2], machine(1))}, r"engines\[2\].schedule_ahead 0, not 1"),
        ({"scheduler": baselines.sarathi}, r"schedulers\[0\].name 'parametric', not 'sarathi'"),
        ({"scheduler": parametric(token_budget=9)}, r"schedulers\[0\].params.token_budget 512.0, not 9.0"),
        ({"routers": (round_robin,), "decision_interval": 1.0}, "router.name 'unrouted', not 'round_robin'"),
        ({"horizon": 9.0}, "horizon 3.0, not 9.0"),
    ],
)
def test_a_state_of_another_network_is_refused_by_what_differs(arguments, message):
    base = {"workload": RANDOM, "engines": FLEET, "horizon": 3.0}
    env, other = ClusterEnv(**base), ClusterEnv(**base | arguments)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=message):
        other.restore_state(env.clone_state())


def test_environments_with_other_rewards_refuse_a_state():
    env, other = BatchQueueEnv(**BASE), BatchQueueEnv(**BASE)
    env.reset(seed=0)
    other._kind["rewards"] = ("latency",)  # as if a row of the table were missing
    with pytest.raises(ValueError, match="rewards"):
        other.restore_state(env.clone_state())


def test_what_is_no_state_or_has_none_is_refused():
    env, vector = BatchQueueEnv(**BASE), BatchQueueVectorEnv(**BASE, num_envs=2)
    with pytest.raises(ValueError, match=r"clone_state\(\) needs a reset\(\)"):
        env.clone_state()
    with pytest.raises(ValueError, match=r"need a reset\(\)"):
        vector.clone_state(0)
    with pytest.raises(ValueError, match="i must be .* 0 and <= 1.*, got 2"):
        vector.clone_state(2)
    with pytest.raises(ValueError, match=r"state must be one that clone_state\(\) returned, got 3"):
        env.restore_state(3)


def of(value):
    """What can change of an object; of engines what is beside their arrays, but for the router that actions set."""
    if isinstance(value, Simulator | NetworkSimulator):
        not_kept = ("world", "network", "route", "_binding", "_theirs")
        value = {name: each for name, each in vars(value).items() if name not in not_kept}
    if isinstance(value, PerEnv):
        value = vars(value)
    if isinstance(value, dict):
        return {name: of(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [of(each) for each in value]
    return value.tobytes() if isinstance(value, np.ndarray) else repr(value)


@each_case
def test_nothing_of_a_runner_is_forgotten(case):
    """Every attribute of a runner is as it was, whatever has happened since: a new one belongs to `per_env`."""
    env = CASES[case][0](**CASES[case][2])
    player = Player(env, 1)
    player.play(np.random.default_rng(0), 130)
    state, before = env.clone_state(), of(env._runner)
    player.play(np.random.default_rng(1), 137)
    assert of(env._runner) != before
    env.restore_state(state)
    assert of(env._runner) == before


def test_the_cases_have_preemptions_prefix_hits_and_clients_that_give_up():
    """So that equality above says something of KV memory, the prefix cache and the queues."""
    for case in ("queue", "selection"):
        env = CASES[case][0](**CASES[case][2], record="requests")
        player, found = Player(env, 1), []
        for _ in range(12):
            player.play(np.random.default_rng(0), 10)
            requests = env.result().requests
            found.append(
                [requests.preemptions.sum(), requests.prefix_hit.sum(), (requests.status == "abandoned").sum()]
            )
        assert (np.max(found, axis=0) > 0).all(), (case, found)
