"""Capacity by KV memory (arXiv 2605.04595), and memory use in the slotted model of arXiv 2604.11001."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from llmsched_env.machine.config import EngineConfig
from llmsched_env.theory.work import LengthMix, decode_steps, mean_work, request_seconds, token_seconds
from llmsched_env.validation import check_integer, check_number


def kv_token_steps(
    prompt: ArrayLike,
    output: ArrayLike,
    engine: EngineConfig,
    prefill_chunk: int | None = None,
    newest: bool = False,
) -> np.ndarray:
    """KV tokens that requests hold, summed over their batches: g(s, o) of arXiv 2605.04595.

    The j-th decode step holds s + j tokens, the j-th chunk of the prompt min(jC, s). With paged memory, a
    request holds (block_size - 1)/2 tokens more on average in each batch.

    Args:
        prompt: prompt tokens s, [n].
        output: output tokens o, [n].
        engine: gives the convention for the first token and the block size.
        prefill_chunk: tokens C of a chunk of the prompt; None: the whole prompt in one batch.
        newest: also count the token that a batch is generating, as the slotted model of arXiv 2604.11001 does.

    Returns:
        f8[n].
    """
    prompt, output = np.asarray(prompt, np.float64), np.asarray(output, np.float64)
    steps = decode_steps(output, engine)
    decoding = steps * prompt + steps * (steps + 1) / 2
    chunks, prefilling = _prefill(prompt, prefill_chunk)
    extra = (engine.block_size - 1) / 2
    generating = newest * (steps + (not engine.separate))  # the last chunk generates unless the first token is separate
    return np.asarray(decoding + prefilling + extra * (steps + chunks) + generating)


def kv_capacity(
    engine: EngineConfig,
    workload: LengthMix,
    batch_seconds: float | None = None,
    prefill_chunk: int | None = None,
) -> float:
    """Requests/s that the KV cache allows: mu = M/(b E[g]) of Nie et al., arXiv 2605.04595.

    Requests arriving at rate lambda hold lambda b E[g] tokens on average, with b the mean seconds of a batch and g from
    `kv_token_steps`. Above mu that exceeds the M tokens of the cache, whatever the scheduler. Work-conserving
    schedulers reach it up to a relative gap of (largest request)/M.

    Args:
        engine: the machine; its KV cache must be limited.
        workload: its mix of lengths.
        batch_seconds: mean seconds of a batch, for example measured. None takes batches of the number of tokens that a
            full cache sustains, M E[tokens]/E[g], or of the token budget if that is less.
        prefill_chunk: see `kv_token_steps`.

    Raises:
        ValueError: the KV cache is unlimited.
    """
    if engine.kv_blocks is None:
        raise ValueError("kv_blocks must be a number of blocks for a capacity by KV memory, got None")
    memory = engine.kv_blocks * engine.block_size
    held = float(np.mean(kv_token_steps(*workload.length_sample(), engine, prefill_chunk)))
    if batch_seconds is None:
        work = mean_work(workload, engine)
        tokens = min(float(engine.token_budget), memory * work.tokens / held)
        batch_seconds = float(token_seconds(engine, np.float64(tokens)))
        batch_seconds += tokens / work.tokens * request_seconds(engine, work)
    return memory / (check_number("batch_seconds", batch_seconds, above=0, unit="s") * held)


def volume(prompt: ArrayLike, output: ArrayLike) -> np.ndarray:
    """Token-slots of memory that requests occupy in the slotted model: w = s o + o(o + 1)/2 (arXiv 2604.11001).

    In slot j of its o slots an active request holds its prompt and j generated tokens.
    """
    prompt, output = np.asarray(prompt, np.float64), np.asarray(output, np.float64)
    return np.asarray(prompt * output + output * (output + 1) / 2)


def memory_demand(per_slot: ArrayLike, prompt: ArrayLike, output: ArrayLike) -> float:
    """Mean KV tokens in use when x_k requests of class k start per slot: sum of x_k w_k.

    With x_k the arrival rates lambda_k it decides stability: no policy is stable where it exceeds the memory (Dong and
    Cao, arXiv 2604.11001, Proposition 3.2). With x_k the activation limits b_k of their Algorithm 1 it is the peak use,
    and the algorithm is stable if that fits in memory and b_k > lambda_k for every class.

    Args:
        per_slot: requests x_k that start per slot, one value per class.
        prompt: prompt tokens of each class.
        output: output tokens of each class.
    """
    return float(np.sum(np.asarray(per_slot, np.float64) * volume(prompt, output)))


def _prefill(prompt: np.ndarray, chunk: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Batches that prompts of these lengths take, and KV tokens held, summed over these batches."""
    if chunk is None:
        return np.ones_like(prompt), prompt
    size = check_integer("prefill_chunk", chunk, at_least=1, unit="tokens")
    full = np.floor(prompt / size)
    last = prompt - full * size
    return np.ceil(prompt / size), size * full * (full + 1) / 2 + np.where(last > 0, prompt, 0.0)
