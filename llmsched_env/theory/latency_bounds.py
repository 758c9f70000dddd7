"""Lower bounds on mean latency and makespan on one engine for any scheduler, from batch times and lengths alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from llmsched_env.machine.config import EngineConfig
from llmsched_env.tables.request_table import RequestTable
from llmsched_env.theory.rates import best_rate, most_requests
from llmsched_env.theory.srpt import srpt_flow_times
from llmsched_env.theory.work import decode_steps, token_seconds


def mean_latency_bound(table: RequestTable, engine: EngineConfig) -> float:
    """Lower bound on the mean seconds from arrival to last token, for any scheduler under which all requests finish.

    Two relaxations give the earliest times by which 1, 2, ... requests can have finished:

    - one server that processes v = max b/t_b tokens/s, plus each request's own attention and host time, under
      preemptive SRPT, which has finished the most requests at any time (Schrage 1968);
    - every request alone on the engine from its arrival on: at least ceil(s/b_max) batches for its prompt and one batch
      for each further token, none shorter than a batch of one token.

    The j-th request to finish does so no earlier than the later of both j-th times, so the bound is at least the larger
    of both means. (Taking the later time request by request would not be a bound, since SRPT makes some wait.)

    A request of s prompt and o output tokens is s + o - 1 tokens of work ("separate": s + o). The bound holds for every
    batch-time law, memory limit, number of request slots and scheduler, including preemption. Tokens that may hit the
    prefix cache are not counted.
    """
    if not len(table):
        return float("nan")
    demand = Demand.of(table, engine)
    shared = np.sort(table.arrival + srpt_flow_times(table.arrival, demand.work))
    alone = np.sort(table.arrival + demand.alone)
    return float(np.mean(np.maximum(shared, alone)) - np.mean(table.arrival))


def makespan_bound(table: RequestTable, engine: EngineConfig) -> float:
    """Lower bound on the time of the last token of the last request (s), for any scheduler; 0 without requests.

    The larger of the bounds by the two relaxations of `mean_latency_bound`. The throughput of n requests is at most n
    over this bound.
    """
    if not len(table):
        return 0.0
    demand = Demand.of(table, engine)
    busy_from = np.cumsum(demand.work[::-1])[::-1]  # work of this request and all later ones
    return float(max(np.max(table.arrival + busy_from), np.max(table.arrival + demand.alone)))


@dataclass(frozen=True, slots=True, eq=False)
class Demand:
    """Lower bounds on the engine time of each request, f8[n] seconds each.

    Attributes:
        work: engine time that it needs for itself, whatever else is in its batches.
        alone: time it takes on an otherwise idle engine.
        prompt_work: the part of `work` until the end of its prompt.
        prompt_alone: the part of `alone` until the end of its prompt.
    """

    work: np.ndarray
    alone: np.ndarray
    prompt_work: np.ndarray
    prompt_alone: np.ndarray

    @classmethod
    def of(cls, table: RequestTable, engine: EngineConfig) -> Self:
        """The demand of every request of a table.

        Raises:
            ValueError: the engine's steps are noisy; they may then be faster than the law says.
        """
        if engine.step_noise:
            raise ValueError(f"step_noise must be 0 for a bound that holds in every run, got {engine.step_noise:g}")
        law = engine.batch_time.least()
        prompt, output = table.prompt_tokens.astype(np.float64), table.output_tokens.astype(np.float64)
        cached = _may_be_cached(table, engine)
        prefill, steps = prompt - cached, decode_steps(output, engine)
        chunks = np.ceil(prefill / engine.token_budget)
        most = min(most_requests(engine), max(1, len(table)))
        per_token = 1 / best_rate(engine, True, engine.token_budget)  # a prompt token is in a batch that holds prefill
        per_decode = min(per_token, 1 / best_rate(engine, False, most))
        # After a preemption a prefill may replace a decode step, at another cost: it attends to all of the context,
        # and computes it too unless it hits the prefix cache.
        again = law.a_attn + (0.0 if engine.prefix_caching else min(law.a_tok, per_token))
        own_decode = min(law.a_kv, again) * (steps * prompt + steps * (steps - 1) / 2) + engine.host_overhead[1] * steps
        own_prompt = law.a_attn * (prompt * (prompt + 1) - cached * (cached + 1)) / 2 + engine.host_overhead[1] * chunks
        shortest = min(float(token_seconds(engine, np.float64(1.0), prefill)) for prefill in (True, False))
        prompt_work = per_token * prefill + own_prompt
        prompt_alone = np.maximum(chunks * shortest, prefill * per_token) + own_prompt
        return cls(
            work=prompt_work + per_decode * steps + own_decode,
            alone=prompt_alone + steps * shortest + own_decode,
            prompt_work=prompt_work,
            prompt_alone=prompt_alone,
        )


def _may_be_cached(table: RequestTable, engine: EngineConfig) -> np.ndarray:
    """Tokens f8[n] of a prompt that may hit the prefix cache: whole blocks, never the last token.

    A request may hit what it shares with its parent. A parent may hit everything, since a child that is served before
    it computes the same tokens.
    """
    if not engine.prefix_caching:
        return np.zeros(len(table))
    size = engine.block_size
    shared = np.where(table.parent >= 0, table.shared_tokens, 0)
    shared[table.parent[table.parent >= 0]] = np.iinfo(np.int64).max
    return np.asarray(np.minimum(shared // size, (table.prompt_tokens - 1) // size) * size, np.float64)
