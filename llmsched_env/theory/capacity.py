"""The reference capacity of an engine under a workload, from which load is defined."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from llmsched_env.simulator.config import EngineConfig
    from llmsched_env.workloads.workload import Workload


def capacity(engine: EngineConfig, workload: Workload) -> float:
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
    that the limits allow. b tokens per batch mean b/w requests begun per batch, each of which is in n + 1 batches at
    least, so that by Little's law

        requests in a batch      (b/w) (n + 1) <= max_num_seqs
        KV tokens held           (b/w) E[G]    <= kv_blocks * block_size

    with G the KV tokens of a request summed over these batches, rounded up to blocks by half a block on average.

    For a law of tokens only, without memory limits, and b/t_b largest at the token budget this is
    b_max / (t_{b_max} (s + o)), the stability limit of arXiv 2504.07347, Theorem 2.
    """
    prompt, output = (lengths.astype(np.float64) for lengths in workload.length_sample())
    separate = engine.first_token == "separate"
    steps = output if separate else output - 1
    # Contexts before the decode steps are s, s+1, ... in both conventions: a first token that comes with the prompt
    # enters the KV cache only with the decode step that reads it.
    context = steps * prompt + steps * (steps - 1) / 2
    work, decodes = float(np.mean(prompt + steps)), float(np.mean(steps))

    largest = _largest_batch(engine, prompt, steps, context, work, decodes)
    tokens = np.append(np.arange(1.0, math.floor(largest) + 1), largest)
    c, a_step, a_tok, a_tok_over, b0, a_kv, a_attn, _ = engine.batch_time.coefficients()
    host_batch, host_request = engine.host_overhead
    batch = c + host_batch + a_step * np.ceil(tokens / b0) + a_tok * tokens + a_tok_over * np.maximum(0.0, tokens - b0)
    attention = a_kv * float(np.mean(context)) + a_attn * float(np.mean(prompt * (prompt + 1) / 2))
    return float(1 / (np.min(batch / tokens) * work + attention + host_request * (decodes + 1)))


def load(workload: Workload, engine: EngineConfig) -> float:
    """Rate of the workload over the reference capacity of the engine."""
    return workload.rate / capacity(engine, workload)


def _largest_batch(
    engine: EngineConfig, prompt: np.ndarray, steps: np.ndarray, context: np.ndarray, work: float, decodes: float
) -> float:
    """Mean tokens per batch beyond which a limit of the engine is broken; at most the token budget."""
    bounds = [float(engine.token_budget)]
    if engine.max_num_seqs is not None:
        bounds.append(engine.max_num_seqs * work / (decodes + 1))
    if engine.kv_blocks is not None:
        rounding = (engine.block_size - 1) / 2
        held = float(np.mean(context + steps * (1 + rounding) + prompt + rounding))
        bounds.append(engine.kv_blocks * engine.block_size * work / held)
    return min(bounds)
