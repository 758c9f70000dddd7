"""Token rates of full batches, and the critical request rate they imply (arXiv 2504.07347, Theorem 2)."""

from __future__ import annotations

import numpy as np

from llmsched_env.machine.config import EngineConfig
from llmsched_env.theory.work import LengthMix, mean_work, request_seconds, token_seconds
from llmsched_env.validation import check_integer


def token_rate(engine: EngineConfig, token_budget: int | None = None) -> float:
    """Tokens/s of full batches, b_max/t_{b_max}: reached by work-conserving schedulers if nothing else limits them.

    Attention is left out: only the part of the batch time that depends on the number of tokens counts, plus the host
    time per batch.

    Args:
        engine: the machine.
        token_budget: a scheduler's own token budget; the lower of it and the engine's applies.
    """
    budget = _budget(engine, token_budget)
    return budget / float(token_seconds(engine, np.float64(budget)))


def best_token_rate(engine: EngineConfig) -> float:
    """Tokens/s that no scheduler exceeds: max over b <= b_max of b/t_b, for batch times as in `token_rate`.

    With a `TabulatedLaw` also over batches that only decode, with a request for each token. Larger
    than `token_rate` where b/t_b does not peak at the token budget, such as for a staircase whose step does not divide
    the budget.
    """
    return max(best_rate(engine, True, engine.token_budget), best_rate(engine, False, most_requests(engine)))


def best_rate(engine: EngineConfig, holds_prefill: bool, most: int) -> float:
    """Max of b/t_b over batches of up to `most` tokens with prefill, or without."""
    tokens = np.arange(1.0, most + 1)
    return float(np.max(tokens / token_seconds(engine, tokens, holds_prefill)))


def most_requests(engine: EngineConfig) -> int:
    """Most requests that can decode in one batch: each takes a token, a slot, and a KV block."""
    return min(engine.token_budget, engine.max_num_seqs or engine.token_budget, engine.kv_blocks or engine.token_budget)


def critical_rate(engine: EngineConfig, workload: LengthMix, token_budget: int | None = None) -> float:
    """Requests/s up to which every work-conserving scheduler is stable and above which none is.

    Full batches of b_max tokens process `token_rate` tokens/s, and a request of s prompt and o output tokens is
    s + o - 1 tokens of work ("separate": s + o). For a batch time of tokens only, their quotient is the rate of arXiv
    2504.07347, Theorem 2. Attention terms add the seconds of the request itself, whatever shares its batches:

        1 / (t_{b_max}/b_max * E[tokens] + a_kv E[S] + a_attn E[Q] + host_request E[batches])

    with S the context its decode steps read and Q the query-key pairs of its prompt (see `mean_work`); chunking a
    prompt costs nothing extra. Request slots and KV memory are ignored, see `fluid_capacity`.

    Args:
        engine: the machine.
        workload: gives the mix of lengths; its rate does not matter.
        token_budget: a scheduler's own token budget; the lower of it and the engine's applies.
    """
    work = mean_work(workload, engine)
    return 1 / (work.tokens / token_rate(engine, token_budget) + request_seconds(engine, work))


def _budget(engine: EngineConfig, token_budget: int | None) -> int:
    if token_budget is None:
        return engine.token_budget
    return min(engine.token_budget, check_integer("token_budget", token_budget, at_least=1, unit="tokens"))
