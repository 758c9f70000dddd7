"""What the agent of `llmsched/Cluster-v1` sees: a block of features for each engine, then the call and the network.

It is what a router in front of real engines knows: the calls that it has sent to each, which of them have begun and how
many tokens they have yielded, predicted lengths, the batch times that were profiled beforehand, and the memory in use.
"""

from typing import NamedTuple

from llmsched_env.compiled import compiled
from llmsched_env.envs.network_features import OF_CALL, OF_NETWORK, cached_tokens_of_call, kv_used
from llmsched_env.features import Feature, scaled_writer
from llmsched_env.machine.compiled_law import seconds_with_host
from llmsched_env.simulator.router import CHUNK, chunk_seconds, decode_step_seconds, predicted_output
from llmsched_env.simulator.state import ABSENT, ACTIVE, UNLIMITED

MS_SCALE = 1e6  # scale of all durations (ms), so that the difference of two features is the logarithm of their ratio
_DECODES, _CONTEXT = 64, 1024  # the batch by which the speed of decoding is measured


class Outlook(NamedTuple):
    """An engine as a call `i` finds it, by predicted lengths."""

    prefill: float  # s of a batch of `CHUNK` prompt tokens
    decode: float  # s of a decode step of 64 calls with 1024 tokens each
    step: float  # s of the next decode step with the call in it
    waiting: int  # calls that wait there, those on their way included
    running: int  # calls that run there
    prompt_left: float  # prompt tokens of both that have not been computed
    output_left: float  # predicted output tokens of both that have not been generated
    free: float  # tokens for which it has free KV memory
    memory: float  # tokens for which it has KV memory in all; 0: unlimited
    prompt: float  # prompt tokens of the call,
    missing: float  # those that the prefix cache does not hold,
    output: float  # and predicted output tokens; all 0 if no call is to be routed


@compiled(inline=True)
def _output_left(req, i):
    """Predicted output tokens that call `i` has still to generate: at least one, however wrong the prediction was."""
    return max(1.0, predicted_output(req, i) - req.generated[i])


@compiled
def outlook(world, g, i):
    """The `Outlook` of engine `g`; `i` is -1 if no call is to be routed."""
    req, engine, kv, law = world.req, world.engines[g], world.kv[g], world.believed_law[g]
    waiting, prompt_left, output_left = engine.num_waiting, 0.0, 0.0
    for place in range(engine.waiting_head, engine.waiting_head + engine.num_waiting):
        j = world.waiting[g, place]
        prompt_left += req.prefill_tokens[j] - req.computed[j]
        output_left += _output_left(req, j)
    for place in range(engine.num_running):
        j = world.running[g, place]
        prompt_left += max(0, req.prefill_tokens[j] - req.computed[j])
        output_left += _output_left(req, j)
    for place in range(engine.num_events):  # calls that were sent there at this very moment; timeouts as well
        j = world.events[g, place]
        if req.phase[j] == ABSENT and world.hidden.status[j] == ACTIVE:
            waiting += 1
            prompt_left += req.prompt_tokens[j] - req.computed[j]
            output_left += _output_left(req, j)
    prompt = float(req.prompt_tokens[i]) if i >= 0 else 0.0
    return Outlook(
        prefill=chunk_seconds(law),
        decode=seconds_with_host(law, float(_DECODES), float(_DECODES * _CONTEXT), 0.0, 0.0, float(_DECODES), False),
        step=decode_step_seconds(law, kv, engine.num_running, prompt),
        waiting=waiting,
        running=engine.num_running,
        prompt_left=prompt_left,
        output_left=output_left,
        free=float(kv.free * kv.block_size),
        memory=float(kv.total * kv.block_size) if kv.total < UNLIMITED else 0.0,
        prompt=prompt,
        missing=prompt - cached_tokens_of_call(world, g, i),
        output=predicted_output(req, i) if i >= 0 else 0.0,
    )


@compiled
def _demand(at):
    """Tokens of memory that the calls there and the call will take beyond those in use, over all there is."""
    return (at.prompt_left + at.output_left + at.prompt + at.output) / at.memory if at.memory > 0.0 else 0.0


@compiled
def _room(at):
    if at.memory == 0.0:
        return 1.0
    return 1.0 if at.prompt_left + at.missing + at.output <= at.free else 0.0


OF_OUTLOOK = (
    Feature(
        "prefill_ms", f"ms of a batch of {CHUNK} prompt tokens there", MS_SCALE, lambda world, g, at: 1e3 * at.prefill
    ),
    Feature(
        "decode_ms",
        f"ms of a decode step of {_DECODES} calls with {_CONTEXT} tokens each",
        MS_SCALE,
        lambda world, g, at: 1e3 * at.decode,
    ),
    Feature(
        "prefill_outstanding_ms",
        "ms of computing the prompt tokens left in its calls",
        MS_SCALE,
        lambda world, g, at: 1e3 * at.prompt_left / CHUNK * at.prefill,
    ),
    Feature(
        "decode_outstanding_ms",
        "ms of generating the predicted tokens left in its calls, all in one batch",
        MS_SCALE,
        lambda world, g, at: 1e3 * at.output_left / max(1, at.waiting + at.running) * at.step,
    ),
    Feature("kv_used", "share of KV blocks in use", None, lambda world, g, at: kv_used(world, g)),
    Feature(
        "kv_to_come",
        "predicted tokens of memory to come, those of the call included, over its memory",
        64,
        lambda world, g, at: _demand(at),
    ),
    Feature("waiting", "calls that wait there", 4096, lambda world, g, at: at.waiting),
    Feature("running", "calls that run there", 4096, lambda world, g, at: at.running),
    Feature(
        "room", "1: the call fits into free memory after the prompts that wait", None, lambda world, g, at: _room(at)
    ),
    Feature(
        "call_prefill_ms",
        "ms of computing the prompt of the call there, without what its prefix cache holds",
        MS_SCALE,
        lambda world, g, at: 1e3 * at.missing / CHUNK * at.prefill,
    ),
    Feature(
        "call_decode_ms",
        "ms of generating its predicted tokens there at the present pace",
        MS_SCALE,
        lambda world, g, at: 1e3 * at.output * at.step,
    ),
    Feature(
        "held_up_ms",
        "ms by which its prompt holds up the calls there, summed over them",
        MS_SCALE,
        lambda world, g, at: 1e3 * (at.waiting + at.running) * at.missing / CHUNK * at.prefill,
    ),
    Feature("step_ms", "ms of the next decode step with the call in it", MS_SCALE, lambda world, g, at: 1e3 * at.step),
)
"""Of an engine. Arguments: world, engine, `Outlook`."""
OF_PREDICTED_CALL = (
    *OF_CALL,
    Feature(
        "predicted_output",
        "its predicted output tokens",
        131072,
        lambda world, i: predicted_output(world.req, i) if i >= 0 else 0.0,
    ),
    Feature(
        "ttft_ms", "its TTFT target, ms", MS_SCALE, lambda world, i: 1e3 * world.req.ttft_slo[i] if i >= 0 else 0.0
    ),
    Feature(
        "tpot_ms", "its TPOT target, ms", MS_SCALE, lambda world, i: 1e3 * world.req.tpot_slo[i] if i >= 0 else 0.0
    ),
)
OF_ARRIVALS = (
    *OF_NETWORK,
    Feature("short_rate", "calls/s over the last 2 s or so", 4096, lambda world, progress: progress.short_rate),
    Feature("long_rate", "calls/s over the last 20 s or so", 4096, lambda world, progress: progress.long_rate),
)


def outlook_features(engines: int) -> tuple[Feature, ...]:
    """The observation of `llmsched/Cluster-v1`: by engine, then of the call to route and the network."""
    return (*OF_OUTLOOK * engines, *OF_PREDICTED_CALL, *OF_ARRIVALS)


_write_outlook, _width = scaled_writer(OF_OUTLOOK, ("world", "g", "at"), rounded=True), len(OF_OUTLOOK)
_write_call, _width_call = scaled_writer(OF_PREDICTED_CALL, ("world", "i"), rounded=True), len(OF_PREDICTED_CALL)
_write_arrivals = scaled_writer(OF_ARRIVALS, ("world", "progress"), rounded=True)


@compiled
def observe_outlooks(world, network, progress, obs):
    """Write `outlook_features` to `obs` (f4); those that depend on a call are those of none if none is to be routed."""
    i, place = network.control.routing - 1, 0
    for g in range(len(world.engines)):
        _write_outlook(world, g, outlook(world, g, i), obs[place:])
        place += _width
    _write_call(world, i, obs[place:])
    _write_arrivals(world, progress[0], obs[place + _width_call :])
