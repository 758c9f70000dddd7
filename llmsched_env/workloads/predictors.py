"""Predictions of output lengths, which are all that a deployed scheduler can know; drawn with the workload."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from llmsched_env.slo import SLO
from llmsched_env.tables.request_table import RequestTable
from llmsched_env.theory.work import LengthMix
from llmsched_env.validation import check_number
from llmsched_env.workloads.sources import Source

Predictor = Callable[[np.random.Generator, np.ndarray, np.ndarray], np.ndarray]
"""(rng, prompt_tokens i8[n], output_tokens i8[n]) -> predicted output tokens f8[n] > 0, nan for none."""

_BLOCK = 1024  # requests in order are predicted in blocks of so many
_STREAM = 0x707265  # separates the predictions of a seed from everything else drawn from it
_LARGEST_LOG_SD = 32.0


class NamedLengthMix(LengthMix, Protocol):
    """A mix of request lengths, such as a `Workload`, with a name for messages."""

    @property
    def name(self) -> str:
        """Its name in messages."""


@dataclass(frozen=True, slots=True)
class LengthPredictor:
    """Predictions with a log-normal error: the true output length times exp(log_bias + log_sd Z), Z standard normal.

    A prediction is at least one token. With log_sd = 0 and no bias it is the true length.

    Attributes:
        log_sd: standard deviation of the logarithm of predicted over true length, 0 to 32.
        log_bias: its mean, -32 to 32; above 0 overpredicts, as a cautious scheduler may want.
        coverage: share of requests that have a prediction, in [0, 1]; the others have nan.

    Raises:
        ValueError: a number is not allowed.
    """

    log_sd: float
    log_bias: float = 0.0
    coverage: float = 1.0

    def __post_init__(self) -> None:
        check_number("log_sd", self.log_sd, at_least=0, at_most=_LARGEST_LOG_SD)
        check_number("log_bias", self.log_bias, at_least=-_LARGEST_LOG_SD, at_most=_LARGEST_LOG_SD)
        check_number("coverage", self.coverage, at_least=0, at_most=1)

    def __call__(self, rng: np.random.Generator, prompt_tokens: np.ndarray, output_tokens: np.ndarray) -> np.ndarray:
        """Predicted output tokens, f8[n]."""
        draws = rng.standard_normal(len(output_tokens)), rng.random(len(output_tokens))
        return self._predict(output_tokens, *draws)

    def _predict(self, output_tokens: np.ndarray, normals: np.ndarray, uniforms: np.ndarray | float) -> np.ndarray:
        predicted = np.maximum(1.0, output_tokens * np.exp(self.log_bias + self.log_sd * normals))
        return np.where(uniforms < self.coverage, predicted, math.nan)

    @classmethod
    def calibrated(
        cls,
        workload: NamedLengthMix,
        *,
        spearman: float | None = None,
        kendall: float | None = None,
        log_bias: float = 0.0,
        coverage: float = 1.0,
    ) -> LengthPredictor:
        """The predictor whose predictions have the given rank correlation with the true lengths of a workload.

        Papers report learned predictors by their rank correlation, such as a Kendall's tau of about 0.56 for the
        learning-to-rank scheduler (arXiv 2408.15792).

        Args:
            workload: its `length_sample` is used for the calibration.
            spearman: Spearman's rank correlation, in (0, 1]; None if `kendall` is given.
            kendall: Kendall's tau-b, in (0, 1]; None if `spearman` is given.
            log_bias: see the class.
            coverage: see the class.

        Raises:
            ValueError: not exactly one of the two is given, it is out of range, or all lengths are equal.
        """
        from scipy.optimize import brentq
        from scipy.stats import kendalltau, spearmanr

        if spearman is not None and kendall is None:
            name, target, measure = "spearman", spearman, spearmanr
        elif kendall is not None and spearman is None:
            name, target, measure = "kendall", kendall, kendalltau
        else:
            raise ValueError(f"one of spearman and kendall must be given, got spearman={spearman}, kendall={kendall}")
        wanted = check_number(name, target, above=0, at_most=1)
        rng = np.random.default_rng(_STREAM)
        _, output = workload.length_sample()
        if np.ptp(output) == 0:
            raise ValueError(f"{name} has no meaning for {workload.name}: all its outputs are {output[0]} tokens")
        output = rng.choice(output, 20_000)
        normals = rng.standard_normal(len(output))

        def excess(log_sd: float) -> float:
            return float(measure(output, cls(log_sd, log_bias)._predict(output, normals, 0.0)).statistic) - wanted

        exact = excess(0.0) <= 0 or wanted == 1
        return cls(0.0 if exact else brentq(excess, 0.0, _LARGEST_LOG_SD, xtol=1e-4), log_bias, coverage)


@dataclass(frozen=True, slots=True)
class PredictedRequests:
    """The requests of another source with predictions, which `predictor` draws for each seed."""

    source: Source
    predictor: Predictor

    def __repr__(self) -> str:
        return f"{self.source!r}, with predicted lengths"

    @property
    def rate(self) -> float:
        """Requests per second of the source."""
        return self.source.rate

    def sample(self, seed: int) -> RequestTable:
        """The requests of a seed, with predictions from their own random stream."""
        return self._predicted(self.source.sample(seed), np.random.default_rng([_STREAM, seed]))

    def in_order(self, seed: int, n: int) -> RequestTable:
        """The first n requests of a seed, with predictions, all at time 0."""
        blocks = -(-n // _BLOCK)  # each with a random stream of its own, so that more requests begin with the same ones
        table = self.source.in_order(seed, blocks * _BLOCK)
        predicted = np.empty(len(table))
        for k in range(blocks):
            own = slice(k * _BLOCK, (k + 1) * _BLOCK)
            rng = np.random.default_rng([_STREAM, seed, k])
            predicted[own] = self.predictor(rng, table.prompt_tokens[own], table.output_tokens[own])
        return replace(table, predicted_output=predicted).rows(0, n)

    def episode(self, rng: np.random.Generator, horizon: float) -> RequestTable:
        """Requests for an episode of the source, with predictions."""
        table = self.source.episode(rng, horizon)
        return self._predicted(table, np.random.default_rng(int(rng.integers(2**63))))

    def at_rate(self, rate: float) -> PredictedRequests:
        """The same source at another rate."""
        return replace(self, source=self.source.at_rate(rate))

    def lasting(self, seconds: float) -> PredictedRequests:
        """The same source for at least so long."""
        return replace(self, source=self.source.lasting(seconds))

    def with_slo(self, slo: SLO) -> PredictedRequests:
        """The same source with these targets."""
        return replace(self, source=self.source.with_slo(slo))

    def lengths(self) -> tuple[np.ndarray, np.ndarray]:
        """Prompt and output tokens that represent the source, i8[n] each."""
        return self.source.lengths()

    def split(self, fractions: tuple[float, ...]) -> tuple[PredictedRequests, ...]:
        """The parts of the source, each with predictions."""
        return tuple(replace(self, source=part) for part in self.source.split(fractions))

    def _predicted(self, table: RequestTable, rng: np.random.Generator) -> RequestTable:
        predicted = self.predictor(rng, table.prompt_tokens, table.output_tokens)
        return replace(table, predicted_output=np.asarray(predicted, dtype=np.float64))
