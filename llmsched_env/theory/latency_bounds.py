"""What no scheduler goes below on one engine: mean latency and time to finish, from batch times and lengths alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from llmsched_env.simulator.config import EngineConfig
from llmsched_env.simulator.request_table import RequestTable
from llmsched_env.theory.rates import best_token_rate
from llmsched_env.theory.srpt import srpt_flow_times
from llmsched_env.theory.work import decode_steps, token_seconds


def mean_latency_bound(table: RequestTable, engine: EngineConfig) -> float:
    """Seconds from arrival to last token, mean over all requests, that no scheduler goes below if all finish.

    Two relaxations, each a list of the times by which 1, 2, ... requests can have finished at the earliest:

    - one server that does v = max b/t_b tokens/s, and the request's own attention and host time beside them, under
      preemptive SRPT, which at any time has finished the most (Schrage 1968);
    - every request alone on the engine from its arrival on: at least ceil(s/b_max) batches of its prompt and one batch
      for each further token, none shorter than that of one token.

    The j-th request to finish does so at the later of both j-th times. So the bound is at least the larger of both
    means. (The later of both times request by request would be no bound: SRPT makes some wait for others.)

    A request of s prompt and o output tokens is s + o - 1 tokens of work ("separate": s + o). It holds for every
    batch-time law, memory limit, number of seats and scheduler, preemption included. Tokens that prefix caching may
    find are not counted.
    """
    if not len(table):
        return float("nan")
    demand = Demand.of(table, engine)
    shared = np.sort(table.arrival + srpt_flow_times(table.arrival, demand.work))
    alone = np.sort(table.arrival + demand.alone)
    return float(np.mean(np.maximum(shared, alone)) - np.mean(table.arrival))


def makespan_bound(table: RequestTable, engine: EngineConfig) -> float:
    """Seconds from time 0 to the last token of the last request that no scheduler goes below; 0 without requests.

    That of the server and that of every request alone, see `mean_latency_bound`; so n requests are served at n over
    this bound per second at most.
    """
    if not len(table):
        return 0.0
    demand = Demand.of(table, engine)
    busy_from = np.cumsum(demand.work[::-1])[::-1]  # work of this request and all later ones
    return float(max(np.max(table.arrival + busy_from), np.max(table.arrival + demand.alone)))


@dataclass(frozen=True, slots=True, eq=False)
class Demand:
    """What each request asks of the engine at least, in seconds, f8[n] each.

    Attributes:
        work: of the engine that belong to it alone, whatever its batches hold beside it.
        alone: how long it takes without others.
        prompt_work: the part of `work` up to the end of its prompt.
        prompt_alone: the part of `alone` up to there.
    """

    work: np.ndarray
    alone: np.ndarray
    prompt_work: np.ndarray
    prompt_alone: np.ndarray

    @classmethod
    def of(cls, table: RequestTable, engine: EngineConfig) -> Self:
        """That of every request of a table."""
        _, _, a_tok, _, _, a_kv, a_attn, _ = engine.batch_time.coefficients()
        prompt, output = table.prompt_tokens.astype(np.float64), table.output_tokens.astype(np.float64)
        cached = _may_be_cached(table, engine)
        prefill, steps = prompt - cached, decode_steps(output, engine)
        chunks = np.ceil(prefill / engine.token_budget)
        per_token = 1 / best_token_rate(engine)
        # A step after a preemption may be a prefill instead, which reads its context at another price: it attends to
        # all of it, and unless it finds it in the prefix cache computes it as well.
        again = a_attn + (0.0 if engine.prefix_caching else min(a_tok, per_token))
        own_decode = min(a_kv, again) * (steps * prompt + steps * (steps - 1) / 2) + engine.host_overhead[1] * steps
        own_prompt = a_attn * (prompt * (prompt + 1) - cached * (cached + 1)) / 2 + engine.host_overhead[1] * chunks
        shortest = float(token_seconds(engine, np.float64(1.0)))
        prompt_work = per_token * prefill + own_prompt
        prompt_alone = np.maximum(chunks * shortest, prefill * per_token) + own_prompt
        return cls(
            work=prompt_work + per_token * steps + own_decode,
            alone=prompt_alone + steps * shortest + own_decode,
            prompt_work=prompt_work,
            prompt_alone=prompt_alone,
        )


def _may_be_cached(table: RequestTable, engine: EngineConfig) -> np.ndarray:
    """Tokens f8[n] of a prompt that may be found in the prefix cache: whole blocks, never the last token.

    A request finds what it shares with its parent; one that is a parent may find all, since a child that is served
    before it computes the same tokens.
    """
    if not engine.prefix_caching:
        return np.zeros(len(table))
    size = engine.block_size
    shared = np.where(table.parent >= 0, table.shared_tokens, 0)
    shared[table.parent[table.parent >= 0]] = np.iinfo(np.int64).max
    return (np.minimum(shared // size, (table.prompt_tokens - 1) // size) * size).astype(np.float64)
