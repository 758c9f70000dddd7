"""A measured serving run of vLLM: its requests, its settings and its engine over time, from the files people have."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from llmsched_env.calibration import MeasuredRun, Note, VllmSettings, read_run

_REQUESTS, _SETTINGS, _SECONDS = "requests.jsonl", "meta.json", "timeseries.csv"


@dataclass(frozen=True, slots=True)
class ServingRun:
    """A measured run and the machine it was measured on.

    Attributes:
        name: of the file or folder.
        requests: in order of arrival.
        settings: of the engine.
        seconds: one value a second of `t`, `running`, `waiting`, `kv_cache_pct`; None without such a file.
    """

    name: str
    requests: MeasuredRun
    settings: VllmSettings
    seconds: dict[str, np.ndarray] | None

    @classmethod
    def load(cls, path: str | Path, settings: str | Path | None = None) -> ServingRun:
        """Read a run.

        Args:
            path: NAME.requests.jsonl with NAME.meta.json and perhaps NAME.timeseries.csv beside it; a folder with
                requests.jsonl, meta.json and perhaps timeseries.csv; or a result of `vllm bench serve --save-detailed`.
            settings: the settings of the engine; None: those beside the requests.

        Raises:
            FileNotFoundError: the run is missing.
            ValueError: the settings are missing, or naming the file, line and field that is missing or not allowed.
        """
        path = Path(path)
        requests = path / _REQUESTS if path.is_dir() else path
        of_run = requests.name.endswith(_REQUESTS)
        stem = requests.name.removesuffix(_REQUESTS) if of_run else f"{requests.stem}."
        meta = requests.with_name(stem + _SETTINGS) if settings is None else Path(settings)
        if requests.exists() and settings is None and not meta.exists():
            raise ValueError(f"--settings must be given: {requests} has no {meta.name} beside it")
        name = stem.rstrip(".") or _name_of(requests.resolve().parent)
        over_time = requests.with_name(stem + _SECONDS)
        return cls(
            name, read_run(requests), VllmSettings.read(meta), _seconds(over_time) if over_time.exists() else None
        )

    @property
    def notes(self) -> tuple[Note, ...]:
        """What is assumed and left out, whatever the profile."""
        counts = self.settings.requests
        mine = len(self.requests.arrival)
        if counts is not None and counts != mine:
            return (*self.settings.notes, Note("left out", f"{counts - mine} of num_requests={counts} have no times"))
        return self.settings.notes

    def repeats(self, other: ServingRun) -> bool:
        """Whether both are runs of the same requests with the same settings."""
        mine, theirs = self.settings, other.settings
        return (
            np.array_equal(np.sort(self.requests.prompt_tokens), np.sort(other.requests.prompt_tokens))
            and np.array_equal(np.sort(self.requests.output_tokens), np.sort(other.requests.output_tokens))
            and (mine.model, mine.device, mine.tensor_parallel, mine.replicas, mine.engine, mine.scheduler)
            == (theirs.model, theirs.device, theirs.tensor_parallel, theirs.replicas, theirs.engine, theirs.scheduler)
        )


def latencies(run: MeasuredRun) -> dict[str, np.ndarray]:
    """Seconds, f8[n] each: TTFT from the queue on, TPOT (nan for one token), E2E latency."""
    tpot = np.where(run.output_tokens > 1, (run.e2el - run.ttft) / np.maximum(1, run.output_tokens - 1), np.nan)
    return {"ttft": run.ttft, "tpot": tpot, "e2el": run.e2el}


def summary(run: MeasuredRun) -> dict[str, float]:
    """The numbers to compare, in s; none of TPOT if all requests have one output token."""
    numbers = {"makespan": float(np.max(run.arrival + run.e2el))}
    for name, values in latencies(run).items():
        if np.isnan(values).all():
            continue
        numbers[f"mean_{name}"] = float(np.nanmean(values))
        numbers[f"median_{name}"] = float(np.nanmedian(values))
        numbers[f"p99_{name}"] = float(np.nanpercentile(values, 99))
    return numbers


def _name_of(folder: Path) -> str:
    return folder.parent.name if folder.name == "vllm" else folder.name


def _seconds(path: Path) -> dict[str, np.ndarray]:
    names = ("t", "running", "waiting", "kv_cache_pct")
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for name in names:
        if rows and rows[0].get(name) is None:
            raise ValueError(f"{path} must have the columns {', '.join(names)}, {name} is missing")
    try:
        return {name: np.array([float(row[name]) for row in rows]) for name in names}
    except (TypeError, ValueError) as error:  # a short row, or text
        raise ValueError(f"{path} must hold numbers in the columns {', '.join(names)}: {error}") from None
