"""The largest rate that any mixture of batches sustains, by a linear program over batch compositions."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from llmsched_env.machine.config import EngineConfig
from llmsched_env.machine.tabulated_law import TabulatedLaw
from llmsched_env.theory.kv import kv_token_steps
from llmsched_env.theory.polygon import composition_seconds, extreme_batches
from llmsched_env.theory.work import LengthMix, decode_steps, mean_work

_MIXTURES = 16  # grid between two extreme batches of one size, where batch time is not linear between them
_SIZES = 256  # batch sizes with such a grid
_NEGLIGIBLE = 1e-9  # share of time


class FluidSolution(NamedTuple):
    """The optimum of `fluid_capacity`.

    Attributes:
        rate: requests/s.
        compositions: i8[n, 3], prefill tokens, decode tokens and prompts of the batches that are used.
        shares: f8[n], share of time of each batch; their sum is at most 1.
        kv_tokens: mean KV tokens held.
    """

    rate: float
    compositions: np.ndarray
    shares: np.ndarray
    kv_tokens: float


def fluid_capacity(
    engine: EngineConfig, workload: LengthMix, prefill_chunk: int | None = None, newest: bool = False
) -> FluidSolution:
    """Requests/s that no scheduler exceeds, under token budget, request slots and KV memory together.

    A batch holds x prefill tokens of z prompts and y decode tokens, with x + y <= b_max and y + z <= max_num_seqs, and
    takes t(x, y, z) seconds. With shares pi of time, the program is

        maximise theta   subject to   sum pi <= 1,   sum pi (x, y, z)/t >= theta (E[s], E[decodes], E[chunks]),
                                      sum pi KV(x, y, z) <= kv_blocks * block_size

    KV(x, y, z) is what average requests hold in such a batch. Requests that pause hold nothing in this model, which
    favours mixtures of prefill and decode batches. Special cases are

    - Theorem 2 of arXiv 2504.07347 (no limit but the budget): `best_token_rate` over E[tokens];
    - its Theorem 10 (with slots, for prompts of at least a batch): `stability_region`;
    - M/(b E[g]) of arXiv 2605.04595 (constant batch time): `kv_capacity`;
    - sum lambda_k w_k <= M of arXiv 2604.11001 (with `newest`, in slots of one second): `memory_demand`.

    The program is over extreme batches only, of which all others are mixtures. If memory is limited and batch time
    depends on the composition, they are not enough: a grid of others is added, and the result may be slightly below the
    exact optimum.

    Args:
        engine: the machine.
        workload: gives the mix of lengths; its rate does not matter.
        prefill_chunk: tokens of a prefill chunk; None: each prompt is one chunk.
        newest: count the token that a batch is generating as held.
    """
    from scipy.optimize import linprog

    batches, prompts = _batches(engine, with_mixtures=engine.kv_blocks is not None and _time_varies(engine))
    seconds = composition_seconds(engine, workload, batches, prompts)
    supply = np.column_stack([batches, prompts]) / seconds[:, None]
    demand, held = _demand(engine, workload, batches, prompts, prefill_chunk, newest)
    n = len(batches)
    rows = [np.append(-supply[:, k], demand[k]) / max(demand[k], 1.0) for k in range(3)]
    limits = [0.0] * 3
    rows.append(np.append(np.ones(n), 0.0))
    limits.append(1.0)
    if engine.kv_blocks is not None:
        rows.append(np.append(held / (engine.kv_blocks * engine.block_size), 0.0))
        limits.append(1.0)
    solution = linprog(np.append(np.zeros(n), -1.0), A_ub=np.array(rows), b_ub=limits, method="highs")
    if not solution.success:
        raise RuntimeError(f"the fluid program was not solved: {solution.message}")
    shares = solution.x[:-1]
    used = shares > _NEGLIGIBLE
    return FluidSolution(
        float(solution.x[-1]),
        np.column_stack([batches, prompts])[used],
        shares[used],
        float(held @ shares),
    )


def _demand(
    engine: EngineConfig,
    workload: LengthMix,
    batches: np.ndarray,
    prompts: np.ndarray,
    prefill_chunk: int | None,
    newest: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Prefill tokens, decode tokens and chunks of a request f8[3], and the KV tokens held by the batches f8[n]."""
    prompt, output = (lengths.astype(np.float64) for lengths in workload.length_sample())
    work = mean_work(workload, engine)
    chunks = 1.0 if prefill_chunk is None else float(np.mean(np.ceil(prompt / prefill_chunk)))
    total = float(np.mean(kv_token_steps(prompt, output, engine, prefill_chunk, newest)))
    steps = decode_steps(output, engine)
    # Rounding up to blocks: (block_size - 1)/2 tokens for each request in each batch.
    each = (engine.block_size - 1) / 2
    decoding = float(np.mean(steps * prompt + steps * (steps + 1) / 2)) + (each + newest) * work.decodes
    prefilling = total - decoding - each * chunks
    held = prefilling / work.prompt * batches[:, 0] + each * prompts
    if work.decodes > 0:
        held = held + decoding / work.decodes * batches[:, 1]
    return np.array([work.prompt, work.decodes, chunks]), held


def _time_varies(engine: EngineConfig) -> bool:
    """Whether batches of equal size may take different times."""
    law = engine.batch_time.coefficients()
    return bool(law.a_kv or law.a_attn or engine.host_overhead[1] or isinstance(engine.batch_time, TabulatedLaw))


def _batches(engine: EngineConfig, with_mixtures: bool) -> tuple[np.ndarray, np.ndarray]:
    """Compositions i8[n, 2] of (prefill, decode) tokens and i8[n] of prompts."""
    prefill, mixed, decode = extreme_batches(engine)
    slots = len(decode)
    groups = [(prefill, 1), (prefill, np.minimum(prefill[:, 0], slots)), (mixed, 1), (decode, 0)]
    if with_mixtures:
        sizes = np.unique(np.geomspace(1, engine.token_budget, _SIZES).astype(np.int64))
        for share in np.arange(1, _MIXTURES) / _MIXTURES:
            some = np.floor(mixed[sizes - 1, 1] * share).astype(np.int64)
            between = np.column_stack([sizes - some, some])
            groups += [(between, 1), (between, np.minimum(between[:, 0], slots - some))]
    batches = np.concatenate([batch for batch, _ in groups])
    prompts = np.concatenate([np.broadcast_to(number, len(batch)) for batch, number in groups])
    return batches, prompts.astype(np.int64)
