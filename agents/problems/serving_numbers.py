"""Numbers of a scheduler on the validation runs, for TensorBoard."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from llmsched_env.envs.batch_queue import ORDERS, parametric
from llmsched_env.evaluation.cases import Cases
from llmsched_env.machine.config import EngineConfig
from llmsched_env.results.records import Result
from llmsched_env.simulator.scheduler import Controller, Scheduler
from llmsched_env.simulator.world import View

# Under the names of `Result.summary`.
SUMMARY_NUMBERS = (
    "request_throughput",
    "output_throughput",
    "mean_ttft_ms",
    "p99_ttft_ms",
    "mean_tpot_ms",
    "mean_e2el_ms",
    "slo_attainment",
    "request_goodput",
    "mean_num_in_system",
    "mean_kv_usage",
    "preemption_rate",
    "recomputed_tokens",
    "prefix_hit_rate",
)


def run_numbers(result: Result) -> dict[str, float]:
    """The numbers of one run: summary, time-averaged queue, composition of batches, and the reward terms.

    Composition is the mean over batches: `batch_prefill_tokens`, `batch_decode_tokens` and `batch_num_seqs`. The reward
    terms are those of the environment: minus the integral of the number in system, and minus the requests that missed
    their SLO.
    """
    summary = result.summary()
    assert result.batches is not None
    rows, batches = result.requests, result.batches
    waited = np.nan_to_num(np.minimum(rows.first_scheduled, result.end), nan=result.end) - rows.arrival
    return {name: summary[name] for name in SUMMARY_NUMBERS} | {
        "mean_num_waiting": float(waited.sum() / result.end),
        "batch_prefill_tokens": float(batches.prefill_tokens.mean()),
        "batch_decode_tokens": float(batches.decode_tokens.mean()),
        "batch_num_seqs": float(batches.num_seqs.mean()),
        "reward_latency": -summary["mean_num_in_system"] * result.end,
        "reward_slo": (summary["slo_attainment"] - 1.0) * summary["num_requests"],
    }


def serving_numbers(scheduler: Scheduler, cases: Cases) -> dict[str, float]:
    """Means of `run_numbers` over all runs; for a policy also its mean decisions.

    Over knobs these are the token budget (`knob_token_budget`), the shares of decisions for each queue order
    (`knob_order_<order>`) and for holding prefill (`knob_hold_prefill`), and the watermark (`knob_watermark`); else the
    parameters that differ from the scheduler's defaults (`sets_<parameter>`).
    """
    log = None
    if scheduler.controller is not None and not scheduler.asks:
        log = _DecisionLog(scheduler.controller, scheduler.controller.interval)
        scheduler = replace(scheduler, controller=log)
    runs = cases.map([scheduler], run_numbers)[0]
    numbers = {name: float(np.mean([run[name] for run in runs])) for name in runs[0]}
    return numbers if log is None else numbers | _choices(scheduler, np.array(log.decisions))


def mean_numbers(parts: Sequence[tuple[Scheduler, Cases]]) -> dict[str, float]:
    """Means of `serving_numbers` over parts of equal size, where a rule is another scheduler at each load."""
    found = [serving_numbers(scheduler, cases) for scheduler, cases in parts]
    return {name: float(np.mean([numbers[name] for numbers in found])) for name in found[0]}


def _choices(scheduler: Scheduler, decisions: np.ndarray) -> dict[str, float]:
    if scheduler.compose is not parametric.compose:
        set_ones = zip(scheduler.params.items(), decisions.T, strict=True)
        return {f"sets_{name}": float(own.mean()) for (name, param), own in set_ones if (own != param.default).any()}
    chosen = dict(zip(parametric.params, decisions.T, strict=True))
    return {
        "knob_token_budget": float(chosen["token_budget"].mean()),
        **{f"knob_order_{order}": float((chosen["order"] == k).mean()) for k, order in enumerate(ORDERS)},
        "knob_hold_prefill": float(chosen["hold_prefill"].mean()),
        "knob_watermark": float(chosen["watermark"].mean()),
    }


@dataclass(slots=True)
class _DecisionLog:
    """A controller that records the decisions of another one, in one list for all its runs."""

    controller: Controller
    interval: float | None
    decisions: list[np.ndarray] = field(default_factory=list)

    def fresh(self, engine: EngineConfig) -> Controller:
        return _DecisionLog(self.controller.fresh(engine), self.interval, self.decisions)

    def decide(self, view: View) -> np.ndarray:
        decision = self.controller.decide(view)
        self.decisions.append(decision)
        return decision
