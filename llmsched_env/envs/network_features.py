"""What agents see of a network: engines and classes in `AgentNetwork`, engines and a call in `Cluster`.

Tables of features, by what their `measure` takes; an observation is several of them, one after the other.
"""

from typing import Any, NamedTuple

from llmsched_env.compiled import compiled
from llmsched_env.features import Feature, scaled_writer
from llmsched_env.simulator.kv_cache import IDLE_OR_HELD, prefix_blocks
from llmsched_env.simulator.state import BUSY_PHASE, UNLIMITED
from llmsched_env.simulator.world import prefixes_of


class ClassQueue(NamedTuple):
    """The calls of a class at an engine."""

    waiting: int
    running: int
    prefill_left: int  # prompt tokens left in both
    decoding: int


@compiled
def survey_class(world, g, k, classes):
    """The `ClassQueue` of class `k` at engine `g`; the last of `classes` stands for all above it as well."""
    req, engine = world.req, world.engines[g]
    waiting, running, prefill_left, decoding = 0, 0, 0, 0
    for place in range(engine.waiting_head, engine.waiting_head + engine.num_waiting):
        i = world.waiting[g, place]
        if min(req.klass[i], classes - 1) == k:
            waiting += 1
            prefill_left += req.prefill_tokens[i] - req.computed[i]
    for place in range(engine.num_running):
        i = world.running[g, place]
        if min(req.klass[i], classes - 1) == k:
            left = req.prefill_tokens[i] - req.computed[i]
            running += 1
            if left > 0:
                prefill_left += left
            else:
                decoding += 1
    return ClassQueue(waiting, running, prefill_left, decoding)


@compiled
def batch_tokens(world, g):
    """Tokens of the batch that engine `g` runs, as a share of its budget; 0 if it runs none."""
    engine = world.engines[g]
    return world.totals[g].latest_tokens / engine.token_budget if engine.phase == BUSY_PHASE else 0.0


@compiled
def batch_prefill_share(world, g):
    """Share of prefill tokens in that batch."""
    totals = world.totals[g]
    if world.engines[g].phase != BUSY_PHASE:
        return 0.0
    return totals.latest_prefill_tokens / max(1, totals.latest_tokens)


@compiled
def kv_used(world, g):
    """Share of KV blocks in use at engine `g`; 0 with unlimited memory."""
    kv = world.kv[g]
    return 1.0 - kv.free / kv.total if kv.total < UNLIMITED else 0.0


@compiled
def cached_tokens_of_call(world, g, i):
    """Prompt tokens of call `i` that the prefix cache of engine `g` holds; 0 where `i` is -1."""
    kv = world.kv[g]
    if i < 0 or kv.prefix_caching == 0:
        return 0
    most = (world.req.prompt_tokens[i] - 1) // kv.block_size
    return prefix_blocks(prefixes_of(world, g), i, most, IDLE_OR_HELD) * kv.block_size


@compiled
def downstream(world, k):
    """Calls of the classes that a call of class `k` releases, weighted by the mean number that it releases."""
    onward = 0.0
    for after in range(len(world.classes)):
        onward += world.onward[k, after] * world.classes[after].present
    return onward


@compiled
def calls_at_engines(world):
    """Calls that wait or run at an engine."""
    calls = 0
    for g in range(len(world.engines)):
        calls += world.engines[g].num_in_system
    return calls


OF_CLASS_AT_ENGINE = (
    Feature("waiting", "calls of the class that wait at the engine", 4096, lambda queue: queue.waiting),
    Feature("running", "calls of the class that run there", 4096, lambda queue: queue.running),
    Feature("prefill_left", "prompt tokens left in both", 4194304, lambda queue: queue.prefill_left),
    Feature("decoding", "calls of the class that decode there", 4096, lambda queue: queue.decoding),
)
OF_ENGINE = (
    Feature(
        "batch_tokens", "tokens of the batch that runs there, as a share of the engine's budget", None, batch_tokens
    ),
    Feature("batch_prefill_share", "share of prefill tokens in that batch", None, batch_prefill_share),
    Feature("kv_used", "share of KV blocks in use", None, kv_used),
)
OF_CLASS = (
    Feature("present", "calls of the class at all engines", 4096, lambda world, k: world.classes[k].present),
    Feature(
        "downstream",
        "calls of the classes that one of this class releases, weighted by how many it does",
        4096,
        downstream,
    ),
)
OF_NETWORK = (
    Feature("tasks", "tasks in the system", 65536, lambda world, progress: progress.tasks_present),
    Feature("calls", "calls at engines", 65536, lambda world, progress: calls_at_engines(world)),
)

OF_DESTINATION = (
    Feature(
        "outstanding_calls",
        "calls sent there that have not finished",
        4096,
        lambda world, network, g, i: network.outstanding[g].calls,
    ),
    Feature(
        "outstanding_prompt_tokens",
        "their prompt tokens",
        16777216,
        lambda world, network, g, i: network.outstanding[g].prompt_tokens,
    ),
    Feature("waiting", "calls that wait there", 4096, lambda world, network, g, i: world.engines[g].num_waiting),
    Feature("running", "calls that run there", 4096, lambda world, network, g, i: world.engines[g].num_running),
    Feature("kv_used", "share of KV blocks in use", None, lambda world, network, g, i: kv_used(world, g)),
    Feature(
        "batch_tokens",
        "tokens of the batch that runs there, as a share of the engine's budget",
        None,
        lambda world, network, g, i: batch_tokens(world, g),
    ),
    Feature(
        "batch_prefill_share",
        "share of prefill tokens in that batch",
        None,
        lambda world, network, g, i: batch_prefill_share(world, g),
    ),
    Feature(
        "cached_tokens",
        "prompt tokens of the call that its prefix cache holds",
        131072,
        lambda world, network, g, i: cached_tokens_of_call(world, g, i),
    ),
)
OF_CALL = (
    Feature(
        "prompt_tokens",
        "prompt tokens of the call to route",
        131072,
        lambda world, i: world.req.prompt_tokens[i] if i >= 0 else 0,
    ),
    Feature(
        "hop",
        "calls before it on the longest path of its task",
        256,
        lambda world, i: world.req.hop[i] if i >= 0 else 0,
    ),
)


def class_features(engines: int, classes: int) -> tuple[Feature, ...]:
    """The observation of `AgentNetwork`: by engine and class, by engine, by class, and totals."""
    return (*OF_CLASS_AT_ENGINE * (engines * classes), *OF_ENGINE * engines, *OF_CLASS * classes, *OF_NETWORK)


def routing_features(engines: int) -> tuple[Feature, ...]:
    """The observation of `Cluster`: by engine, then of the call to route and the network."""
    return (*OF_DESTINATION * engines, *OF_CALL, *OF_NETWORK)


def _writer(features: tuple[Feature, ...], arguments: tuple[str, ...]) -> Any:
    return scaled_writer(features, arguments, rounded=True)


_write_class_at_engine, _width_class_at_engine = _writer(OF_CLASS_AT_ENGINE, ("queue",)), len(OF_CLASS_AT_ENGINE)
_write_engine, _width_engine = _writer(OF_ENGINE, ("world", "g")), len(OF_ENGINE)
_write_class, _width_class = _writer(OF_CLASS, ("world", "k")), len(OF_CLASS)
_write_network = _writer(OF_NETWORK, ("world", "progress"))
_write_destination, _width_destination = _writer(OF_DESTINATION, ("world", "network", "g", "i")), len(OF_DESTINATION)
_write_call, _width_call = _writer(OF_CALL, ("world", "i")), len(OF_CALL)


@compiled
def observe_classes(world, network, progress, obs):
    """Write `class_features` to `obs` (f4); `progress` is a record NETWORK_PROGRESS in an array."""
    classes, place = world.params.shape[1], 0
    for g in range(len(world.engines)):
        for k in range(classes):
            _write_class_at_engine(survey_class(world, g, k, classes), obs[place:])
            place += _width_class_at_engine
    for g in range(len(world.engines)):
        _write_engine(world, g, obs[place:])
        place += _width_engine
    for k in range(classes):
        if k < len(world.classes):
            _write_class(world, k, obs[place:])
        else:  # a class of which no call has come in this episode
            obs[place : place + _width_class] = 0.0
        place += _width_class
    _write_network(world, progress[0], obs[place:])


@compiled
def observe_engines(world, network, progress, obs):
    """Write `routing_features` to `obs` (f4); those of the call are zeros if none is to be routed."""
    i, place = network.control.routing - 1, 0
    for g in range(len(world.engines)):
        _write_destination(world, network, g, i, obs[place:])
        place += _width_destination
    _write_call(world, i, obs[place:])
    _write_network(world, progress[0], obs[place + _width_call :])
