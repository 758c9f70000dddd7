"""Workloads shaped like public traces, from numbers alone."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Any

from llmsched_env.slo import SLO
from llmsched_env.validation import check_choice
from llmsched_env.workloads.dist import Quantiles
from llmsched_env.workloads.mmpp import MMPP
from llmsched_env.workloads.workload import Workload


def preset(name: str, rate: float | None = None, horizon: float = 600.0, slo: str | SLO | None = "default") -> Workload:
    """Return a random workload with the lengths, burstiness and targets of a public trace.

    Lengths follow the quantile table of the trace, with its rank correlation; arrivals a Markov-modulated Poisson
    process fitted to the trace's dispersion of counts.

    Args:
        name: "azure-chat" or "azure-code", the Azure LLM inference trace 2023 (P. Patel et al., ISCA 2024; CC BY 4.0).
        rate: requests/s; None for the trace's own.
        horizon: seconds after which nothing arrives.
        slo: targets by name ("default", "strict", ...), an SLO, or None for no targets.

    Raises:
        ValueError: unknown preset or name of targets (the message lists what exists), bad rate or horizon.
    """
    table = _presets()
    numbers = table["presets"][check_choice("preset name", name, table["presets"])]
    if isinstance(slo, str):
        targets = numbers["slo"][check_choice(f"slo of preset {name}", slo, numbers["slo"])]
        slo = SLO(ttft=targets["ttft_s"], tpot=targets["tpot_s"])
    arrival = numbers["arrival"]
    transition = arrival.get("transition_per_s_step")
    return Workload.generated(
        MMPP(arrival["rates_relative"], None if transition else arrival["mean_dwell_s"], transition),
        arrival["native_rate_per_s"] if rate is None else rate,
        Quantiles(table["quantile_levels"], numbers["prompt_tokens_quantiles"]),
        Quantiles(table["quantile_levels"], numbers["output_tokens_quantiles"]),
        horizon,
        slo=slo,
        rank_correlation=numbers["rank_correlation"],
        name=name,
    )


@cache
def _presets() -> dict[str, Any]:
    text = resources.files("llmsched_env").joinpath("data/workload_presets.json").read_text(encoding="utf-8")
    return json.loads(text)
