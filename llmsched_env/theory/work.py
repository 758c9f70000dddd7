"""Mean work of a request (tokens, decode steps, context to read) and the seconds it adds to batches."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike

from llmsched_env.machine.config import EngineConfig


class LengthMix(Protocol):
    """The mix of request lengths of a workload, the only thing besides the engine that capacity depends on."""

    def length_sample(self) -> tuple[np.ndarray, np.ndarray]:
        """Prompt and output tokens, i8[n] each, that represent all requests."""


class RequestFlow(LengthMix, Protocol):
    """A mix of request lengths that arrives at a rate."""

    @property
    def rate(self) -> float:
        """Requests per second."""


class Work(NamedTuple):
    """Means over the requests of a workload, whatever the scheduler.

    Attributes:
        prompt: prefill tokens.
        decodes: decode tokens, each in a batch of its own: o - 1, or o where the first token is separate.
        context: KV tokens read by these decode steps, summed over the steps.
        pairs: query-key pairs of the prompt, s(s + 1)/2 however it is cut into chunks.
    """

    prompt: float
    decodes: float
    context: float
    pairs: float

    @property
    def tokens(self) -> float:
        """Tokens of work: prompt and decodes."""
        return self.prompt + self.decodes


def mean_work(workload: LengthMix, engine: EngineConfig) -> Work:
    """The means of a workload's lengths under the engine's convention for the first token."""
    prompt, output = (lengths.astype(np.float64) for lengths in workload.length_sample())
    steps = decode_steps(output, engine)
    # Contexts before the decode steps are s, s+1, ... in both conventions: a first token that comes with the prompt
    # enters the KV cache only with the decode step that reads it.
    context = steps * prompt + steps * (steps - 1) / 2
    return Work(*(float(np.mean(part)) for part in (prompt, steps, context, prompt * (prompt + 1) / 2)))


def decode_steps(output: np.ndarray, engine: EngineConfig) -> np.ndarray:
    """Number of decode steps f8[n] or i8[n] of requests with these output lengths."""
    return output if engine.separate else output - 1


def token_seconds(engine: EngineConfig, tokens: ArrayLike, holds_prefill: bool = True) -> np.ndarray:
    """Seconds of batches of `tokens` >= 1 tokens without attention terms; host overhead per batch is included.

    Whether they hold prefill matters to a `TabulatedLaw` alone.
    """
    return np.asarray(engine.batch_time.token_seconds(tokens, holds_prefill)) + engine.host_overhead[0]


def request_seconds(engine: EngineConfig, work: Work) -> float:
    """Seconds that a request adds to its batches on top of its tokens: attention, and time per request.

    The prompt counts as one batch, and all batches as such that hold prefill. Re-reading context between chunks (a_ctx)
    is left out, since the scheduler chooses the chunks.
    """
    law, (a_kv, a_seq) = engine.batch_time.coefficients(), engine.batch_time.context_and_request(True)
    each = engine.host_overhead[1] + a_seq
    return float(a_kv * work.context + law.a_attn * work.pairs + each * (work.decodes + 1))


def request_seconds_apart(engine: EngineConfig, work: Work) -> float:
    """The same with all decodes in batches that hold no prefill."""
    law, host = engine.batch_time, engine.host_overhead[1]
    (_, a_prompt), (a_kv, a_decode) = law.context_and_request(True), law.context_and_request(False)
    prompt = law.coefficients().a_attn * work.pairs + host + a_prompt
    return float(prompt + a_kv * work.context + (host + a_decode) * work.decodes)
