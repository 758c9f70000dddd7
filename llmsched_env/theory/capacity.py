"""The reference capacity of an engine under a workload, from which load is defined."""

from __future__ import annotations

import math

import numpy as np

from llmsched_env.simulator.config import EngineConfig
from llmsched_env.theory.kv import kv_token_steps
from llmsched_env.theory.work import LengthMix, RequestFlow, Work, mean_work, request_seconds, token_seconds


def capacity(engine: EngineConfig, workload: LengthMix) -> float:
    """Requests/s that the engine can sustain on the workload's mix of lengths, whatever the scheduler.

    It depends on the machine (batch times, token budget, request slots, KV memory, host overhead) and on the lengths
    alone, neither on the workload's rate nor on a scheduler's parameters.

    A request of s prompt and o output tokens takes w = E[s + o - 1] tokens of work, of which n = E[o - 1] are decode
    steps ("separate": w = E[s + o], n = E[o]). If every batch holds b tokens, a request costs w/b batches' worth of the
    part of the batch time that depends on b alone, plus what its own attention costs whoever shares its batches:

        seconds(b) = (w/b) (c + host_batch + a_step ceil(b/b0) + a_tok b + a_tok_over max(0, b - b0))
                     + a_kv E[S] + a_attn E[Q] + host_request (n + 1)

    S is the sum over its decode steps of the context already in the KV cache, Q = s(s + 1)/2 the query-key pairs of its
    prompt, however it is cut into chunks. The last term counts a prompt as one batch, and re-reading context between
    chunks (a_ctx) costs nothing, since chunks are a scheduler's choice. Capacity is the best 1/seconds(b) over the b
    that the limits allow. b tokens per batch mean b/w requests begun per batch, each of which is in at least n batches
    for its decodes and max(1, s/b_max) for its prompt, so that by Little's law

        requests in a batch      (b/w) (n + max(1, s/b_max)) <= max_num_seqs
        KV tokens held           (b/w) E[G]    <= kv_blocks * block_size

    with G the KV tokens of a request summed over these batches, rounded up to blocks by half a block on average.

    For a law of tokens only, without memory limits, and b/t_b largest at the token budget this is
    b_max / (t_{b_max} (s + o)), the stability limit of arXiv 2504.07347, Theorem 2.
    """
    work = mean_work(workload, engine)
    largest = _largest_batch(engine, workload, work)
    tokens = np.append(np.arange(1.0, math.floor(largest) + 1), largest)
    per_token = float(np.min(token_seconds(engine, tokens) / tokens))
    return 1 / (per_token * work.tokens + request_seconds(engine, work))


def load(workload: RequestFlow, engine: EngineConfig) -> float:
    """Rate of the workload over the reference capacity of the engine."""
    return workload.rate / capacity(engine, workload)


def _largest_batch(engine: EngineConfig, workload: LengthMix, work: Work) -> float:
    """Mean tokens per batch beyond which a limit of the engine is broken; at most the token budget."""
    bounds = [float(engine.token_budget)]
    if engine.max_num_seqs is not None:
        prompts = workload.length_sample()[0] / engine.token_budget
        seats = work.decodes + float(np.mean(np.maximum(1.0, prompts)))  # batches that a request sits in, at least
        bounds.append(engine.max_num_seqs * work.tokens / seats)
    if engine.kv_blocks is not None:
        held = float(np.mean(kv_token_steps(*workload.length_sample(), engine)))
        bounds.append(engine.kv_blocks * engine.block_size * work.tokens / held)
    return min(bounds)
