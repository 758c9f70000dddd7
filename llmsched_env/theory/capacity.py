"""Reference capacity of an engine (requests/s) and of a network of engines (tasks/s), from which load is defined."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llmsched_env.machine.config import EngineConfig
from llmsched_env.machine.tabulated_law import TabulatedLaw
from llmsched_env.tables.task_table import TaskTable
from llmsched_env.theory.kv import kv_token_steps
from llmsched_env.theory.work import (
    LengthMix,
    RequestFlow,
    Work,
    mean_work,
    request_seconds,
    request_seconds_apart,
    token_seconds,
)


def capacity(engine: EngineConfig, workload: LengthMix) -> float:
    """Requests/s that the engine can sustain on the workload's mix of lengths, whatever the scheduler.

    It depends only on the machine (batch times, token budget, request slots, KV memory, context length, host overhead)
    and on the lengths, not on the workload's rate or a scheduler's parameters. Requests beyond `max_model_len` arrive,
    and cost nothing: they are turned away.

    A request of s prompt and o output tokens takes w = E[s + o - 1] tokens of work, of which n = E[o - 1] are decode
    steps ("separate": w = E[s + o], n = E[o]). If every batch holds b tokens, a request costs w/b times the part of the
    batch time that depends on b alone, plus its own attention, which does not depend on what shares its batches:

        seconds(b) = (w/b) (c + host_batch + a_step ceil(b/b0) + a_tok b + a_tok_over max(0, b - b0))
                     + a_kv E[S] + a_attn E[Q] + host_request (n + 1)

    S is the sum over its decode steps of the context already in the KV cache, Q = s(s + 1)/2 the query-key pairs of its
    prompt for any chunking. The last term counts a prompt as one batch, and re-reading context between chunks (a_ctx)
    is left out, since the scheduler chooses the chunks. Capacity is the best 1/seconds(b) over the b
    that the limits allow. b tokens per batch mean that b/w requests start per batch. Each is in at least n batches for
    its decodes and max(1, s/b_max) for its prompt, so that by Little's law

        requests in a batch      (b/w) (n + max(1, s/b_max)) <= max_num_seqs
        KV tokens held           (b/w) E[G]    <= kv_blocks * block_size

    with G the KV tokens of a request summed over these batches, rounded up to blocks by half a block on average.

    With a `TabulatedLaw` all batches hold prefill in this, at the prices of its `mixed` table. Capacity is the larger
    of that and of prompts and decodes in batches of their own, each kind at its own prices and in the best batches
    that the limits allow.

    For a batch time of tokens only, no memory limit, and b/t_b largest at the token budget this is
    b_max / (t_{b_max} (s + o)), the stability limit of arXiv 2504.07347, Theorem 2.
    """
    served, share = _served(engine, workload)
    work = mean_work(served, engine)
    per_token = _least_per_token(engine, _largest_batch(engine, served, work), holds_prefill=True)
    seconds = per_token * work.tokens + request_seconds(engine, work)
    if isinstance(engine.batch_time, TabulatedLaw):
        seconds = min(seconds, _seconds_apart(engine, work))
    return 1 / (share * seconds)


def load(workload: RequestFlow, engine: EngineConfig) -> float:
    """Rate of the workload over the reference capacity of the engine."""
    return workload.rate / capacity(engine, workload)


def _served(engine: EngineConfig, workload: LengthMix) -> tuple[LengthMix, float]:
    """The requests that the context length lets in, and their share."""
    if engine.max_model_len is None:
        return workload, 1.0
    prompt, output = workload.length_sample()
    fits = prompt + output <= engine.max_model_len
    if fits.all():
        return workload, 1.0
    if not fits.any():
        raise ValueError(
            f"max_model_len must let some requests in, got {engine.max_model_len}; the shortest has "
            f"{int((prompt + output).min())} tokens"
        )
    return _Lengths(prompt[fits], output[fits]), float(fits.mean())


def _least_per_token(engine: EngineConfig, largest: float, holds_prefill: bool) -> float:
    """Least seconds a token in batches of up to `largest` tokens, attention left out."""
    tokens = np.append(np.arange(1.0, math.floor(largest) + 1), largest)
    return float(np.min(token_seconds(engine, tokens, holds_prefill) / tokens))


def _seconds_apart(engine: EngineConfig, work: Work) -> float:
    """Seconds of a request whose prompt and decodes are in batches of their own."""
    seconds = work.prompt * _least_per_token(engine, engine.token_budget, holds_prefill=True)
    seconds += request_seconds_apart(engine, work)
    if work.decodes == 0:
        return seconds
    most = float(engine.token_budget if engine.max_num_seqs is None else min(engine.token_budget, engine.max_num_seqs))
    if engine.kv_blocks is not None:
        held = work.context / work.decodes + 1 + (engine.block_size - 1) / 2  # tokens of one, in whole blocks
        most = min(most, engine.kv_blocks * engine.block_size / held)
    return seconds + work.decodes * _least_per_token(engine, max(1.0, most), holds_prefill=False)


def _largest_batch(engine: EngineConfig, workload: LengthMix, work: Work) -> float:
    """Largest mean number of tokens per batch within all limits of the engine."""
    bounds = [float(engine.token_budget)]
    if engine.max_num_seqs is not None:
        prompts = workload.length_sample()[0] / engine.token_budget
        seats = work.decodes + float(np.mean(np.maximum(1.0, prompts)))  # fewest batches that a request is in
        bounds.append(engine.max_num_seqs * work.tokens / seats)
    if engine.kv_blocks is not None:
        held = float(np.mean(kv_token_steps(*workload.length_sample(), engine)))
        bounds.append(engine.kv_blocks * engine.block_size * work.tokens / held)
    return min(bounds)


@dataclass(frozen=True, slots=True)
class _Lengths:
    prompt: np.ndarray
    output: np.ndarray

    def length_sample(self) -> tuple[np.ndarray, np.ndarray]:
        """Prompt and output tokens."""
        return self.prompt, self.output


def task_capacity(engines: EngineConfig | Sequence[EngineConfig], tasks: TaskTable) -> float:
    """Tasks/s at which the busiest engine has load 1, under the best routing.

    Pinned calls load their engine. The others are divided so that the loads of the engines are as equal as the pinned
    calls allow. Each engine serves its mix of calls at the rate `theory.capacity`, every prompt in full: prefix-cache
    hits are not counted.

    Below it, every engine's load is below 1, which suffices for stability under work-conserving schedulers if engines
    pass calls on without cycles (arXiv 2504.07347, section 5).

    Args:
        engines: the machines, or one.
        tasks: tasks that represent the mix; their times do not matter.

    Raises:
        ValueError: there are no tasks, or a call is pinned to an engine that does not exist.
    """
    engines = tuple(engines) if isinstance(engines, Sequence) else (engines,)
    if not len(tasks):
        raise ValueError("tasks must hold at least one call, got none")
    if tasks.engine.max() >= len(engines):
        raise ValueError(f"engine must be below {len(engines)}, got {tasks.engine.max()}")
    pinned = np.array([_seconds(engine, tasks, tasks.engine == g) for g, engine in enumerate(engines)])
    free = tasks.engine < 0
    if not free.any():
        return tasks.num_tasks / float(pinned.max())
    speed = 1 / np.array([_seconds(engine, tasks, free) for engine in engines])
    level = (1 + float(pinned @ speed)) / float(speed.sum())  # equal load of all engines, if no pinned load exceeds it
    return tasks.num_tasks / max(level, float(pinned.max()))


def _seconds(engine: EngineConfig, tasks: TaskTable, which: np.ndarray) -> float:
    """Seconds an engine needs for these calls."""
    if not which.any():
        return 0.0
    lengths = _Lengths(tasks.calls.prompt_tokens[which], tasks.calls.output_tokens[which])
    return float(np.count_nonzero(which)) / capacity(engine, lengths)
