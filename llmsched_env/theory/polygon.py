"""Prefill and decode rates that an engine can sustain together: the polygon of arXiv 2504.07347, Theorem 10."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from llmsched_env.machine.batch_time import Staircase
from llmsched_env.machine.config import EngineConfig
from llmsched_env.theory.work import LengthMix, mean_work, token_seconds
from llmsched_env.validation import check_number

_TOLERANCE = 1e-9  # relative, for points on a line


@dataclass(frozen=True, slots=True)
class Region:
    """Pairs of prefill and decode rates (tokens/s): the convex hull of 0 and the rates of some batches.

    Lowering a rate stays in the region. Some scheduler is stable in its interior, and none is outside.

    Attributes:
        names: names of the corners.
        compositions: i8[n, 2], prefill and decode tokens of the batch at each corner, from prefill only to decode only.
        seconds: f8[n], duration of these batches.
    """

    names: tuple[str, ...]
    compositions: np.ndarray
    seconds: np.ndarray

    @property
    def vertices(self) -> np.ndarray:
        """f8[n, 2]: (prefill, decode) tokens/s at the corners, from prefill only to decode only, without the origin."""
        return np.asarray(self.compositions / self.seconds[:, None])

    def stretch(self, prefill: float, decode: float) -> float:
        """The largest factor by which these rates (tokens/s) can grow within the region; above 1 they are inside.

        Raises:
            ValueError: a rate is negative, or both are 0.
        """
        return float(np.min(self._multiples(prefill, decode)))

    def contains(self, prefill: float, decode: float) -> bool:
        """Whether these rates (tokens/s) are in the region, including its boundary."""
        return prefill == decode == 0 or self.stretch(prefill, decode) >= 1 - _TOLERANCE

    def support(self, prefill: float, decode: float) -> list[tuple[str, tuple[int, int], float]]:
        """The batches that sustain the largest multiple of these rates (tokens/s).

        Returns:
            One or two of (corner, (prefill tokens, decode tokens), share of time); the shares sum to 1.
        """
        multiples = self._multiples(prefill, decode)
        k = int(np.argmin(multiples))
        ends = self.vertices[k : k + 2]
        shares = np.linalg.solve(ends.T, multiples[k] * np.array([prefill, decode], dtype=float))
        corners = zip(self.names[k : k + 2], self.compositions[k : k + 2].tolist(), shares.tolist(), strict=True)
        return [(name, tuple(batch), share) for name, batch, share in corners if share > _TOLERANCE]

    def capacity(self, workload: LengthMix, engine: EngineConfig) -> float:
        """Requests/s of the workload at which its prefill and decode rates reach the boundary."""
        work = mean_work(workload, engine)
        return self.stretch(work.prompt, work.decodes)

    def _multiples(self, prefill: float, decode: float) -> np.ndarray:
        """For each edge, the factor at which the rates cross its line; inf if they never do."""
        rates = np.array([check_number("prefill", prefill, at_least=0), check_number("decode", decode, at_least=0)])
        if not rates.any():
            raise ValueError("prefill and decode must not both be 0")
        vertices = self.vertices
        along = np.diff(vertices, axis=0)
        outward = np.column_stack([along[:, 1], -along[:, 0]])
        reach, speed = np.sum(outward * vertices[:-1], axis=1), outward @ rates
        with np.errstate(divide="ignore"):
            return np.where(speed > 0, reach / np.where(speed > 0, speed, 1.0), np.inf)


def theorem10(engine: EngineConfig) -> Region:
    """The polygon of arXiv 2504.07347, Theorem 10, by its formulas, for a staircase and at most K requests in a batch.

    With m = ceil(K/b0) the fewest steps that hold K tokens, its corners are the batches (prefill, decode)

        A = (b_max, 0)               a full budget of prefill
        B = (b_max - (K-1), K-1)     a full budget, all requests but one decoding
        C = (b0 m - (K-1), K-1)      K-1 decodes in m steps, filled up by one prompt
        D = (0, K)                   decodes only

    each over its batch time. Without `max_num_seqs` K is the token budget, and the polygon is the triangle of
    Theorem 2. The formulas give the whole region if K <= b0 or b0 divides K. Otherwise fewer decodes in one step less
    may be better, and `stability_region` is larger. Corners inside the hull of the others are left out.

    Raises:
        ValueError: the batch time is not a staircase, its step does not divide the token budget, or there is host time
            per request.
    """
    law, budget = engine.batch_time, engine.token_budget
    if not isinstance(law, Staircase):
        raise ValueError(f"batch_time must be a Staircase for the formulas of Theorem 10, got {law!r}")
    if budget % law.b0:
        raise ValueError(f"token_budget must be a multiple of the step b0={law.b0} of the staircase, got {budget}")
    if engine.host_overhead[1]:
        raise ValueError(f"host_overhead per request must be 0 for the formulas, got {engine.host_overhead[1]}")
    slots = _slots(engine)
    filled = law.b0 * -(-slots // law.b0)
    batches = np.array([(budget, 0), (budget - slots + 1, slots - 1), (filled - slots + 1, slots - 1), (0, slots)])
    return _hull(tuple("ABCD"), batches, token_seconds(engine, batches.sum(axis=1)))


def stability_region(engine: EngineConfig, workload: LengthMix | None = None) -> Region:
    """Rates that some scheduler sustains within the token budget and request slots, for any batch-time law.

    The hull of (x, y)/t over all batches of x prefill and y decode tokens with x + y <= b_max and at most
    `max_num_seqs` requests: y, and one more if x > 0. One prompt is assumed to be long enough to fill the space that
    decodes leave. For KV memory and shorter prompts see `fluid_capacity`.

    Args:
        engine: the machine.
        workload: gives the mean attention per prefill and per decode token; required if the law has attention terms.

    Raises:
        ValueError: the law has attention terms and there is no workload.
    """
    batches = np.concatenate(list(extreme_batches(engine)))
    seconds = composition_seconds(engine, workload, batches)
    region = _hull(("",) * len(batches), batches, seconds)
    names = tuple(f"V{k}" for k in range(len(region.names)))
    return Region(names, region.compositions, region.seconds)


def extreme_batches(engine: EngineConfig) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The extreme batches of every size within the token budget: all others of that size are mixtures of them.

    Returns:
        Three arrays i8[n, 2] of (prefill, decode) tokens: prefill only; most decodes with one prompt; decodes only.
    """
    tokens, slots = np.arange(1, engine.token_budget + 1), _slots(engine)
    most = np.minimum(tokens, slots) - 1
    only = tokens[:slots]
    return (
        np.column_stack([tokens, np.zeros_like(tokens)]),
        np.column_stack([tokens - most, most]),
        np.column_stack([np.zeros_like(only), only]),
    )


def composition_seconds(
    engine: EngineConfig, workload: LengthMix | None, batches: np.ndarray, prompts: np.ndarray | None = None
) -> np.ndarray:
    """Mean seconds f8[n] of batches i8[n, 2] of (prefill, decode) tokens, attention spread evenly over the tokens.

    Args:
        engine: the machine.
        workload: see `stability_region`.
        batches: the compositions.
        prompts: i8[n], prompts in each batch; None: one if it has prefill tokens.

    Raises:
        ValueError: the law has attention terms and there is no workload.
    """
    prefill, decode = batches.T
    prompts = (prefill > 0).astype(np.int64) if prompts is None else prompts
    law = engine.batch_time.coefficients()
    pairs, context = prefill.astype(np.float64), np.zeros(len(batches))  # a prompt token has at least one pair
    if law.a_kv or law.a_attn:
        if workload is None:
            raise ValueError(f"workload must be given for a batch time with attention terms, {engine.batch_time!r}")
        work = mean_work(workload, engine)
        pairs, context = work.pairs / work.prompt * prefill, work.context / max(work.decodes, 1) * decode
    requests = prompts + decode
    seconds = engine.batch_time.seconds(prefill + decode, context, pairs, 0, requests)
    return np.asarray(seconds + engine.host_overhead[0] + engine.host_overhead[1] * requests)


def _slots(engine: EngineConfig) -> int:
    """Largest number of requests in a batch, each with at least one token."""
    if engine.max_num_seqs is None:
        return engine.token_budget
    return min(engine.max_num_seqs, engine.token_budget)


def _hull(names: tuple[str, ...], batches: np.ndarray, seconds: np.ndarray) -> Region:
    """The region spanned by the concave envelope, from prefill only to decode only (Andrew's monotone chain)."""
    points = batches / np.asarray(seconds)[:, None]
    scale = float(points[:, 0].max() * points[:, 1].max())
    chain: list[int] = []
    for k in np.lexsort((points[:, 1], -points[:, 0])).tolist():
        while chain and points[k, 1] >= points[chain[-1], 1] and points[k, 0] >= points[chain[-1], 0]:
            chain.pop()  # dominated by the new one
        while len(chain) > 1 and _turn(points[chain[-2]], points[chain[-1]], points[k]) <= _TOLERANCE * scale:
            chain.pop()
        chain.append(k)
    # The ends are pure batches: leaving out the tokens of the other kind makes a batch shorter.
    return Region(tuple(names[k] for k in chain), batches[chain], np.asarray(seconds)[chain])


def _turn(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> float:
    """Twice the signed area of the triangle, above 0 if it is counter-clockwise."""
    return float((b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]))
