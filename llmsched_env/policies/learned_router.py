"""The index router: the engine of least cost, a weighted sum of seconds whose weights a network sets for every call.

Its terms are what a router in front of real engines knows: the calls it has sent to each and that have not come back,
their prompts and predicted lengths, what runs and how much memory is held there, the prompt tokens that its prefix
cache has of this call, and the batch times that were profiled beforehand. All are in seconds of that engine, so that
engines of different speed compare and the same weights serve fleets of any size and speed. The network sees the fleet
and the call, not single engines. It never sees true lengths.

With an output layer of zeros it is `least_outstanding_tokens`.
"""

from math import log, log1p

import numpy as np

from llmsched_env.policies.learned import evaluate
from llmsched_env.simulator.batch_time import seconds_with_host
from llmsched_env.simulator.compiled import compiled
from llmsched_env.simulator.router import Router, cached_prefix, demanded_blocks

# The terms of an engine, in seconds. The unit of work is a batch of `CHUNK` tokens on it.
(
    TOKENS,  # known tokens of its unfinished calls, at the mean speed of all engines
    SPEED,  # what the same tokens take longer (or less, below 0) at its own speed
    PROMPTS,  # their prompt tokens
    CALLS,  # their number, a batch each
    QUEUE,  # prompt tokens of those that do not run yet
    OWN_PROMPT,  # what is not cached of the prompt of this call
    DELAY,  # that, for each call that runs: how much longer these take
    DECODE,  # the predicted tokens of this call, each as long as its decode step would be
    CROWDED,  # that, times the share of its memory that calls hold or ask for
    OVERFLOW,  # tokens of memory that it lacks for these and this call
    REPEATED,  # a batch, if the call before went there too
    NUM_TERMS,
) = range(12)
CHUNK = 512  # tokens
UNKNOWN_OUTPUT = 128.0  # tokens of a call without a prediction
START, SPREAD = np.zeros(NUM_TERMS), np.ones(NUM_TERMS)  # weight k is START + SPREAD * output k of the network
START[TOKENS] = 1.0
SPREAD[OWN_PROMPT], SPREAD[OVERFLOW], SPREAD[DELAY] = 2.0, 2.0, 0.2

NUM_FEATURES, HIDDEN = 8, 6
NUM_WEIGHTS = (NUM_FEATURES + 1) * HIDDEN + (HIDDEN + 1) * NUM_TERMS

# Cells of memory: layers of the network, the terms of the engine that is looked at, and the last choice plus 1.
_UNITS = NUM_FEATURES
_FACTORS = _UNITS + HIDDEN
_TERMS = _FACTORS + NUM_TERMS
_LAST = _TERMS + NUM_TERMS
_CELLS = _LAST + 1


@compiled
def route(fleet, i):
    """Set the weights, then take the least sum; of equals that with the fewest known tokens, then the first."""
    cells = fleet.memory
    factors, terms = cells[_FACTORS:_TERMS], cells[_TERMS:_LAST]
    unit = features(fleet, i, cells[:_UNITS])
    evaluate(fleet.params, cells[:_UNITS], cells[_UNITS:_FACTORS], factors)
    for k in range(NUM_TERMS):
        factors[k] = START[k] + SPREAD[k] * factors[k]
    best, least = -1, 0.0
    for g in range(len(fleet.allowed)):
        if fleet.allowed[g] == 1:
            seconds_at(fleet, g, i, unit, terms)
            total = 0.0
            for k in range(NUM_TERMS):
                total += factors[k] * terms[k]
            fewer = best >= 0 and fleet.outstanding[g].known_work < fleet.outstanding[best].known_work
            if best < 0 or total < least or (total == least and fewer):
                best, least = g, total
    cells[_LAST] = best + 1.0
    return best


@compiled
def features(fleet, i, x):
    """Write f8[NUM_FEATURES] of the fleet and call `i` to `x`; returns the mean of `batch_of`, s."""
    engines, calls, waiting, seconds, tokens = 0, 0.0, 0.0, 0.0, 0.0
    fastest, slowest, fullest, cached, most, fewest = np.inf, 0.0, 0.0, 0.0, 0.0, np.inf
    for g in range(len(fleet.allowed)):
        if fleet.allowed[g] == 1:
            engines += 1
            calls += fleet.outstanding[g].calls
            waiting += max(0.0, fleet.outstanding[g].calls - fleet.engines[g].num_running)
            batch, known = batch_of(fleet, g), fleet.outstanding[g].known_work
            seconds += batch
            tokens += known
            fastest, slowest = min(fastest, batch), max(slowest, batch)
            fewest, most = min(fewest, known), max(most, known)
            fullest = max(fullest, demanded_blocks(fleet, g) / fleet.kv[g].total)
            cached = max(cached, float(cached_prefix(fleet, g, i)))
    x[0] = 0.5 * log1p(calls / engines) - 1.0
    x[1] = 0.5 * log1p(waiting / engines)
    x[2] = log1p(fleet.req.prompt_tokens[i] / CHUNK) - 1.0
    x[3] = log1p(_output(fleet, i) / CHUNK) - 0.5
    x[4] = min(2.0, fullest)
    x[5] = log(slowest / fastest)
    x[6] = cached / fleet.req.prompt_tokens[i]
    x[7] = (most - fewest) / (tokens / engines + CHUNK)
    return seconds / engines


@compiled
def seconds_at(fleet, g, i, unit, terms):
    """Write f8[NUM_TERMS] of engine `g` for call `i`, s; `unit` is the mean of `batch_of` over the engines."""
    batch, size, running = batch_of(fleet, g), fleet.kv[g].block_size, fleet.engines[g].num_running
    sent = fleet.outstanding[g]
    calls, prompts, known = sent.calls, sent.prompt_tokens, sent.known_work
    demanded, total = demanded_blocks(fleet, g), float(fleet.kv[g].total)
    prompt, held = fleet.req.prompt_tokens[i], fleet.kv[g].total - fleet.kv[g].free
    missing = float(prompt - cached_prefix(fleet, g, i))
    step = seconds_with_host(fleet.law[g], running + 1.0, float(held * size + prompt), 0.0, 0.0, running + 1.0)
    terms[TOKENS] = known / CHUNK * unit
    terms[SPEED] = known / CHUNK * (batch - unit)
    terms[PROMPTS] = prompts / CHUNK * batch
    terms[CALLS] = calls * batch
    terms[QUEUE] = max(0.0, calls - running) * prompts / max(1.0, calls) / CHUNK * batch
    terms[OWN_PROMPT] = missing / CHUNK * batch
    terms[DELAY] = running * missing / CHUNK * batch
    terms[DECODE] = _output(fleet, i) * step
    terms[CROWDED] = terms[DECODE] * demanded / total
    terms[OVERFLOW] = max(0.0, (demanded - total) * size + prompt + _output(fleet, i)) / CHUNK * batch
    terms[REPEATED] = batch if fleet.memory[_LAST] == g + 1.0 else 0.0


@compiled(inline=True)
def batch_of(fleet, g):
    """Seconds that engine `g` takes for a batch of `CHUNK` tokens of prompts."""
    return seconds_with_host(fleet.law[g], float(CHUNK), 0.0, 0.0, 0.0, 1.0)


@compiled(inline=True)
def _output(fleet, i):
    """Predicted output tokens of call `i`."""
    known = fleet.req.known_output[i]
    return UNKNOWN_OUTPUT if np.isnan(known) else known


learned_router = Router(
    "learned_router",
    route,
    memory=tuple(f"x{k}" for k in range(_CELLS)),
    needs_lengths="predicted",
    weights=(0.0,) * NUM_WEIGHTS,
    reference="ours: a sum of seconds, its weights set for each call by a network",
)
