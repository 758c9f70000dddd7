"""Reasons to doubt a law that was fitted to batches."""

from __future__ import annotations

import numpy as np

from llmsched_env.machine.law_fit import Fit

_MAPE, _P95, _BIAS, _TOTAL = 10.0, 30.0, 15.0, 3.0  # percent; larger errors are reasons
_BETTER = 1.0  # points of held-out error by which another form is better
_STALL = 5.0  # measured over predicted time
_SLICES = {
    "total_tokens": "tokens",
    "decode_kv_tokens": "context tokens read by decodes",
    "prefill_attn_pairs": "query-key pairs of prefill",
}


def shortcomings(chosen: Fit, held_out_pct: dict[str, float]) -> list[str]:
    """Reasons to doubt the law, one sentence each.

    Args:
        chosen: the law's fit.
        held_out_pct: error of each form on batches that it was not fitted to, percent.
    """
    found = [*_errors(chosen, held_out_pct), *_missing(chosen)]
    if abs(off := 100 * (chosen.total_ratio - 1)) > _TOTAL:
        way = "longer" if off > 0 else "shorter"
        found.append(f"all batches together took {abs(off):.1f} % {way} than predicted")
    if stalls := int(np.count_nonzero(chosen.error < 1 / _STALL - 1)):
        found.append(
            f"{stalls} of {len(chosen.batches)} batches took more than {_STALL:g} times their predicted time: if these "
            "are stalls of the host, leave them out"
        )
    worst = max(_biases(chosen), default=(0.0, ""), key=lambda bias: abs(bias[0]))
    if abs(worst[0]) > _BIAS:
        way = "slow" if worst[0] > 0 else "fast"
        found.append(f"batches with {worst[1]} are predicted {abs(worst[0]):.1f} % too {way} on average")
    return found


def _errors(chosen: Fit, held_out_pct: dict[str, float]) -> list[str]:
    if chosen.mape_pct > _MAPE:
        best = min(held_out_pct, key=lambda form: np.nan_to_num(held_out_pct[form], nan=np.inf))
        if held_out_pct[best] < held_out_pct[chosen.form] - _BETTER:
            hint = f"the {best} form has {held_out_pct[best]:.1f} % on batches held out"
        else:
            hint = "no other form does better, so the times themselves scatter"
        return [f"its mean absolute error is {chosen.mape_pct:.1f} % (more than {_MAPE:g} %; {hint})"]
    if chosen.p95_pct > _P95:
        return [f"5 % of batches are off by more than {chosen.p95_pct:.1f} %"]
    return []


def _missing(chosen: Fit) -> list[str]:
    prefill = chosen.batches.hold_prefill
    if not prefill.any():
        return ["no batch holds prefill, so prefill tokens cost as much as decodes, and their attention nothing"]
    if prefill.all():
        return ["no batch only decodes, so such batches cost what the others do without prefill"]
    return []


def _biases(own: Fit) -> list[tuple[float, str]]:
    """Mean error of each quarter of the batches, by tokens and by context."""
    biases = []
    for column, words in _SLICES.items():
        values = getattr(own.batches, column)
        present = values[values > 0]
        if len(present) < 20:
            continue
        edges = np.quantile(present, [0, 0.25, 0.5, 0.75, 1])
        for low, high in zip(edges[:-1], edges[1:], strict=True):
            inside = (values > 0) & (values >= low) & (values <= high)
            biases.append((own.bias_pct(inside), f"{low:g} to {high:g} {words}"))
    return biases
