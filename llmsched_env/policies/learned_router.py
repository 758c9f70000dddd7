"""The index router: the engine of least cost, a weighted sum of seconds whose weights a network sets for every call.

Its terms are what a router in front of real engines knows: the calls it has sent to each and that have not come back,
their prompts and predicted lengths, what runs and how much memory is held there, the prompt tokens that its prefix
cache has of this call, and the batch times that were profiled beforehand. All are in seconds of that engine, so that
engines of different speed compare and the same weights serve fleets of any size and speed. The network sees the fleet
and the call, not single engines. It never sees true lengths.

With an output layer of zeros it is `least_outstanding_tokens`.
"""

from dataclasses import dataclass, replace
from math import log, log1p
from pathlib import Path
from typing import NamedTuple

import numpy as np

from llmsched_env.compiled import compiled
from llmsched_env.features import Feature, names, writer
from llmsched_env.policies.perceptron import Output, Perceptron, evaluate, rescale, scaling
from llmsched_env.policies.weights import load_weights
from llmsched_env.simulator.memory import number_names, number_record, router_memory
from llmsched_env.simulator.router import (
    CHUNK,
    Router,
    cached_prefix,
    chunk_seconds,
    decode_step_seconds,
    demanded_blocks,
    predicted_output,
)


class FleetStatistics(NamedTuple):
    """What one pass over the engines that call `i` may go to gives."""

    calls: float  # mean unfinished calls of an engine
    waiting: float  # mean of those that do not run yet
    output: float  # predicted output tokens of the call
    fullest: float  # largest share of KV blocks that calls of an engine hold or ask for
    slowest: float  # s of a batch of `CHUNK` tokens on the slowest engine,
    fastest: float  # on the fastest one,
    mean_batch: float  # and the mean
    cached: float  # most prompt tokens of the call that a prefix cache holds
    most: float  # most known tokens of unfinished calls of an engine,
    fewest: float  # fewest,
    mean_tokens: float  # and the mean


FEATURES = (
    Feature("calls", "unfinished calls per engine", None, lambda fleet, i, of: 0.5 * log1p(of.calls) - 1.0),
    Feature("waiting", "calls per engine that do not run yet", None, lambda fleet, i, of: 0.5 * log1p(of.waiting)),
    Feature(
        "prompt",
        "prompt tokens of the call",
        None,
        lambda fleet, i, of: log1p(fleet.req.prompt_tokens[i] / CHUNK) - 1.0,
    ),
    Feature("output", "predicted output tokens of the call", None, lambda fleet, i, of: log1p(of.output / CHUNK) - 0.5),
    Feature("fullest", "largest share of KV blocks held or asked for", None, lambda fleet, i, of: min(2.0, of.fullest)),
    Feature("speeds", "slowest engine over the fastest", None, lambda fleet, i, of: log(of.slowest / of.fastest)),
    Feature(
        "cached",
        "largest share of the prompt that a prefix cache holds",
        None,
        lambda fleet, i, of: of.cached / fleet.req.prompt_tokens[i],
    ),
    Feature(
        "imbalance",
        "most less fewest known tokens of an engine, over their mean",
        None,
        lambda fleet, i, of: (of.most - of.fewest) / (of.mean_tokens + CHUNK),
    ),
)
"""Of the fleet and a call. Arguments: fleet, call, `FleetStatistics`."""


class EngineLoad(NamedTuple):
    """What the terms of an engine are computed from, for one call."""

    batch: float  # s of a batch of `CHUNK` tokens on it,
    mean_batch: float  # and the mean over all engines
    step: float  # s of its next decode step with the call in it
    calls: float  # its unfinished calls
    prompts: float  # their prompt tokens
    tokens: float  # their known tokens, predicted ones included
    running: int  # calls that run there
    demanded: float  # KV blocks that calls hold or ask for
    total: float  # KV blocks
    block_size: int  # tokens
    prompt: int  # prompt tokens of the call,
    missing: float  # those that its prefix cache does not hold,
    output: float  # and predicted output tokens
    repeated: bool  # whether the call before went there too


@dataclass(frozen=True, slots=True)
class Term(Feature):
    """A term of an engine's cost, in seconds; its weight is `start` + `spread` * output of the network."""

    start: float = 0.0
    spread: float = 1.0


@compiled
def _overflow(fleet, g, i, at):
    tokens = max(0.0, (at.demanded - at.total) * at.block_size + at.prompt + at.output)
    return tokens / CHUNK * at.batch


TERMS = (
    Term(
        "tokens",
        "known tokens of its unfinished calls, at the mean speed of all engines",
        None,
        lambda fleet, g, i, at: at.tokens / CHUNK * at.mean_batch,
        start=1.0,
    ),
    Term(
        "speed",
        "how much longer the same tokens take at its own speed; below 0 for a fast one",
        None,
        lambda fleet, g, i, at: at.tokens / CHUNK * (at.batch - at.mean_batch),
    ),
    Term("prompts", "their prompt tokens", None, lambda fleet, g, i, at: at.prompts / CHUNK * at.batch),
    Term("calls", "their number, a batch each", None, lambda fleet, g, i, at: at.calls * at.batch),
    Term(
        "queue",
        "prompt tokens of those that do not run yet",
        None,
        lambda fleet, g, i, at: max(0.0, at.calls - at.running) * at.prompts / max(1.0, at.calls) / CHUNK * at.batch,
    ),
    Term(
        "own_prompt",
        "prompt tokens of this call that are not cached",
        None,
        lambda fleet, g, i, at: at.missing / CHUNK * at.batch,
        spread=2.0,
    ),
    Term(
        "delay",
        "the same for each call that runs: how much longer these take",
        None,
        lambda fleet, g, i, at: at.running * at.missing / CHUNK * at.batch,
        spread=0.2,
    ),
    Term(
        "decode", "decode steps of the predicted tokens of this call", None, lambda fleet, g, i, at: at.output * at.step
    ),
    Term(
        "crowded",
        "the same, times the share of its KV blocks that calls hold or ask for",
        None,
        lambda fleet, g, i, at: at.output * at.step * at.demanded / at.total,
    ),
    Term("overflow", "tokens of memory that it lacks for these and this call", None, _overflow, spread=2.0),
    Term(
        "repeated",
        "a batch, if the call before went there too",
        None,
        lambda fleet, g, i, at: at.batch if at.repeated else 0.0,
    ),
)
"""Of an engine, in seconds. Arguments: fleet, engine, call, `EngineLoad`."""

SCALING = scaling([Output(term.name, term.start, term.spread) for term in TERMS])
PERCEPTRON = Perceptron(names(FEATURES), 6, names(TERMS))

_memory_record = number_record(
    "last",  # the engine of the call before, plus 1
    inputs=len(FEATURES),
    hidden=PERCEPTRON.hidden,
    weights=len(TERMS),
    terms=len(TERMS),
)
_memory = router_memory(_memory_record)
_write_features = writer(FEATURES, ("fleet", "i", "of"))
_write_terms = writer(TERMS, ("fleet", "g", "i", "at"))


@compiled
def route(fleet, i):
    """Set the weights, then take the least sum; of equals that with the fewest known tokens, then the first."""
    memory, seen = _memory(fleet), _fleet_statistics(fleet, i)
    _write_features(fleet, i, seen, memory.inputs)
    evaluate(fleet.params, memory.inputs, memory.hidden, memory.weights)
    rescale(SCALING, memory.weights)
    best, least = -1, 0.0
    for g in range(len(fleet.allowed)):
        if fleet.allowed[g] == 1:
            _write_terms(fleet, g, i, _engine_load(fleet, g, i, seen.mean_batch), memory.terms)
            total = 0.0
            for k in range(len(memory.terms)):
                total += memory.weights[k] * memory.terms[k]
            fewer = best >= 0 and fleet.outstanding[g].known_work < fleet.outstanding[best].known_work
            if best < 0 or total < least or (total == least and fewer):
                best, least = g, total
    memory.last = best + 1.0
    return best


@compiled
def _fleet_statistics(fleet, i):
    engines, calls, waiting, seconds, tokens = 0, 0.0, 0.0, 0.0, 0.0
    fastest, slowest, fullest, cached, most, fewest = np.inf, 0.0, 0.0, 0.0, 0.0, np.inf
    for g in range(len(fleet.allowed)):
        if fleet.allowed[g] == 1:
            engines += 1
            calls += fleet.outstanding[g].calls
            waiting += max(0.0, fleet.outstanding[g].calls - fleet.engines[g].num_running)
            batch, known = chunk_seconds(fleet.law[g]), fleet.outstanding[g].known_work
            seconds += batch
            tokens += known
            fastest, slowest = min(fastest, batch), max(slowest, batch)
            fewest, most = min(fewest, known), max(most, known)
            fullest = max(fullest, demanded_blocks(fleet, g) / fleet.kv[g].total)
            cached = max(cached, float(cached_prefix(fleet, g, i)))
    return FleetStatistics(
        calls=calls / engines,
        waiting=waiting / engines,
        output=predicted_output(fleet.req, i),
        fullest=fullest,
        slowest=slowest,
        fastest=fastest,
        mean_batch=seconds / engines,
        cached=cached,
        most=most,
        fewest=fewest,
        mean_tokens=tokens / engines,
    )


@compiled
def _engine_load(fleet, g, i, mean_batch):
    running, prompt, sent = fleet.engines[g].num_running, fleet.req.prompt_tokens[i], fleet.outstanding[g]
    return EngineLoad(
        batch=chunk_seconds(fleet.law[g]),
        mean_batch=mean_batch,
        step=decode_step_seconds(fleet.law[g], fleet.kv[g], running, prompt),
        calls=sent.calls,
        prompts=sent.prompt_tokens,
        tokens=sent.known_work,
        running=running,
        demanded=demanded_blocks(fleet, g),
        total=float(fleet.kv[g].total),
        block_size=fleet.kv[g].block_size,
        prompt=prompt,
        missing=float(prompt - cached_prefix(fleet, g, i)),
        output=predicted_output(fleet.req, i),
        repeated=_memory(fleet).last == g + 1.0,
    )


learned_router = Router(
    "learned_router",
    route,
    memory=number_names(_memory_record),
    needs_lengths="predicted",
    weights=(0.0,) * PERCEPTRON.size,
    reference="ours: a sum of seconds, its weights set for each call by a network",
)


def with_weights(weights: np.ndarray, name: str = "learned_router") -> Router:
    """The index router with these weights."""
    return replace(learned_router, name=name, weights=tuple(np.asarray(weights, float).tolist()))


def load(path: str | Path, name: str | None = None) -> Router:
    """The router that a training has found; `name` is that of the file if None.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it holds no weights of this network.
    """
    return with_weights(load_weights(path, PERCEPTRON, "trained router"), Path(path).stem if name is None else name)
