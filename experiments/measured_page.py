"""The page of the measured numbers that we quote, made of their file alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from experiments.measured_report import table
from llmsched_env.evaluation.rendering import markdown_table

Entry = dict[str, Any]

_KEY = ("makespan", "mean_ttft", "p99_ttft", "mean_tpot", "mean_e2el")
_INTRO = """# Measured runs

Real engines against their simulation, the unflattering numbers included. `{file}` has them, and this page is made of
it:

```console
.venv/bin/llmsched measured --evidence docs/{file} --data FOLDER,FOLDER
```

simulates again what the folders hold (clones of the sources below), and leaves the other numbers as they are.
**Uncalibrated** has the batch times of the profile. **One factor** multiplies all of them by a factor fitted on the
first third of the requests. **Calibrated** is what `llmsched calibrate` finds from the whole run, so it is no forecast.
"""


def page(evidence: Entry, file: str) -> str:
    """The page as Markdown."""
    entries = evidence["entries"]
    parts = [_INTRO.format(file=file), *_overview([each for each in entries if each["kind"] == "run"])]
    for entry in entries:
        if entry["kind"] == "run":
            parts += _run(entry, evidence["sources"])
    means = [each for each in entries if each["kind"] == "means"]
    if means:
        parts += _means(means, evidence["sources"])
    for entry in entries:
        if entry["kind"] == "batches":
            parts += _batches(entry, evidence["sources"])
    parts += ["## Sources", ""]
    parts += [
        f"- {each['title']}, {each['licence']}: <{each['url']}>, {each['version']}"
        for each in evidence["sources"].values()
    ]
    return "\n".join(parts) + "\n"


def rows_of(entry: Entry) -> list[Entry]:
    """One row for each metric of an entry, with what was measured and simulated."""
    found = entry.get("found") or {}
    columns = found.get("seconds") or found.get("means")
    if columns is None:
        return [{"entry": entry["title"], "metric": name, **own} for name, own in found.get("profiles", {}).items()]
    return [
        {"entry": entry["title"], "metric": metric, **{name: own[metric] for name, own in columns.items()}}
        for metric in columns["measured"]
    ]


def error_pct(entry: Entry, name: str, metric: str) -> float:
    """Simulated over measured, less 1, percent."""
    columns: dict[str, dict[str, float]] = entry["found"].get("seconds") or entry["found"]["means"]
    return 100 * (columns[name][metric] / columns["measured"][metric] - 1)


def _overview(runs: list[Entry]) -> Iterator[str]:
    yield "## Serving runs\n"
    rows = []
    for entry in runs:
        for name in list(entry["found"]["seconds"])[1:] or ["no profile"]:
            cells = [f"{error_pct(entry, name, metric):+.1f}" if name != "no profile" else "" for metric in _KEY]
            rows.append([entry["title"], name, *cells])
        rows += [
            [entry["title"], f"({other})", *(f"{own[metric]:+.1f}" if metric in own else "" for metric in _KEY)]
            for other, own in entry.get("others", {}).items()
        ]
    header = ["", "simulation", "makespan", "TTFT mean", "TTFT p99", "TPOT mean", "E2E mean"]
    yield from markdown_table(header, rows, text_columns=(0, 1))
    yield "\nSimulated over measured, less 1, in %. In brackets what the source reports of its own simulator.\n"


def _run(entry: Entry, sources: Entry) -> Iterator[str]:
    found, source = entry["found"], sources[entry["source"]]
    yield f"## {entry['title']}\n"
    what = f"{found['requests']} requests, {entry['machine']}, {entry['software']}"
    yield f"{what}. Source: {source['title']}, `{entry['path']}`."
    if entry["profile"] is None:
        yield f"{entry['why_no_profile']}\n"
    else:
        fitted = [
            f"{name}: times {factor:.3f}{_overhead(found['host_overhead'][name])}"
            for name, factor in found["factors"].items()
            if name != "uncalibrated"
        ]
        about = f"{entry['about']} " if "about" in entry else ""
        yield f"Profile `{found['profile']}`. {about}Simulated at commit {found['commit']}, {'; '.join(fitted)}.\n"
    columns = found["seconds"]
    numbers = {metric: {name: own[metric] for name, own in columns.items()} for metric in columns["measured"]}
    header, rows = table(numbers)
    yield from markdown_table(header, rows)
    yield ""
    if found["notes"]:
        yield from (f"- {note}" for note in found["notes"])
        yield ""


def _overhead(seconds: list[float]) -> str:
    if not any(seconds):
        return ""
    return f" and {1e3 * seconds[0]:.2f} ms a step and {1e6 * seconds[1]:.0f} us a request of host time"


def _means(entries: list[Entry], sources: Entry) -> Iterator[str]:
    first = entries[0]
    source = sources[first["source"]]
    yield "## Mean latencies\n"
    yield (
        f"{first['machine']}; {first['found']['requests']} requests, {first['software']}. Source: {source['title']}, "
        f"its figure 8, where only means are given; the requests are `{first['path']}`. Profile `{first['profile']}`. "
        f"The host overhead of {1e3 * first['host_overhead']:g} ms a step is chosen on the rows without pools. "
        f"Simulated at commit {first['found']['commit']}.\n"
    )
    rows = []
    for entry in entries:
        for name in ("measured", "uncalibrated", "host overhead"):
            own = entry["found"]["means"][name]
            metrics = {"output_throughput": 1.0, "mean_ttft": 1e3, "mean_tpot": 1e3}
            cells = [f"{scale * own[metric]:.1f}" for metric, scale in metrics.items()]
            if name != "measured":
                cells = [f"{cell} ({error_pct(entry, name, m):+.1f} %)" for cell, m in zip(cells, metrics, strict=True)]
            rows.append([entry["title"], name, *cells])
    yield from markdown_table(["", "", "tokens/s", "TTFT (ms)", "TPOT (ms)"], rows, text_columns=(0, 1))
    yield ""
    yield from (f"- {entry['title']}: {entry['about']}" for entry in entries if "about" in entry)
    yield f"- assumed: {first['assumed']}\n"


def _batches(entry: Entry, sources: Entry) -> Iterator[str]:
    yield f"## {entry['title']}\n"
    where = f"Source: {sources[entry['source']]['title']}. Simulated at commit {entry['found']['commit']}."
    yield f"{entry['about']} {where}\n"
    rows = [
        [
            f"`{name}`",
            str(own["rows"]),
            f"{own['prompt_pct']:+.1f} % ({own['prompt_abs_pct']:.1f} %)",
            f"{own['token_pct']:+.1f} % ({own['token_abs_pct']:.1f} %)",
            f"{own['token_gap_ms']:.1f}",
        ]
        for name, own in entry["found"]["profiles"].items()
    ]
    header = [
        "profile",
        "rows",
        "prefill batches: error (absolute)",
        "decodes: error (absolute)",
        "decodes: missing ms",
    ]
    yield from markdown_table(header, rows)
    yield ""
