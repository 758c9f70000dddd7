"""Fits of a `TabulatedLaw` to measured batches."""

from __future__ import annotations

import numpy as np

from llmsched_env.machine.batch_time import MOST_KNOTS
from llmsched_env.machine.batches import Batches
from llmsched_env.machine.least_squares import fit_relative
from llmsched_env.machine.tabulated_law import TabulatedLaw

Table = tuple[tuple[int, float], ...]

_GRID = np.unique([size for k in range(17) for size in (2**k, 3 * 2**k // 2)])
"""Tokens at which a table may have a knot: 1, 2, 3, 4, 6, 8, 12, ..., 65536, 98304."""
_ROWS = 4  # fewest batches between two knots
FEWEST_ROWS = 12  # of a table


def fit_tabulated(batches: Batches) -> tuple[TabulatedLaw, int]:
    """Fit both tables with their linear terms, each to its own batches.

    Where no batch only decodes, or none holds prefill, that table and its terms are those of the other batches.

    Returns:
        The law, and how many coefficients it was fitted with.

    Raises:
        ValueError: a table has batches, but fewer than 12.
    """
    prefill = batches.hold_prefill
    for rows, words in ((~prefill, "that only decode"), (prefill, "that hold prefill")):
        if (count := int(np.count_nonzero(rows))) < FEWEST_ROWS and (count or len(batches) < FEWEST_ROWS):
            raise ValueError(
                f"a fit of the tabulated form needs {FEWEST_ROWS} batches or more {words}, or none, got {count}"
            )
    decodes, mixed = batches.part(~prefill), batches.part(prefill)
    decode_table, (a_kv_decode,), decode_parameters = _table(decodes, [decodes.decode_kv_tokens])
    columns = [mixed.decode_kv_tokens, mixed.prefill_attn_pairs, mixed.prefill_context_tokens]
    if counted := mixed.requests_known:
        columns.append(mixed.num_seqs)
    mixed_table, slopes, mixed_parameters = _table(mixed, columns)
    a_kv, a_attn, a_ctx, a_seq = slopes if counted else (*slopes, 0.0)
    if not decode_table:  # such a batch has a request for each token
        decode_table, a_kv_decode = tuple((b, seconds + a_seq * b) for b, seconds in mixed_table), a_kv
    if not mixed_table:
        mixed_table, a_kv = decode_table, a_kv_decode
    law = TabulatedLaw(decode_table, mixed_table, a_seq, a_kv_decode, a_kv, a_attn, a_ctx)
    return law, decode_parameters + mixed_parameters


def _table(rows: Batches, columns: list[np.ndarray]) -> tuple[Table, list[float], int]:
    """A table over tokens, the coefficients of linear terms beside it, and how many numbers were fitted."""
    if len(rows) == 0:
        return (), [0.0] * len(columns), 0
    knots = _knots(rows.total_tokens, most=min(MOST_KNOTS - 1, len(rows) // _ROWS))
    lengths = np.append(np.diff(knots)[:-1], np.inf)  # the last slope goes on
    segments = np.clip(rows.total_tokens[:, None] - knots[:-1], 0, lengths)
    design = np.column_stack([np.ones(len(rows)), segments, *columns])
    _, solution = fit_relative(rows.seconds, design)
    first = max(solution[0], 1e-6 * rows.seconds.min())  # every batch takes time
    seconds = first + np.append(0.0, np.cumsum(solution[1 : len(knots)] * np.diff(knots)))
    table = tuple(zip(knots.tolist(), seconds.tolist(), strict=True))
    if knots[0] > 1:  # smaller batches were not measured: they take no less than the smallest that was
        table = ((1, float(first)), *table)
    return table, solution[len(knots) :].tolist(), design.shape[1]


def _knots(tokens: np.ndarray, most: int) -> np.ndarray:
    """Two to `most` points of the grid around these tokens, with batches between any two of them."""
    low = np.searchsorted(_GRID, tokens.min(), side="right") - 1
    high = np.searchsorted(_GRID, tokens.max())
    knots = _GRID[low : max(high, low + 1) + 1]
    while len(knots) > 2:
        counts = np.histogram(tokens, knots)[0]
        if counts.min() >= _ROWS and len(knots) <= most:
            break
        # The cell with the fewest batches joins the neighbour with fewer.
        cell = int(np.argmin(counts))
        left = cell == len(counts) - 1 or (cell > 0 and counts[cell - 1] < counts[cell + 1])
        knots = np.delete(knots, cell if left else cell + 1)
    return knots
