"""Workloads with the statistics of public traces."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Any

from llmsched_env.slo import SLO
from llmsched_env.validation import check_choice, check_number
from llmsched_env.workloads.arrivals import MMPP, ArrivalProcess, Diurnal, Gamma, Poisson, Ticks
from llmsched_env.workloads.clients import Client, Lengths, ManyClients
from llmsched_env.workloads.delays import SecondsTable
from llmsched_env.workloads.dist import Quantiles, token_table
from llmsched_env.workloads.sessions import AgentSessions, GrowingContext, SessionLaw, SortedPrompts
from llmsched_env.workloads.sources import RandomRequests, Source, SystemPrompt
from llmsched_env.workloads.workload import Workload

Numbers = dict[str, Any]

_RATE = 1.0  # requests/s of presets whose trace has no times


def preset(
    name: str,
    rate: float | None = None,
    horizon: float = 600.0,
    slo: str | SLO | None = "default",
    diurnal: bool = False,
) -> Workload:
    """Return a random workload with the lengths, burstiness and targets of a public trace.

    Lengths follow the quantile tables of the trace and its rank correlation; the data file names the sources of all
    numbers. `workload.at_load(0.9, engine)` sets the rate relative to the capacity of an engine.

    - azure-chat, azure-code: Azure LLM inference trace 2023 (P. Patel et al., ISCA 2024; CC BY 4.0); arrivals are a
      Markov-modulated Poisson process fitted to the trace's dispersion of counts.
    - sharegpt-chat, arxiv-summarize: lengths of ShareGPT and of arXiv summaries; Poisson.
    - mooncake-longctx-chat, mooncake-tool-agent: Mooncake (R. Qin et al., FAST 2025); Poisson in ticks of 3 s. Requests
      of tool-agent have three classes, each with a common system prompt.
    - reasoning-r1: all deepseek-r1 clients of ServeGen (Y. Xiang et al., arXiv 2505.09999); gamma gaps.
    - multi-tenant: four of these clients, each with its own rate, burstiness and lengths, in two classes of targets.
    - coding-agent, swe-agent: calls of agent sessions with growing prompts, in an open loop; the rate counts calls.
    - bursty-api: stylised after published statistics of BurstGPT, not fitted.

    Args:
        name: one of the above.
        rate: requests/s; None for the trace's own, or 1 if it has no times.
        horizon: seconds after which nothing arrives.
        slo: targets by name ("default", "strict", ...), an SLO, or None for no targets.
        diurnal: let the rate follow the hours of the day, starting at midnight; only for reasoning-r1.

    Raises:
        ValueError: the preset or the name of the targets is unknown (the message lists those that exist), the rate or
            horizon is not allowed, or `diurnal` is set for a trace without hours.
    """
    numbers = shipped_presets()["presets"][check_choice("preset name", name, shipped_presets()["presets"])]
    targets: str | SLO | list[SLO] | None = slo
    if isinstance(slo, str):
        targets = _targets(numbers["slo"][check_choice(f"slo of preset {name}", slo, numbers["slo"])])
    shared = targets if isinstance(targets, SLO) else None
    if targets is not None and not isinstance(targets, SLO | list):
        raise ValueError(f"slo must be a name, an SLO or None, got {slo!r}")
    if diurnal and "hourly_multipliers" not in numbers.get("arrival", {}):
        raise ValueError(f"diurnal must be False for {name}: its numbers have no hours")
    check_number("horizon", horizon, above=0, unit="s")
    if rate is not None:
        check_number("rate", rate, above=0, unit="requests/s")
    if numbers["kind"] == "clients":
        source: Source = _clients(numbers, horizon, targets)
        source = source if rate is None else source.at_rate(rate)
    else:
        own = numbers["arrival"].get("native_rate_per_s", _RATE)
        build = _sessions if numbers["kind"] == "sessions" else _requests
        source = build(numbers, own if rate is None else rate, horizon, shared, diurnal)
    return Workload(source, name, shared)


def _requests(numbers: Numbers, rate: float, horizon: float, slo: SLO | None, diurnal: bool) -> RandomRequests:
    return RandomRequests(
        _arrivals(numbers["arrival"], diurnal),
        rate,
        _tokens(numbers, "prompt_tokens_quantiles"),
        _tokens(numbers, "output_tokens_quantiles"),
        horizon,
        slo,
        numbers.get("rank_correlation", 0.0),
        numbers.get("total_tokens_cap"),
        tuple(
            SystemPrompt(own["prompt_min"], own["prompt_max"], own["shared_prefix_tokens"])
            for own in numbers.get("classes", ())
        ),
    )


def _arrivals(arrival: Numbers, diurnal: bool) -> ArrivalProcess:
    if arrival["process"] == "mmpp":
        transition = arrival.get("transition_per_s_step")
        return MMPP(arrival["rates_relative"], None if transition else arrival["mean_dwell_s"], transition)
    if arrival["process"] == "batched_poisson":
        return Ticks(arrival["tick_s"])
    base = Gamma(arrival["interarrival_cv"]) if arrival["process"] == "gamma" else Poisson()
    return Diurnal(arrival["hourly_multipliers"], base) if diurnal else base


def _sessions(numbers: Numbers, rate: float, horizon: float, slo: SLO | None, diurnal: bool) -> AgentSessions:
    return AgentSessions(_session_law(numbers), rate, horizon, _slo(numbers["slo"]["default"]), slo)


def _session_law(numbers: Numbers) -> SessionLaw:
    calls, output = (_tokens(numbers, f"{name}_quantiles") for name in ("calls_per_session", "output_tokens"))
    if "prompt_tokens_quantiles" in numbers:
        prompt = _tokens(numbers, "prompt_tokens_quantiles")
        return SortedPrompts(calls, prompt, output, _seconds(numbers, "tool_time_s_quantiles"))
    return GrowingContext(
        calls,
        _tokens(numbers, "first_prompt_tokens_quantiles"),
        _tokens(numbers, "new_tokens_after_tool_quantiles"),
        _tokens(numbers, "new_tokens_after_human_quantiles"),
        output,
        _seconds(numbers, "tool_wait_s_quantiles"),
        _seconds(numbers, "human_wait_s_quantiles"),
        numbers["human_turn_probability"],
        numbers["context_reset_probability"],
        numbers["shared_system_and_tool_tokens_median"],
        numbers["context_window_tokens"],
    )


def _clients(numbers: Numbers, horizon: float, targets: SLO | list[SLO] | None) -> ManyClients:
    clients = [
        Client(
            Gamma(own["interarrival_cv"]),
            own["rate_per_s"],
            (Lengths(_tokens(own, "prompt_tokens_quantiles"), _tokens(own, "output_tokens_quantiles")),),
            klass=own["klass"],
            slo=targets[own["klass"]] if isinstance(targets, list) else targets,
        )
        for own in numbers["clients"]
    ]
    return ManyClients(tuple(clients), horizon)


def _tokens(numbers: Numbers, table: str) -> Quantiles:
    return token_table(_levels(numbers), numbers[table])


def _seconds(numbers: Numbers, table: str) -> SecondsTable:
    return SecondsTable.of(_levels(numbers), numbers[table])


def _levels(numbers: Numbers) -> list[float]:
    levels: list[float] = numbers.get("quantile_levels") or shipped_presets()["quantile_levels"]
    return levels


def _targets(numbers: Numbers | list[Numbers]) -> SLO | list[SLO]:
    """One SLO, or one per class."""
    return [_slo(own) for own in numbers] if isinstance(numbers, list) else _slo(numbers)


def _slo(numbers: Numbers) -> SLO:
    return SLO(ttft=numbers["ttft_s"], tpot=numbers["tpot_s"])


@cache
def shipped_presets() -> Numbers:
    """The numbers of all presets, as in the data file."""
    text = resources.files("llmsched_env").joinpath("data/workload_presets.json").read_text(encoding="utf-8")
    presets: Numbers = json.loads(text)
    return presets
