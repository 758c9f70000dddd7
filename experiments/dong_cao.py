"""Algorithm 1 of Dong and Cao, arXiv 2604.11001: known classes, fixed activations per slot, memory never exceeded."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

import baselines
import llmsched_env as ls
from experiments.check import agrees, exactly
from experiments.experiment import Experiment, Outcome, Picture
from llmsched_env import theory
from llmsched_env.evaluation.rendering import COLORS, line_style, panel_grid, styled, svg_text

PROMPT, OUTPUTS = 10, np.array([20, 40, 60])  # tokens by class
MEMORY, LIMIT, RATE = 16_492, 4, 3.0  # tokens; requests of a class per slot: activated at most, arriving
SEEDS, SLOTS, WARM_UP = 20, 20_000, 200
FULL_RATE, FULL_SLOTS = 8.0, 400  # enough arrivals that every slot activates as many as it may
ENGINE = ls.EngineConfig(  # a slot is a batch of 1 s; a prompt costs memory only
    ls.Staircase(c=1.0, a=0.0, b0=1), token_budget=2**40, kv_blocks=MEMORY, block_size=1, first_token="with_prefill"
)
SCHEDULER = baselines.dong_cao_1(**{f"limit_{k}": LIMIT for k in range(len(OUTPUTS))})


def run() -> Outcome:
    """Queues against their recursion and stationary mean, and memory at its peak."""
    results = [_run(RATE, SLOTS, seed) for seed in range(SEEDS)]
    queues = [queue_lengths(result, SLOTS) for result in results]
    full = _run(FULL_RATE, FULL_SLOTS, 0)
    volumes = theory.volume(np.full(len(OUTPUTS), PROMPT), OUTPUTS)
    peak = LIMIT * volumes.sum()
    checks = [
        exactly(
            "Slots in which a queue differs from Q' = max(Q + n − b, 0)",
            float(sum(differing_slots(result, lengths) for result, lengths in zip(results, queues, strict=True))),
            theory=0.0,
            note=f"{len(OUTPUTS)} classes, {SEEDS} runs of {SLOTS} slots",
        ),
        exactly(
            "Peak of prompt and generated tokens of active requests",
            float((full.batches.kv_blocks_used + full.batches.num_seqs).max()),
            published=16_240.0,
            theory=float(peak),
            note=f"theory: Σ b_k w_k, below the memory of {MEMORY} tokens; run with every slot at its limits",
        ),
        exactly(
            "Peak of the KV cache, before the newest tokens",
            float(full.batches.kv_blocks_used.max()),
            theory=float(peak - LIMIT * OUTPUTS.sum()),
        ),
        *(
            agrees(
                f"Mean queue of class {k}, ({PROMPT}, {output}) tokens",
                [lengths[k, WARM_UP:].mean() for lengths in queues],
                stationary_mean(RATE, LIMIT),
                0.02,
                published=0.801,
                note="theory: the stationary distribution of the recursion",
            )
            for k, output in enumerate(OUTPUTS)
        ),
        agrees(
            "Output tokens per slot",
            [_tokens_per_slot(result) for result in results],
            RATE * float(OUTPUTS.sum()),
            1.0,
            published=360.0,
        ),
    ]
    return Outcome(tuple(checks), (Picture(_CAPTION, _draw(results[0], full, queues)),))


def stationary_mean(rate: float, limit: int) -> float:
    """Mean of the queue Q' = max(Q + n - b, 0) in equilibrium, with n Poisson of mean `rate` and b = `limit` above it.

    Its generating function is (b - r) (z - 1) / (z^b - exp(r (z - 1))) times the product of (z - z_k) / (1 - z_k), with
    z_k the b - 1 zeros of the denominator inside the unit circle; the mean is its derivative at 1.
    """
    units = np.exp(2j * np.pi * np.arange(1, limit) / limit)
    zeros = np.zeros_like(units)
    for _ in range(1000):  # a contraction with factor rate/limit
        zeros = units * np.exp(rate * (zeros - 1) / limit)
    return float(np.sum(1 / (1 - zeros)).real - (limit * (limit - 1) - rate**2) / (2 * (limit - rate)))


def workload(rate: float, slots: int, seed: int) -> ls.Workload:
    """Poisson arrivals of every class at the starts of slots 0, 1, ..."""
    counts = np.random.default_rng(seed).poisson(rate, (slots, len(OUTPUTS)))
    slot, klass = np.divmod(np.repeat(np.arange(counts.size), counts.ravel()), len(OUTPUTS))
    return ls.Workload.from_arrays(slot.astype(float), np.full(len(slot), PROMPT), OUTPUTS[klass], klass=klass)


def _run(rate: float, slots: int, seed: int) -> ls.Result:
    return ls.simulate(SCHEDULER, workload(rate, slots, seed), ENGINE, horizon=float(slots))


def queue_lengths(result: ls.Result, slots: int) -> np.ndarray:
    """i8[classes, slots]: requests of a class that wait once the slot has activated its share."""
    return np.cumsum(_per_slot(result, "arrival", slots) - _per_slot(result, "first_scheduled", slots), axis=1)


def differing_slots(result: ls.Result, queues: np.ndarray) -> int:
    """In how many slots, over all classes, the queues are not those of the recursion.

    The recursion is the walk of arrivals less activations, reflected at 0.
    """
    walk = np.cumsum(_per_slot(result, "arrival", queues.shape[1]) - LIMIT, axis=1)
    expected = walk - np.minimum(np.minimum.accumulate(walk, axis=1), 0)
    return int(np.count_nonzero(expected != queues))


def _per_slot(result: ls.Result, column: str, slots: int) -> np.ndarray:
    """i8[classes, slots]: requests of a class whose time in `column` is the start of a slot."""
    times, klass = result.requests[column], result.requests.klass
    known = ~np.isnan(times)
    counts = np.zeros((len(OUTPUTS), slots), np.int64)
    np.add.at(counts, (klass[known], times[known].astype(int)), 1)
    return counts


def _tokens_per_slot(result: ls.Result) -> float:
    """After the warm-up; a request is in a batch exactly where an output token of it appears."""
    return float(result.batches.num_seqs[WARM_UP:].mean())


def _draw(result: ls.Result, full: ls.Result, queues: list[np.ndarray]) -> str:
    with styled():
        figure, (left, right) = panel_grid(2, columns=2, height=3.2)
        _draw_memory(left, result, full)
        _draw_queues(right, np.mean(queues, axis=0))
        return svg_text(figure)


def _draw_queues(axes: Axes, queues: np.ndarray) -> None:
    slots = np.unique(np.geomspace(100, SLOTS, 200).astype(int))
    for k, output in enumerate(OUTPUTS):
        running = np.cumsum(queues[k])[slots - 1] / slots
        axes.plot(slots, running, label=f"({PROMPT}, {output})", **line_style(k))
    axes.axhline(stationary_mean(RATE, LIMIT), color=COLORS[6], lw=1, label="theory")
    axes.set(title="Mean queue up to a slot, 3 arrivals of a class per slot", xlabel="Slot", ylabel="Requests")
    axes.set(xscale="log", xlim=(100, SLOTS), ylim=(0.6, 1.0))
    axes.legend(loc="lower right", ncols=2)


def _draw_memory(axes: Axes, result: ls.Result, full: ls.Result) -> None:
    runs = {"every slot at its limits": full, f"{RATE:g} arrivals of a class per slot": result}
    for i, (name, shown) in enumerate(runs.items()):
        batches = shown.batches[:FULL_SLOTS]
        axes.plot(batches.start, (batches.kv_blocks_used + batches.num_seqs) / 1e3, label=name, **line_style(i))
    axes.axhline(MEMORY / 1e3, color=COLORS[6], lw=1)
    axes.text(FULL_SLOTS, MEMORY / 1e3, "memory", ha="right", va="bottom")
    axes.set(title="Prompt and generated tokens of active requests", xlabel="Slot", ylabel="Thousand tokens")
    axes.set(xlim=(0, FULL_SLOTS), ylim=(0, 1.12 * MEMORY / 1e3))
    axes.legend(loc="lower right")


_CAPTION = f"Left: memory in use over the first slots of two runs. Right: mean over {SEEDS} runs, by class."

EXPERIMENT = Experiment(
    "dong_cao",
    "Dong and Cao, Algorithm 1: flow control with known classes",
    "arXiv 2604.11001, for comparison: time is slotted, an active request yields a token per slot, and a prompt costs "
    "memory only. Every slot activates at most 4 waiting requests of each of three classes, (10, 20), (10, 40) and "
    "(10, 60) tokens, and never looks at the memory of 16 492 tokens. Queues follow a recursion slot by slot, and "
    "memory has a bound that no sample path can exceed.",
    run,
)
