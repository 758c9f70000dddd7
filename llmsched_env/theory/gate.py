"""The fluid plan of gate-and-route, arXiv 2602.02987: which classes to serve, and in which batches."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from llmsched_env.validation import check_integer, check_number


class GatePlan(NamedTuple):
    """An optimal point of the fluid model; arrays by class.

    Attributes:
        prefilling: X, engines that prefill a prompt of the class.
        decoding_mixed: Y_m, its requests that decode in batches with a prompt.
        decoding_solo: Y_s, its requests that decode in batches without a prompt.
        throughput: finished requests/s.
        value: value earned per second.
    """

    prefilling: np.ndarray
    decoding_mixed: np.ndarray
    decoding_solo: np.ndarray
    throughput: np.ndarray
    value: float


def gate_plan(
    rates: Sequence[float],
    prompt_tokens: Sequence[float],
    output_tokens: Sequence[float],
    mixed_seconds: float,
    solo_seconds: float,
    chunk: int,
    seats: int,
    engines: int = 1,
    values: Sequence[float] | None = None,
) -> GatePlan:
    """The allocation of greatest value among those that balance prefill and decode.

    An engine runs mixed batches (a chunk C of one prompt and at most B - 1 decodes, tau_mix seconds) or solo batches
    (at most B decodes, tau_solo seconds). With P prompt and D output tokens, x engines finish x C/(P tau_mix)
    prompts/s, and y decoding requests finish y/(D tau) outputs/s. The plan maximises value per second subject to sum X
    <= n, sum Y_m <= (B - 1) sum X and sum Y_s <= B (n - sum X). No class is prefilled faster than it arrives, and every
    prefilled request is decoded. Requests that are not admitted abandon; the paper also lets requests abandon between
    prefill and decode.

    Args:
        rates: arrivals per second of each class.
        prompt_tokens: mean P of each class.
        output_tokens: mean D of each class.
        mixed_seconds: tau_mix.
        solo_seconds: tau_solo.
        chunk: C, tokens.
        seats: B, requests.
        engines: n.
        values: value of a finished request of each class; None: its tokens.

    Raises:
        ValueError: naming the argument, its value and what is allowed.
    """
    from scipy.optimize import linprog

    arrivals, prompt, output = (np.asarray(x, np.float64) for x in (rates, prompt_tokens, output_tokens))
    worth = prompt + output if values is None else np.asarray(values, np.float64)
    if not (len(arrivals) == len(prompt) == len(output) == len(worth) > 0):
        raise ValueError("rates, prompt_tokens, output_tokens and values must have one entry for each class")
    check_number("mixed_seconds", mixed_seconds, above=0, unit="s")
    check_number("solo_seconds", solo_seconds, above=0, unit="s")
    check_integer("chunk", chunk, at_least=1, unit="tokens")
    check_integer("seats", seats, at_least=1, unit="requests")
    check_integer("engines", engines, at_least=1)
    n = len(arrivals)
    prefill, mixed, solo = chunk / (prompt * mixed_seconds), 1 / (output * mixed_seconds), 1 / (output * solo_seconds)
    ones, zeros = np.ones(n), np.zeros(n)
    limits = [(ones, zeros, zeros), (-(seats - 1) * ones, ones, zeros), (seats * ones, zeros, ones)]
    solution = linprog(
        -np.concatenate([zeros, worth * mixed, worth * solo]),
        A_ub=[np.concatenate(row) for row in limits],
        b_ub=[engines, 0.0, seats * engines],
        A_eq=np.hstack([np.diag(prefill), -np.diag(mixed), -np.diag(solo)]),
        b_eq=zeros,
        bounds=[*((0.0, rate / speed) for rate, speed in zip(arrivals, prefill, strict=True)), *[(0.0, None)] * 2 * n],
    )
    x, y_mixed, y_solo = np.split(solution.x, 3)
    return GatePlan(x, y_mixed, y_solo, prefill * x, -float(solution.fun))
