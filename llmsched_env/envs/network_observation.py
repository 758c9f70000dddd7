"""What agents see of a network: engines and classes in `AgentNetwork`, engines and a call in `Cluster`."""

from collections.abc import Sequence

import numpy as np
from gymnasium.spaces import Box

from llmsched_env.envs.network_account import TASKS_PRESENT, account
from llmsched_env.envs.observation import Feature
from llmsched_env.simulator.compiled import compiled
from llmsched_env.simulator.kv_cache import IDLE_OR_HELD, prefix_blocks
from llmsched_env.simulator.state import BUSY_PHASE, UNLIMITED
from llmsched_env.simulator.world import prefixes_of

OF_CLASS_AT_ENGINE = (
    Feature("waiting", "calls of the class that wait at the engine", 4096),
    Feature("running", "calls of the class that run there", 4096),
    Feature("prefill_left", "prompt tokens left in both", 4194304),
    Feature("decoding", "calls of the class that decode there", 4096),
)
OF_ENGINE = (
    Feature("batch_tokens", "tokens of the batch that runs there, as a share of the engine's budget", None),
    Feature("batch_prefill_share", "share of prefill tokens in that batch", None),
    Feature("kv_used", "share of KV blocks in use", None),
)
OF_CLASS = (
    Feature("present", "calls of the class at all engines", 4096),
    Feature("downstream", "calls of the classes that one of this class releases, weighted by how many it does", 4096),
)
OF_NETWORK = (Feature("tasks", "tasks in the system", 65536), Feature("calls", "calls at engines", 65536))

OF_DESTINATION = (
    Feature("outstanding_calls", "calls sent there that have not finished", 4096),
    Feature("outstanding_prompt_tokens", "their prompt tokens", 16777216),
    Feature("waiting", "calls that wait there", 4096),
    Feature("running", "calls that run there", 4096),
    Feature("kv_used", "share of KV blocks in use", None),
    Feature("batch_tokens", "tokens of the batch that runs there, as a share of the engine's budget", None),
    Feature("batch_prefill_share", "share of prefill tokens in that batch", None),
    Feature("cached_tokens", "prompt tokens of the call that its prefix cache holds", 131072),
)
OF_CALL = (
    Feature("prompt_tokens", "prompt tokens of the call to route", 131072),
    Feature("hop", "calls before it on the longest path of its task", 256),
)


def class_features(engines: int, classes: int) -> tuple[Feature, ...]:
    """The observation of `AgentNetwork`: by engine and class, by engine, by class, and totals."""
    return (*OF_CLASS_AT_ENGINE * (engines * classes), *OF_ENGINE * engines, *OF_CLASS * classes, *OF_NETWORK)


def routing_features(engines: int) -> tuple[Feature, ...]:
    """The observation of `Cluster`: by engine, then of the call to route and the network."""
    return (*OF_DESTINATION * engines, *OF_CALL, *OF_NETWORK)


def scales(features: Sequence[Feature]) -> np.ndarray:
    """f8[features]: 1 / log(1 + scale) of each; 0 where the feature is a share."""
    return np.array([0.0 if feature.scale is None else 1 / np.log1p(feature.scale) for feature in features])


def box(features: Sequence[Feature]) -> Box:
    """Box of shape [features] in [0, 1]."""
    return Box(0.0, 1.0, (len(features),), np.float32)


@compiled
def observe_classes(world, network, num_tasks, scale, progress, terms, obs):
    """Account for the step and write `class_features` to `obs` (f4)."""
    account(world, network, num_tasks, progress, terms)
    for k in range(len(obs)):
        obs[k] = 0.0
    engines = len(world.engines)
    classes = world.params.shape[1]
    place = 0
    for g in range(engines):
        _observe_queues(world, g, classes, place, obs)
        place += classes * 4
    for g in range(engines):
        _observe_batch(world, g, place, obs)
        obs[place + 2] = _kv_used(world, g)
        place += 3
    for k in range(min(classes, len(world.classes))):
        onward = 0.0
        for after in range(len(world.classes)):
            onward += world.onward[k, after] * world.classes[after].present
        obs[place + 2 * k] = world.classes[k].present
        obs[place + 2 * k + 1] = onward
    _observe_totals(world, progress, place + 2 * classes, obs)
    _squash(scale, obs)


@compiled
def _observe_queues(world, g, classes, place, obs):
    req, engine = world.req, world.engines[g]
    for k in range(engine.waiting_head, engine.waiting_head + engine.num_waiting):
        i = world.waiting[g, k]
        at = place + 4 * min(req.klass[i], classes - 1)
        obs[at] += 1.0
        obs[at + 2] += req.prefill_tokens[i] - req.computed[i]
    for k in range(engine.num_running):
        i = world.running[g, k]
        at = place + 4 * min(req.klass[i], classes - 1)
        left = req.prefill_tokens[i] - req.computed[i]
        obs[at + 1] += 1.0
        if left > 0:
            obs[at + 2] += left
        else:
            obs[at + 3] += 1.0


@compiled
def _observe_batch(world, g, place, obs):
    if world.engines[g].phase == BUSY_PHASE:
        tokens = world.totals[g].latest_tokens
        obs[place] = tokens / world.engines[g].token_budget
        obs[place + 1] = world.totals[g].latest_prefill_tokens / max(1, tokens)


@compiled
def _kv_used(world, g):
    kv = world.kv[g]
    return 1.0 - kv.free / kv.total if kv.total < UNLIMITED else 0.0


@compiled
def _observe_totals(world, progress, place, obs):
    obs[place] = progress[TASKS_PRESENT]
    for g in range(len(world.engines)):
        obs[place + 1] += world.engines[g].num_in_system


@compiled
def _squash(scale, obs):
    """A feature x that is no share becomes log(1 + x) / log(1 + scale); all are clipped to [0, 1]."""
    for k in range(len(obs)):
        value = np.float64(obs[k])
        if scale[k] > 0.0:
            value = np.log1p(value) * scale[k]
        obs[k] = min(1.0, max(0.0, value))


@compiled
def observe_engines(world, network, num_tasks, scale, progress, terms, obs):
    """Account for the step and write `routing_features` to `obs` (f4); of the call zeros if none is to be routed."""
    account(world, network, num_tasks, progress, terms)
    for k in range(len(obs)):
        obs[k] = 0.0
    i = network.control.routing - 1
    engines = len(world.engines)
    for g in range(engines):
        place = 8 * g
        obs[place] = network.outstanding[g].calls
        obs[place + 1] = network.outstanding[g].prompt_tokens
        obs[place + 2] = world.engines[g].num_waiting
        obs[place + 3] = world.engines[g].num_running
        obs[place + 4] = _kv_used(world, g)
        _observe_batch(world, g, place + 5, obs)
        if i >= 0 and world.kv[g].prefix_caching == 1:
            most = (world.req.prompt_tokens[i] - 1) // world.kv[g].block_size
            blocks = prefix_blocks(prefixes_of(world, g), i, most, IDLE_OR_HELD)
            obs[place + 7] = blocks * world.kv[g].block_size
    place = 8 * engines
    if i >= 0:
        obs[place] = world.req.prompt_tokens[i]
        obs[place + 1] = world.req.hop[i]
    _observe_totals(world, progress, place + 2, obs)
    _squash(scale, obs)
