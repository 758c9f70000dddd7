"""Speed, host time and noise of an engine whose batch-time law is known up to a factor, from the times of its steps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from llmsched_env.machine.batch_time import BatchTime
from llmsched_env.machine.batches import Batches
from llmsched_env.machine.least_squares import fit_relative

_SURE = 1.96  # standard errors on either side of an interval of 95 %
_TOLD = 3.0  # standard errors above 0 from which on a host term is told apart from it
_WORDS = {"factor": "the factor", "host_batch": "host time a step", "host_request": "host time a request"}
_VAGUE = 0.1  # half an interval over the value from which on a warning says so
_MATERIAL = 0.02  # share of a step's time that a term left out may have without a warning
_TOTAL, _DRIFT, _NOISE, _MANY_OUTLIERS = 0.03, 0.3, 0.02, 0.01
_ROUNDING = 1e-6  # share of a step's time that is not worth a term
_OUTLIER = 4.0  # robust standard deviations of the logarithm
_LEAST_SPREAD, _ROUNDS = 0.01, 20
FEWEST_STEPS = 30


@dataclass(frozen=True, slots=True, eq=False)
class StepFit:
    """Steps that take (factor*law + host_batch + host_request*requests) * noise.

    Attributes:
        factor: on the law's times.
        host_overhead: s a step, s a request in it; 0 where it is not told apart from 0.
        step_noise: standard deviation of the logarithm of measured over predicted time.
        intervals: of 95 %, by term: factor, host_batch, host_request, step_noise. Of a term that was left out, the one
            that it had beside the others.
        left_out: host terms that were set to 0, as they are within 3 standard errors of it.
        steps: the batches.
        base: f8[n], s, of the law as it was.
        predicted: f8[n], s.
        num_outliers: how many other steps were left out as too far from these.
    """

    factor: float
    host_overhead: tuple[float, float]
    step_noise: float
    intervals: dict[str, tuple[float, float]]
    left_out: tuple[str, ...]
    steps: Batches
    base: np.ndarray
    predicted: np.ndarray
    num_outliers: int = 0

    @property
    def total_ratio(self) -> float:
        """Measured over predicted time of all steps together."""
        return float(self.steps.seconds.sum() / self.predicted.sum())

    @property
    def drift(self) -> float:
        """Share of the variance of log measured over predicted that successive steps have in common, at most 1.

        0 for noise that is drawn anew for each step; near 1 where the law is wrong for whole stretches of steps.
        """
        log = np.log(self.steps.seconds / self.predicted)
        total = float(np.var(log))
        return 0.0 if total == 0 else 1 - float(np.mean(np.diff(log) ** 2) / 2 / total)

    @property
    def mape_pct(self) -> tuple[float, float]:
        """Mean absolute relative error of the law as it was, and of the prediction; percent."""
        before, after = (100 * np.mean(np.abs(own / self.steps.seconds - 1)) for own in (self.base, self.predicted))
        return float(before), float(after)

    def doubts(self) -> list[str]:
        """Reasons to doubt the numbers, one sentence each."""
        found = []
        values = {"factor": self.factor, "host_batch": self.host_overhead[0], "host_request": self.host_overhead[1]}
        sizes = {"host_batch": 1.0, "host_request": float(self.steps.composition[-1].mean())}
        for name, words in _WORDS.items():
            low, high = self.intervals.get(name, (0.0, 0.0))
            if name in self.left_out:
                if high * sizes[name] > _MATERIAL * self.steps.seconds.mean():
                    found.append(
                        f"{words} is not told apart from 0, nor from {1e3 * high:.3g} ms: it is left out, and what "
                        "there is of it is in the other numbers"
                    )
            elif (high - low) / 2 > _VAGUE * values[name]:
                scale, unit = (1.0, "") if name == "factor" else (1e3, " ms")
                found.append(f"{words} is only known to lie within {scale * low:.3g} to {scale * high:.3g}{unit}")
        if self.num_outliers > _MANY_OUTLIERS * len(self.steps):
            found.append(
                f"{self.num_outliers} steps besides these {len(self.steps)} took much more or less time than noise "
                "explains and were left out: stalls, or prompts that the times of tokens do not show"
            )
        if abs(self.total_ratio - 1) > _TOTAL:
            found.append(f"all steps together took {self.total_ratio:.3f} times as long as predicted")
        if self.drift > _DRIFT and self.step_noise > _NOISE:
            found.append(
                f"{100 * self.drift:.0f} % of what is called noise is shared by successive steps: the law is off for "
                "some batches, or the machine was slower for a while"
            )
        return found


def fit_steps(steps: Batches, law: BatchTime, outliers: bool = True) -> StepFit:
    """Fit factor, host time and noise by least squares of the relative error, see `fit_relative`.

    A host term within 3 standard errors of 0 is left out, the least certain one first, and the others are fitted again:
    steps that hardly differ in composition yield one number, the factor. Without the number of requests in a batch
    nothing is fitted to them.

    Args:
        steps: the batches, with the time of the whole step.
        law: up to a factor the law of the engine.
        outliers: whether steps stay that are further from the others than noise explains. To leave them out is right
            where the composition may be wrong.

    Raises:
        ValueError: fewer than 30 steps.
    """
    if len(steps) < FEWEST_STEPS:
        raise ValueError(f"calibration of a profile needs {FEWEST_STEPS} steps or more, got {len(steps)}")
    kept, rounds = steps, 1 if outliers else _ROUNDS
    for left in reversed(range(rounds)):
        found = _fitted(kept, law, num_outliers=len(steps) - len(kept))
        log = np.log(kept.seconds / found.predicted)
        log -= np.median(log)
        near = np.abs(log) <= _OUTLIER * max(_LEAST_SPREAD, 1.4826 * float(np.median(np.abs(log))))
        if near.all() or left == 0:
            break
        kept = kept.part(near)
    return found


def _fitted(steps: Batches, law: BatchTime, num_outliers: int) -> StepFit:
    base = law.seconds(*steps.composition)
    columns = {"factor": base, "host_batch": np.ones(len(steps))}
    if steps.requests_known:
        columns["host_request"] = steps.num_seqs
    left_out = [name for name in _WORDS if name not in columns]
    intervals: dict[str, tuple[float, float]] = {}
    while True:
        names = list(columns)
        design = np.column_stack(list(columns.values()))
        fitted = fit_relative(steps.seconds, design)[1]
        free, errors = _unbounded(design, steps.seconds, design @ fitted)
        for name, value, error in zip(names, free, errors, strict=True):
            intervals[name] = (float(value - _SURE * error), float(value + _SURE * error))
        share = free * design.mean(axis=0) / steps.seconds.mean()
        certain = np.where(share > _ROUNDING, free / errors, 0.0)
        doubtful = {name: certain[k] for k, name in enumerate(names) if name != "factor"}
        worst = min(doubtful, key=lambda name: doubtful[name], default="factor")
        if doubtful.get(worst, np.inf) > _TOLD:
            break
        left_out.append(worst)
        del columns[worst]
    values = dict(zip(names, fitted.tolist(), strict=True))
    predicted = design @ fitted
    noise, noise_error = _spread(np.log(steps.seconds / predicted))
    intervals["step_noise"] = (max(0.0, noise - _SURE * noise_error), noise + _SURE * noise_error)
    return StepFit(
        factor=values["factor"],
        host_overhead=(values.get("host_batch", 0.0), values.get("host_request", 0.0)),
        step_noise=noise,
        intervals=intervals,
        left_out=tuple(left_out),
        steps=steps,
        base=base,
        predicted=predicted,
        num_outliers=num_outliers,
    )


def _unbounded(design: np.ndarray, seconds: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients without bounds and their standard errors, whatever the noise is distributed like."""
    weighted = design / predicted[:, None]
    scale = np.linalg.norm(weighted, axis=0)
    inverse = np.linalg.pinv(weighted / scale)
    free = inverse @ (seconds / predicted)
    residual = seconds / predicted - weighted / scale @ free
    freedom = len(seconds) / max(1, len(seconds) - design.shape[1])
    errors = np.sqrt(freedom * np.sum((inverse * residual) ** 2, axis=1))
    return free / scale, np.maximum(errors / scale, 1e-300)


def _spread(log: np.ndarray) -> tuple[float, float]:
    """Standard deviation, and its standard error by the fourth moment."""
    deviation = float(np.std(log))
    if deviation == 0:
        return 0.0, 0.0
    kurtosis = float(np.mean(((log - log.mean()) / deviation) ** 4))
    return deviation, deviation * float(np.sqrt(max(0.0, kurtosis - 1) / (4 * len(log))))
