"""Batches drawn at random over the range that an engine meets, and priced by an estimator."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from llmsched_env.machine.batches import Batches

if TYPE_CHECKING:
    from llmsched_env.machine.aiconfigurator import Estimator

MOST_DECODES = 512
MOST_PROMPTS = 4
LONGEST_CHUNK = 8192
LONGEST = 32768  # tokens of a request


class Composition(NamedTuple):
    """What n batches hold, i8[n] each; decodes of one batch are alike, and so are prompts, as estimators take them."""

    decodes: np.ndarray  # requests that get one token
    decode_context: np.ndarray  # tokens before it, of each
    prompts: np.ndarray  # requests whose prompts are read
    prompt_tokens: np.ndarray  # tokens of the prompt that the batch reads, of each
    prompt_context: np.ndarray  # tokens before these, of each


def drawn(n: int, seed: int, longest: int = LONGEST) -> Composition:
    """Draw batches log-uniformly: a third decodes alone, a third prompts alone, a third both.

    Args:
        n: how many.
        seed: of the draw.
        longest: most tokens of a request.
    """
    rng = np.random.default_rng(seed)
    kind = np.arange(n) % 3
    tokens = _log_uniform(rng, 1, min(LONGEST_CHUNK, longest), n)
    context = np.minimum(_log_uniform(rng, 1, longest + 1, n) - 1, longest - tokens)
    prompts = np.where(kind == 0, 0, rng.integers(1, MOST_PROMPTS + 1, n))
    decodes = np.where(kind == 1, 0, _log_uniform(rng, 1, MOST_DECODES, n))
    return Composition(
        decodes=decodes,
        decode_context=np.where(decodes > 0, _log_uniform(rng, 1, longest - 1, n), 0),
        prompts=prompts,
        prompt_tokens=np.where(prompts > 0, tokens, 0),
        prompt_context=np.where(prompts > 0, context, 0),
    )


def priced(estimator: Estimator, batches: Composition) -> Batches:
    """The batches with the times that the estimator gives them.

    Raises:
        ValueError: it has no measurements for one of them.
    """
    seconds = [estimator.seconds(*map(int, row)) for row in zip(*batches, strict=True)]
    decodes, decode_context, prompts, tokens, context = (part.astype(np.float64) for part in batches)
    return Batches(
        total_tokens=decodes + prompts * tokens,
        decode_kv_tokens=decodes * decode_context,
        prefill_attn_pairs=prompts * tokens * (context + (tokens + 1) / 2),
        prefill_context_tokens=prompts * context,
        num_seqs=decodes + prompts,
        seconds=np.array(seconds),
    )


def range_of(batches: Composition) -> dict[str, tuple[int, int]]:
    """Least and most of each quantity, of the batches that have it; and of their tokens in all."""
    tokens = batches.decodes + batches.prompts * batches.prompt_tokens
    present = {name: getattr(batches, name) for name in batches._fields} | {"tokens": tokens}
    of_prompts = {"prompt_tokens", "prompt_context"}
    found = {}
    for name, values in present.items():
        own = values[batches.prompts > 0] if name in of_prompts else values[values > 0]
        found[name] = (int(own.min()), int(own.max()))
    return found


def _log_uniform(rng: np.random.Generator, low: int, high: int, n: int) -> np.ndarray:
    whole: np.ndarray = np.round(np.exp(rng.uniform(np.log(low), np.log(high), n))).astype(np.int64)
    return whole
