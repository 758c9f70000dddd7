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
from llmsched_env.envs.batch_queue import BatchQueueEnv, BatchQueueVectorEnv
from llmsched_env.envs.cluster import ClusterEnv, ClusterVectorEnv
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
    timeout = np.where(rng.random(n) < 0.2, 1.5, np.inf)
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
    "index": (IndexPolicyEnv, IndexPolicyVectorEnv, ENGINE | {"engine": machine(0, prefix_caching=True)}),
    "selection": (RequestSelectionEnv, RequestSelectionVectorEnv, ENGINE | {"slots": 5, "token_budget": 200}),
    "cluster": (ClusterEnv, ClusterVectorEnv, {"workload": AGENTS, "engines": FLEET, "load": None, "horizon": 4.0}),
    "cluster, requests": (
        ClusterEnv,
        ClusterVectorEnv,
        {"workload": RANDOM, "engines": FLEET, "load": (0.4, 1.2), "horizon": 3.0},
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

    def acts(rng):
        env = single(**arguments)
        return np.array([action_of(env.action_space, rng) for _ in range(3)])

    rng = np.random.default_rng(seed)
    for _ in range(before):
        actions = acts(rng)
        vector.step(actions)
        plain.step(actions)
        if any(alone.step(actions[source])[2:4]):
            alone.reset()
    state = vector.clone_state(source)
    others = [i for i in range(3) if i != target]
    kept = [vector.clone_state(i) for i in others]
    for _ in range(astray):
        vector.step(acts(rng))
    for i, its in zip(others, kept, strict=True):
        vector.restore_state(i, its)
    vector.restore_state(target, state)
    for _ in range(after):
        actions = acts(rng)
        seen, expected, own = vector.step(actions), plain.step(actions), alone.step(actions[target])
        for i in others:
            assert data([part[i] for part in seen[:4]]) == data([part[i] for part in expected[:4]])
        assert data([part[target] for part in seen[1:4]]) == data([np.asarray(x)[()] for x in own[1:4]])
        last = seen[0][target]
        if own[2] or own[3]:
            assert data(seen[4]["final_obs"][target]) == data(own[0])
            own = (alone.reset()[0],)
        assert data(last) == data(own[0])


def action_of(space, rng):
    if isinstance(space, gym.spaces.Box):
        return rng.uniform(-1, 1, space.shape).astype(np.float32)
    return rng.integers(space.nvec) if isinstance(space, gym.spaces.MultiDiscrete) else rng.integers(space.n)
