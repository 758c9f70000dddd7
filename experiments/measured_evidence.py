"""The measured numbers that we quote: a file of them, simulated again where the measurements are at hand.

The file has `sources` by name and a list of `entries`. An entry says what was measured, and holds under `found` what
was read and simulated last. There are three kinds:

- `run`: a serving run by request (`path` to its files); compared in all ways of `measured_simulation`.
- `means`: published mean latencies of a run whose requests are known (`path` to them); uncalibrated, and with the host
  overhead that the entry states.
- `batches`: a table of batch times (`path`), against the law of a profile for each GPU and degree.

The profile of a run is the name of a shipped one, or arguments of `make_profile`.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

import baselines
from baselines import routers
from experiments import measured_page
from experiments.measured_run import ServingRun, summary
from experiments.measured_simulation import compare
from llmsched_env.calibration import MeasuredRun
from llmsched_env.evaluation.run_cache import commit
from llmsched_env.files import read_object, write_json, write_text
from llmsched_env.machine.config import EngineConfig
from llmsched_env.machine.make_profile import make_profile
from llmsched_env.machine.profiles import gpu_profile
from llmsched_env.results.records import NetworkResult
from llmsched_env.simulator.pools import Pools
from llmsched_env.simulator.simulate import simulate_network
from llmsched_env.validation import check_choice
from llmsched_env.workloads.workload import Workload

Entry = dict[str, Any]


def update(file: Path, folders: Iterable[Path]) -> tuple[Path, list[str], list[Entry]]:
    """Simulate again what the folders hold, and write the file and its page.

    Args:
        file: the numbers.
        folders: where the paths of entries may begin.

    Returns:
        The page; a line for each entry that says what became of it; and as rows the metrics of all entries.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file or a measurement is malformed, or an entry cannot be simulated.
    """
    evidence, places, at = read_object(file), list(folders), commit()
    lines: list[str] = []
    for entry in evidence["entries"]:
        check_choice(f"{file}: kind", entry["kind"], _KINDS)
        place = next((folder / entry["path"] for folder in places if (folder / entry["path"]).exists()), None)
        if place is None:
            lines.append(f"{entry['title']}: as it was, {entry['path']} is in none of the folders of --data")
            continue
        try:
            entry["found"] = _rounded(_KINDS[entry["kind"]](entry, place)) | {"commit": at}
        except ImportError as error:
            lines.append(f"{entry['title']}: as it was, {error}")
        else:
            lines.append(f"{entry['title']}: {'no profile' if entry['profile'] is None else 'simulated'}")
    write_json(file, evidence, indent=1)
    page = file.with_suffix(".md")
    write_text(page, measured_page.page(evidence, file.name))
    return page, lines, [row for entry in evidence["entries"] for row in measured_page.rows_of(entry)]


def _of_run(entry: Entry, path: Path) -> Entry:
    run, profile = ServingRun.load(path), entry["profile"]
    if profile is None:
        return {"requests": len(run.requests.arrival), "seconds": {"measured": summary(run.requests)}, "notes": []}
    found = compare(run, make_profile(**profile).name if isinstance(profile, dict) else profile)
    columns = {name: {metric: row[name] for metric, row in found.numbers.items()} for name in _names(found.numbers)}
    return {
        "profile": found.profile.name,
        "requests": len(run.requests.arrival),
        "seconds": columns,
        "factors": {name: each.factor for name, each in found.simulations.items()},
        "host_overhead": {name: list(each.engine.host_overhead) for name, each in found.simulations.items()},
        "notes": [str(note) for note in found.notes],
    }


def _of_means(entry: Entry, path: Path) -> Entry:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    columns = ("arrival_time_ns", "input_toks", "output_toks")
    arrival, prompt, output = (np.array([row[name] for row in rows]) for name in columns)
    workload = Workload.from_arrays(arrival / 1e9, prompt, output)
    limits = {"token_budget": entry["max_num_batched_tokens"], "max_num_seqs": entry["max_num_seqs"]}
    pools = entry.get("pools")
    simulated = {}
    for name, overhead in {"uncalibrated": 0.0, "host overhead": entry["host_overhead"]}.items():
        engine = EngineConfig.for_gpu(entry["profile"], schedule_ahead=1, host_overhead=(overhead, 0.0), **limits)
        simulated[name] = _means(
            simulate_network(
                baselines.vllm_v1(**limits),
                workload,
                [engine] * entry["engines"],
                routers.get("round_robin"),
                pools=None if pools is None else Pools.for_gpu(profile=entry["profile"], **pools),
            )
        )
    return {"requests": len(rows), "means": {"measured": entry["measured"], **simulated}}


def _means(result: NetworkResult) -> dict[str, float]:
    rows, found = result.requests, MeasuredRun.from_result(result).summary()
    throughput = float(rows.output_tokens.sum() / rows.finish.max())
    return {"output_throughput": throughput, **{name: found[name] for name in ("mean_ttft", "mean_tpot")}}


def _of_batches(entry: Entry, path: Path) -> Entry:
    """Simulated over measured, less 1, percent: mean and mean of the absolute, by profile and kind of batch."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    errors: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        name = entry["profile"].format(**row)
        law, n, s = gpu_profile(name).batch_time, int(row["batch_size"]), int(row["prompt_size"])
        own = errors.setdefault(name, {"prompt": [], "token": [], "token_gap_ms": []})
        prompt, token = 1e3 * law.seconds(n * s, 0, n * s * (s + 1) / 2), 1e3 * law.seconds(n, n * s)
        own["prompt"].append(100 * (float(prompt) / float(row["prompt_time_ms"]) - 1))
        own["token"].append(100 * (float(token) / float(row["token_time_ms"]) - 1))
        own["token_gap_ms"].append(float(row["token_time_ms"]) - float(token))
    table = {
        name: {
            "rows": len(own["prompt"]),
            "prompt_pct": float(np.mean(own["prompt"])),
            "prompt_abs_pct": float(np.mean(np.abs(own["prompt"]))),
            "token_pct": float(np.mean(own["token"])),
            "token_abs_pct": float(np.mean(np.abs(own["token"]))),
            "token_gap_ms": float(np.median(own["token_gap_ms"])),
        }
        for name, own in errors.items()
    }
    return {"profiles": table}


_KINDS: dict[str, Callable[[Entry, Path], Entry]] = {"run": _of_run, "means": _of_means, "batches": _of_batches}


def _names(numbers: dict[str, dict[str, float]]) -> list[str]:
    return list(next(iter(numbers.values())))


def _rounded(value: Any) -> Any:
    """Numbers to six digits, so that the file reads well and does not depend on the last bits."""
    if isinstance(value, dict):
        return {name: _rounded(own) for name, own in value.items()}
    if isinstance(value, list):
        return [_rounded(own) for own in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value
