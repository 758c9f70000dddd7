"""Which prefill and decode rates an engine can sustain together: the polygon of arXiv 2504.07347, Theorem 10."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from llmsched_env.simulator.batch_time import Staircase
from llmsched_env.simulator.config import EngineConfig
from llmsched_env.theory.work import LengthMix, mean_work, token_seconds
from llmsched_env.validation import check_number

_TOLERANCE = 1e-9  # relative, for what lies on a line


@dataclass(frozen=True, slots=True)
class Region:
    """Pairs of prefill and decode rates (tokens/s) in the convex hull of 0 and of what batches of some kinds yield.

    Every pair of non-negative rates below one in the region is in the region. Its interior is stable under some
    scheduler, and no scheduler is stable outside.

    Attributes:
        names: of the corners.
        compositions: i8[n, 2], prefill and decode tokens of the batch that spans each corner, from prefill only to
            decode only.
        seconds: f8[n], how long these batches take.
    """

    names: tuple[str, ...]
    compositions: np.ndarray
    seconds: np.ndarray

    @property
    def vertices(self) -> np.ndarray:
        """f8[n, 2]: (prefill, decode) tokens/s at the corners, from prefill only to decode only, without the origin."""
        return self.compositions / self.seconds[:, None]

    def stretch(self, prefill: float, decode: float) -> float:
        """The largest multiple of these rates (tokens/s) in the region; above 1 they are in its interior.

        Raises:
            ValueError: for a negative rate, or two zeros.
        """
        return float(np.min(self._multiples(prefill, decode)))

    def contains(self, prefill: float, decode: float) -> bool:
        """Whether these rates (tokens/s) are in the region, its boundary included."""
        return prefill == decode == 0 or self.stretch(prefill, decode) >= 1 - _TOLERANCE

    def support(self, prefill: float, decode: float) -> list[tuple[str, tuple[int, int], float]]:
        """The batches that sustain the largest multiple of these rates (tokens/s).

        Returns:
            (corner, (prefill tokens, decode tokens), share of time), one or two of them; the shares sum to 1.
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
        """For each edge, the multiple of the rates at which they cross its line; inf where they never do."""
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
    """The polygon of arXiv 2504.07347, Theorem 10, by its formulas, for a staircase and a limit of K requests a batch.

    With m = ceil(K/b0) steps, the fewest that hold K tokens, its corners are the batches (prefill, decode)

        A = (b_max, 0)               a full budget of prefill
        B = (b_max - (K-1), K-1)     a full budget, all requests but one decoding
        C = (b0 m - (K-1), K-1)      as many decodes in as few steps as possible, filled up by one prompt
        D = (0, K)                   decodes only

    each over its batch time; without `max_num_seqs` K is the budget, and the polygon is the triangle of Theorem 2. The
    formulas are the whole region if K <= b0 or b0 divides K. Otherwise fewer decodes in one step less may do better,
    and `stability_region` is larger. A corner inside the hull of the others is left out.

    Raises:
        ValueError: if the batch time is no staircase, its step does not divide the token budget, or host time is
            counted by request.
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
    """Rates that some scheduler sustains within token budget and request slots, for any batch-time law.

    The hull of (x, y)/t over all batches of x prefill and y decode tokens with x + y <= b_max, and y requests, one more
    if x > 0, within `max_num_seqs`: prompts are long enough for one of them to fill what decodes leave. KV memory and
    prompts shorter than that are the matter of `fluid_capacity`.

    Args:
        engine: the machine.
        workload: gives the mean attention per prefill and per decode token; needed for laws that have such terms.

    Raises:
        ValueError: if the law has attention terms and there is no workload.
    """
    batches = np.concatenate(list(extreme_batches(engine)))
    seconds = composition_seconds(engine, workload, batches)
    region = _hull(("",) * len(batches), batches, seconds)
    names = tuple(f"V{k}" for k in range(len(region.names)))
    return Region(names, region.compositions, region.seconds)


def extreme_batches(engine: EngineConfig) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For every number of tokens within the budget the batches of which all others of that size are mixtures.

    Returns:
        i8[n, 2] each, of (prefill, decode) tokens: prefill only; most decodes beside one prompt; decodes only.
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
        prompts: requests that prefill in each; None: one where there are prefill tokens.

    Raises:
        ValueError: if the law has attention terms and there is no workload.
    """
    prefill, decode = batches.T
    prompts = (prefill > 0).astype(np.int64) if prompts is None else prompts
    seconds = token_seconds(engine, prefill + decode) + engine.host_overhead[1] * (prompts + decode)
    a_kv, a_attn = engine.batch_time.coefficients()[5:7]
    if not (a_kv or a_attn):
        return seconds
    if workload is None:
        raise ValueError(f"workload must be given for a batch time with attention terms, {engine.batch_time!r}")
    work = mean_work(workload, engine)
    return seconds + a_attn * work.pairs / work.prompt * prefill + a_kv * work.context / max(work.decodes, 1) * decode


def _slots(engine: EngineConfig) -> int:
    """Requests that fit in a batch; one token each is the least."""
    if engine.max_num_seqs is None:
        return engine.token_budget
    return min(engine.max_num_seqs, engine.token_budget)


def _hull(names: tuple[str, ...], batches: np.ndarray, seconds: np.ndarray) -> Region:
    """Corners of the concave envelope from prefill only to decode only (Andrew's monotone chain)."""
    points = batches / np.asarray(seconds)[:, None]
    scale = float(points[:, 0].max() * points[:, 1].max())
    chain: list[int] = []
    for k in np.lexsort((points[:, 1], -points[:, 0])).tolist():
        while chain and points[k, 1] >= points[chain[-1], 1] and points[k, 0] >= points[chain[-1], 0]:
            chain.pop()  # no better than the new one
        while len(chain) > 1 and _turn(points[chain[-2]], points[chain[-1]], points[k]) <= _TOLERANCE * scale:
            chain.pop()
        chain.append(k)
    # An end with both kinds of tokens cannot be: leaving out the other kind makes the batch shorter.
    return Region(tuple(names[k] for k in chain), batches[chain], np.asarray(seconds)[chain])


def _turn(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> float:
    """Twice the area of the triangle, above 0 if it runs counter-clockwise."""
    return float((b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]))
