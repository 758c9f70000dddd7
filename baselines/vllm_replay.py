"""Recordings of vLLM's own scheduler on a virtual clock, and the same runs simulated with ours.

A recording is a pair of files. NAME.input.json holds `config` (vLLM's settings under their own names), `batch_time`
(c_us + a_us * ceil(tokens / b0) microseconds) and `requests`. NAME.trace.jsonl or NAME.trace.jsonl.gz holds a line for
each step. Times are whole microseconds and are simulated as such, so that floats are exact.
"""

import gzip
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from baselines.systems.vllm_v0 import vllm_v0
from baselines.systems.vllm_v1 import vllm_v1
from llmsched_env.machine.batch_time import Staircase
from llmsched_env.machine.config import EngineConfig
from llmsched_env.simulator.loop import BOUNDARY
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.simulator.simulator import Simulator
from llmsched_env.tables.request_table import RequestTable


def scheduler_of(config: dict[str, Any]) -> Scheduler:
    """Our scheduler with the settings of a recording."""
    if config["engine"] == "v0":
        if config.get("enable_chunked_prefill"):
            raise ValueError("enable_chunked_prefill must be false for engine v0: only its default mode is implemented")
        return vllm_v0(token_budget=config["max_num_batched_tokens"], max_num_seqs=config["max_num_seqs"])
    shared_cap = config["max_num_batched_tokens"] if config.get("long_prefill_token_threshold_adaptive") else 0
    return vllm_v1(
        token_budget=config.get("max_num_scheduled_tokens") or config["max_num_batched_tokens"],
        max_num_seqs=config["max_num_seqs"],
        max_num_active_seqs=config.get("max_num_active_seqs") or math.inf,
        enable_chunked_prefill=int(config.get("enable_chunked_prefill", True)),
        long_prefill_token_threshold=config.get("long_prefill_token_threshold", 0),
        long_prefill_token_threshold_adaptive=shared_cap,
        scheduler_reserve_full_isl=int(config.get("scheduler_reserve_full_isl", True)),
        watermark=config.get("watermark", 0.0),
        priority=int(config.get("policy", "fcfs") == "priority"),
    )


def engine_of(recording: dict[str, Any]) -> EngineConfig:
    """The engine of a recording; its second is a microsecond. One of its blocks is vLLM's null block."""
    config, law = recording["config"], recording["batch_time"]
    return EngineConfig(
        Staircase(float(law["c_us"]), float(law["a_us"]), law["b0"]),
        token_budget=config["max_num_batched_tokens"],
        kv_blocks=config["num_gpu_blocks"] - 1,
        block_size=config["block_size"],
        schedule_ahead=int(config.get("async_scheduling", False)),
        prefix_caching=config.get("enable_prefix_caching", False),
    )


def requests_of(recording: dict[str, Any]) -> RequestTable:
    """The requests of a recording; outputs end at `max_model_len`, as in vLLM."""
    requests = recording["requests"]

    def column(name: str, default: int | None = None) -> list[Any]:
        return [request.get(name, default) for request in requests]

    prompts = np.array(column("prompt_len"))
    return RequestTable.from_columns(
        column("arrival_us"),
        prompts,
        np.minimum(column("output_len"), recording["config"]["max_model_len"] - prompts),
        priority=column("priority", 0),
        parent=column("parent", -1),
        shared_tokens=column("shared_tokens", 0),
    )


def replay(recording: dict[str, Any], interpreted: bool = False) -> Iterator[dict[str, Any]]:
    """Simulate a recording's input and yield its steps, one dictionary each, under the keys of the recording.

    `preempted` is the number of preempted requests. Steps without a token are left out; what they preempt counts with
    the next step.
    """
    ids = np.array([r["id"] for r in recording["requests"]])
    simulator = Simulator(
        engine_of(recording), scheduler_of(recording["config"]), record="entries", interpreted=interpreted
    )
    table = requests_of(recording)
    simulator.load(0, table)
    simulator.decide_every_batch(0)
    free_end: list[int] = []
    while True:
        reason = simulator.advance(0, math.inf)
        world = simulator.world
        free_end += [int(world.kv[0].free)] * (int(world.recording.num_batches) - len(free_end))
        if reason != BOUNDARY:
            break
        simulator.set_params(0, simulator.world.params[0])
    result = simulator.result(0, table, "recording", reason=reason)
    yield from _steps(result, ids, free_end)


def _steps(result: Any, ids: np.ndarray, free_end: list[int]) -> Iterator[dict[str, Any]]:
    rows, entries = result.requests, result.batch_entries
    bounds = np.searchsorted(entries.batch, np.arange(len(result.batches) + 1))
    for k, batch in enumerate(result.batches):
        own = entries[bounds[k] : bounds[k + 1]]
        end = batch.start + batch.duration
        yield {
            "t_us": int(batch.start),
            "dur_us": int(batch.duration),
            "sched": {str(ids[e.request]): int(e.tokens) for e in own},
            "preempted": int(batch.preemptions),
            "first": [str(ids[i]) for i in own.request if rows.first_token[i] == end],
            "finished": [str(ids[i]) for i in own.request if rows.finish[i] == end],
            "free": int(result.engine.kv_blocks - batch.kv_blocks_used),
            "free_end": free_end[k],
            "running": int(batch.num_running),
            "waiting": int(batch.num_waiting),
            "sched_us": int(batch.decided),
        }


def recorded_steps(trace: Path) -> Iterator[dict[str, Any]]:
    """The steps of a recording under the keys of `replay`; preemptions of steps without a token count with the next."""
    carried = 0
    text = gzip.decompress(trace.read_bytes()) if trace.suffix == ".gz" else trace.read_bytes()
    for line in text.splitlines():
        step = json.loads(line)
        if step["kind"] != "step":
            continue
        carried += len(step["preempted"])
        if not step["sched"]:
            continue
        step["preempted"], carried = carried, 0
        step.setdefault("sched_us", step["t_us"])
        yield {key: value for key, value in step.items() if key not in ("kind", "step", "cached")}


def first_difference(input_path: Path, trace_path: Path, interpreted: bool = False) -> str | None:
    """A description of the first difference between a recording and our run of its input; None if there is none."""
    recording = json.loads(input_path.read_text(encoding="utf-8"))
    ours, theirs = replay(recording, interpreted), recorded_steps(trace_path)
    for k in range(10**9):
        a, b = next(ours, None), next(theirs, None)
        if a is None and b is None:
            return None
        if a is None or b is None:
            return f"step {k}: {'ours' if a is None else 'the recorded run'} has ended"
        for key in b:
            if a[key] != b[key] or (key == "sched" and list(a[key]) != list(b[key])):
                return f"step {k}, {key}: ours {a[key]}, recorded {b[key]}; the recorded step: {b}"
    return None
