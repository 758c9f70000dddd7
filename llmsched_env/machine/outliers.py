"""What looks wrong with the prices of an estimator: time that falls as work grows, and engines that disagree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from llmsched_env.machine.aiconfigurator import BACKENDS, Estimator
from llmsched_env.machine.priced_batches import LONGEST_CHUNK, MOST_DECODES

MOST_DROP = 0.05  # measurements repeat within this
# Of 26 models with 16-bit weights on H200, the kernels of vLLM agree with those of the other engines within 1.25 for
# 23; its tables of block-wise fp8 kernels make decode steps 1.4 to 1.8 times as long as those of both others.
MOST_RATIO = 1.35

_DECODES = [{"decodes": n, "decode_context": 1000} for n in (1, 16, 64, 256)]
_PREFILL = [
    {"prompts": 1, "prompt_tokens": 256},
    {"prompts": 1, "prompt_tokens": 2048},
    {"prompts": 1, "prompt_tokens": 1024, "prompt_context": 1024, "decodes": 32, "decode_context": 1000},
]
_KINDS = {"decode steps": _DECODES, "steps with prefill": _PREFILL}


def shortcomings(estimator: Estimator, longest: int) -> list[str]:
    """What looks wrong, one sentence each; requests hold up to `longest` tokens."""
    return [*_drops(estimator, longest), *_disagreements(estimator)]


def _drops(estimator: Estimator, longest: int) -> list[str]:
    found = []
    for words, batches, sizes in _sweeps(longest):
        times = [estimator.seconds(**batch) for batch in batches]
        worst = max(range(1, len(times)), key=lambda k: max(times[:k]) / times[k])
        before = int(np.argmax(times[:worst]))
        drop = 1 - times[worst] / times[before]
        if drop > MOST_DROP:
            found.append(
                f"time falls by {100 * drop:.0f} % as work grows: {1e3 * times[before]:.2f} ms for "
                f"{words.format(sizes[before])}, {1e3 * times[worst]:.2f} ms for {words.format(sizes[worst])}; the "
                "fitted law does not fall"
            )
    return found


def _sweeps(longest: int) -> list[tuple[str, list[dict[str, int]], list[int]]]:
    decodes, tokens = _doubling(1, MOST_DECODES), _doubling(8, min(LONGEST_CHUNK, longest))
    context, before = _doubling(64, longest - 1), [0, *_doubling(64, longest - 512)]
    return [
        ("{} decodes", [{"decodes": n, "decode_context": 512} for n in decodes], decodes),
        ("a prompt of {} tokens", [{"prompts": 1, "prompt_tokens": n} for n in tokens], tokens),
        ("64 decodes with {} tokens of context", [{"decodes": 64, "decode_context": n} for n in context], context),
        (
            "512 prompt tokens after {} others",
            [{"prompts": 1, "prompt_tokens": 512, "prompt_context": n} for n in before],
            before,
        ),
    ]


def _disagreements(estimator: Estimator) -> list[str]:
    """Sentences about kinds of steps in which no other engine's kernels are about as fast."""
    others: dict[str, Mapping[str, list[float]]] = {}
    for backend in BACKENDS:
        if backend == estimator.deployment.backend:
            continue
        try:
            other = Estimator(replace(estimator.deployment, backend=backend))
        except ValueError:
            continue
        others[f"{backend} {other.versions[backend]}"] = {kind: _times(other, rows) for kind, rows in _KINDS.items()}
    if not any(times for kinds in others.values() for times in kinds.values()):
        return ["no other engine has measured kernels of this model on this system to compare with"]
    found = []
    for kind, rows in _KINDS.items():
        own = _times(estimator, rows)
        ratios = {name: np.divide(own, times[kind]) for name, times in others.items() if len(times[kind]) == len(own)}
        middle = {name: float(np.median(ratio)) for name, ratio in ratios.items()}
        if middle and all(max(ratio, 1 / ratio) > MOST_RATIO for ratio in middle.values()):
            ours = f"{estimator.deployment.backend} {estimator.versions[estimator.deployment.backend]}"
            parts = [f"{ratio:.2g} times as long as with those of {name}" for name, ratio in middle.items()]
            guess = f"those of {ours} look" if len(middle) > 1 else "one of the two looks"
            found.append(f"with kernels of {ours}, {kind} take {' and '.join(parts)}: {guess} measured badly")
    return found


def _times(estimator: Estimator, batches: Sequence[Mapping[str, int]]) -> list[float]:
    """Their times; none if the package lacks one of them."""
    try:
        return [estimator.seconds(**batch) for batch in batches]
    except ValueError:
        return []


def _doubling(low: int, high: int) -> list[int]:
    sizes = [low]
    while 2 * sizes[-1] <= high:
        sizes.append(2 * sizes[-1])
    return sizes
