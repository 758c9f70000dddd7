"""Calibration of a known profile to an engine: a factor on its batch times, host time, and noise."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from llmsched_env.calibration.measured_run import MeasuredRun
from llmsched_env.calibration.observed_steps import ObservedSteps, observed_steps
from llmsched_env.calibration.simulated_factor import simulated_factor, simulated_summary
from llmsched_env.calibration.step_fit import FEWEST_STEPS, StepFit, fit_steps
from llmsched_env.machine.batch_time import BatchTime
from llmsched_env.machine.batches import Batches
from llmsched_env.machine.config import EngineConfig
from llmsched_env.machine.profile_files import MEMORY, TOKENS_ALONE, host_in_ms, law_in_ms, write_profile
from llmsched_env.machine.profiles import LAWS, GPUProfile
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.validation import check_choice

_FITTED = {"name", "batch_time", "host_overhead", "step_noise", "believed", "believed_host_overhead", *TOKENS_ALONE}
BELIEFS = ("measured", "profile")
_MERGED = 0.1  # share of requests with fewer gaps than tokens from which on steps cannot be told
_HALF = 0.5  # share of the steps of a run below which a warning says how many were told
_FAR = 10.0  # percent by which a simulated mean may be off without a warning


@dataclass(frozen=True, slots=True, eq=False)
class SpeedCalibration:
    """An engine relative to a profile.

    Attributes:
        base: the profile.
        factor: on all of its batch times.
        host_overhead: s a step, s a request in it.
        step_noise: standard deviation of the logarithm of a step's time.
        engine: the machine with these numbers.
        steps: the fit to the times of steps; None where the factor alone was found, by simulating the run.
        measured: of a serving run its mean latencies and duration in s, see `MeasuredRun.summary`; of batches their
            total time and the mean of those with and without prefill.
        before: the same, simulated or predicted with the unchanged profile.
        after: the same with the fitted numbers.
        doubts: reasons to doubt these, one sentence each.
    """

    base: GPUProfile
    factor: float
    host_overhead: tuple[float, float]
    step_noise: float
    engine: EngineConfig
    steps: StepFit | None
    measured: dict[str, float]
    before: dict[str, float]
    after: dict[str, float]
    doubts: tuple[str, ...]

    @property
    def errors_pct(self) -> dict[str, float]:
        """Simulated over measured, minus 1, percent; by metric."""
        return {name: 100 * (self.after[name] / value - 1) for name, value in self.measured.items() if value}

    def save(self, path: str | Path) -> Path:
        """Write the calibrated profile as JSON; `EngineConfig.for_gpu` and `gpu_profile` accept its path.

        Host time, noise, and the law that schedulers believe, if it is the unchanged one, are in it.
        """
        form = _form(self.base.batch_time)
        own = {name: getattr(self.base, name) for name in TOKENS_ALONE} | {form: self.base.batch_time}
        laws = {name: law_in_ms(law.scaled(self.factor)) for name, law in own.items() if law is not None}
        kept = {field.name: getattr(self.base, field.name) for field in fields(self.base) if field.name not in _FITTED}
        own_blocks = self.base.kv_blocks(block_size=self.engine.block_size)
        if self.engine.kv_blocks is not None and self.engine.kv_blocks != own_blocks:  # the engine's own, as it said
            kept |= dict.fromkeys(MEMORY) | {"kv_tokens": self.engine.kv_blocks * self.engine.block_size}
        if self.engine.max_model_len is not None:
            kept["max_model_len"] = self.engine.max_model_len
        source = f"{self.base.name} ({self.base.source}), all times multiplied by {self.factor:.4g} after measurements"
        numbers = {**kept, "form": form, "source": source, **laws}
        numbers |= {"host_overhead_ms": host_in_ms(self.host_overhead), "step_noise": self.step_noise}
        if (law := self.engine.believed_batch_time) is not None:
            host = self.engine.believed_host_overhead or (0.0, 0.0)
            numbers["believed"] = {"form": _form(law), "host_overhead_ms": host_in_ms(host), **law_in_ms(law)}
        if self.steps is not None:
            error = 100 * np.abs(self.steps.predicted / self.steps.steps.seconds - 1)
            numbers |= {"mape_pct": float(error.mean()), "p95_ape_pct": float(np.quantile(error, 0.95))}
        write_profile(Path(path), numbers)
        return Path(path)

    def report(self) -> str:
        """The fitted numbers, and measured and predicted times, as text."""
        lines = [f"{self.base.name}: batch times multiplied by {self.factor:.4f}"]
        if self.steps is not None:
            lines.append(f"fitted to the times of {len(self.steps.steps)} steps, with 95 % intervals:")
            lines += _terms(self.steps)
        lines.append(f"{'':<18}  measured    before     after")
        for name, value in self.measured.items():
            error = f"  ({self.errors_pct[name]:+.1f} %)" if name in self.errors_pct else ""
            lines.append(f"{name:<18}{value:10.4g}{self.before[name]:10.4g}{self.after[name]:10.4g} s{error}")
        return "\n".join(lines)


def calibrate_speed(
    measurements: MeasuredRun | Batches,
    base: GPUProfile,
    scheduler: Scheduler | None = None,
    settings: dict[str, Any] | None = None,
    belief: str = "measured",
) -> SpeedCalibration:
    """Find the factor on a profile's batch times, the host time and the noise of an engine.

    Batches are fitted by `fit_steps`, and so are the steps of a serving run that the gaps between its tokens show, see
    `observed_steps`. Without gaps, or with too few such steps, the factor alone is found: the one at which the
    simulated run has the mean TTFT, TPOT, E2E latency and duration of the measured one.

    Args:
        measurements: batches with the time of the whole step, host included; or the requests of a serving run.
        base: the profile to start from.
        scheduler: what composed the batches of a serving run; needed for one.
        settings: arguments of `EngineConfig`, such as its limits; by default the KV blocks of the profile.
        belief: what schedulers predict with on the resulting engine: "measured", its own law and host time, or
            "profile", those of the unchanged profile.

    Warns:
        UserWarning: each reason to doubt the numbers, see `SpeedCalibration.doubts`.

    Raises:
        ValueError: bad settings, too few batches, or a run that the engine does not finish.
    """
    check_choice("belief", belief, BELIEFS)
    if not isinstance(measurements, Batches) and scheduler is None:
        raise ValueError("scheduler must be what composed the batches of the run, got None")
    settings = {"kv_blocks": base.kv_blocks(block_size=(settings or {}).get("block_size", 16)), **(settings or {})}
    settings = {"host_overhead": base.host_overhead, "step_noise": base.step_noise, **settings}
    believed = (base.batch_time, base.host_overhead) if belief == "profile" else (None, None)
    engine = EngineConfig(batch_time=base.batch_time, name=base.name, **settings)
    engine = replace(engine, believed_batch_time=believed[0], believed_host_overhead=believed[1])
    doubts: list[str] = []
    if isinstance(measurements, Batches):
        steps: StepFit | None = fit_steps(measurements, base.batch_time)
    else:
        assert scheduler is not None
        steps = _steps_of(measurements, engine, scheduler, doubts)
    if steps is not None:
        factor, host, noise = steps.factor, steps.host_overhead, steps.step_noise
        doubts += steps.doubts()
    else:
        assert isinstance(measurements, MeasuredRun) and scheduler is not None
        factor = simulated_factor(measurements, engine, scheduler)
        host, noise = engine.host_overhead, engine.step_noise
    law = base.batch_time.scaled(factor)
    found = replace(engine, batch_time=law, host_overhead=host, step_noise=noise)
    if isinstance(measurements, Batches):
        measured = _means(measurements, measurements.seconds)
        before, after = (
            _means(measurements, _seconds(measurements, own.batch_time, own.host_overhead)) for own in (engine, found)
        )
    else:
        assert scheduler is not None
        measured = measurements.summary()
        before, after = (simulated_summary(measurements, own, scheduler) for own in (engine, found))
    result = SpeedCalibration(base, factor, host, noise, found, steps, measured, before, after, ())
    doubts += [
        f"{name} is {abs(error):.1f} % {'above' if error > 0 else 'below'} the measured one with the fitted numbers"
        for name, error in result.errors_pct.items()
        if abs(error) > _FAR
    ]
    for doubt in doubts:
        warnings.warn(doubt, UserWarning, stacklevel=2)
    return replace(result, doubts=tuple(doubts))


def _steps_of(run: MeasuredRun, engine: EngineConfig, scheduler: Scheduler, doubts: list[str]) -> StepFit | None:
    """The fit to the steps of a run; None, and why, if they cannot be told."""
    alone = "so only the factor is found; host time stays in it, and noise is not told"
    if run.gaps is None:
        doubts.append(f"the run does not hold the gaps between tokens (vllm bench serve --save-detailed does), {alone}")
        return None
    merged = np.array([len(gaps) for gaps in run.gaps]) != run.output_tokens - 1
    if np.mean(merged) > _MERGED:
        doubts.append(f"{merged.sum()} of {len(merged)} requests have more or fewer gaps than tokens, {alone}")
        return None
    budget = engine.token_budget
    if "token_budget" in scheduler.params:
        own = scheduler.values.get("token_budget", scheduler.params["token_budget"].default)
        budget = min(budget, int(own))
    seen: ObservedSteps = observed_steps(run, budget, engine.schedule_ahead)
    told = f"{len(seen.batches)} of {seen.seen} steps can be told from the times of tokens"
    if len(seen.batches) < FEWEST_STEPS:
        doubts.append(f"{told}, {alone}")
        return None
    if len(seen.batches) < _HALF * seen.seen:
        doubts.append(f"only {told}: the others hold recomputed or cached prompts, or clients saw their tokens late")
    return fit_steps(seen.batches, engine.batch_time, outliers=False)


def _terms(steps: StepFit) -> list[str]:
    values = (steps.factor, *(1e3 * part for part in steps.host_overhead), steps.step_noise)
    names = ("factor", "host_batch", "host_request", "step_noise")
    words = ("factor", "host ms a step", "host ms a request", "noise of steps")
    lines = []
    for name, word, value in zip(names, words, values, strict=True):
        scale = 1e3 if name.startswith("host") else 1.0
        low, high = (scale * end for end in steps.intervals.get(name, (np.nan, np.nan)))
        around = f"  ({low:.4g} to {high:.4g})" if name in steps.intervals else "  (requests of a batch unknown)"
        note = "  not told apart from 0" if name in steps.left_out and name in steps.intervals else ""
        lines.append(f"{word:<18}{value:10.4g}{around}{note}")
    lines.append(f"{'measured/predicted':<18}{steps.total_ratio:10.4f}  of the time of all steps")
    before, after = steps.mape_pct
    return [*lines, f"{'mean error':<18}{before:10.2f} % of a step before, {after:.2f} % after"]


def _seconds(steps: Batches, law: BatchTime, host: tuple[float, float]) -> np.ndarray:
    requests = steps.composition[-1]
    seconds: np.ndarray = law.seconds(*steps.composition) + host[0] + host[1] * requests
    return seconds


def _means(steps: Batches, seconds: np.ndarray) -> dict[str, float]:
    prefill = steps.hold_prefill
    means = {"total": float(seconds.sum())}
    means |= {"mean_decode_step": float(seconds[~prefill].mean())} if not prefill.all() else {}
    return means | ({"mean_prefill_step": float(seconds[prefill].mean())} if prefill.any() else {})


def _form(law: BatchTime) -> str:
    return next(name for name, kind in LAWS.items() if isinstance(law, kind))
