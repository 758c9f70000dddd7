"""Recordings of vLLM's own scheduler on a virtual clock, and the same runs simulated with ours.

A recording is a pair of files. NAME.input.json holds `config` (vLLM's settings under their own names), `batch_time`
(c_us + a_us * ceil(tokens / b0) microseconds) and `requests`. NAME.trace.jsonl or NAME.trace.jsonl.gz holds a line for
each step. Times are whole microseconds and are simulated as such, so that floats are exact.
"""

import gzip
import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from baselines.systems.vllm_v0 import vllm_v0
from baselines.systems.vllm_v1 import vllm_v1
from llmsched_env.files import parse_json, read_object
from llmsched_env.machine.batch_time import Staircase
from llmsched_env.machine.config import EngineConfig
from llmsched_env.simulator.loop import BOUNDARY
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.simulator.simulator import Simulator
from llmsched_env.tables.request_table import RequestTable
from llmsched_env.validation import check_choice, check_integer, check_number, shown

_MOST = 10**12  # of any whole number in a recording
_LIMITS = {"max_num_seqs": 1, "max_num_batched_tokens": 1, "num_gpu_blocks": 2, "block_size": 1, "max_model_len": 2}
_FLAGS = (
    "enable_chunked_prefill",
    "long_prefill_token_threshold_adaptive",
    "scheduler_reserve_full_isl",
    "async_scheduling",
    "enable_prefix_caching",
)
_OPTIONAL = ("max_num_scheduled_tokens", "max_num_active_seqs", "long_prefill_token_threshold")
_OF_REQUESTS = {"arrival_us": 0, "prompt_len": 1, "output_len": 1}
_OF_SOME = {"priority": -_MOST, "parent": -1, "shared_tokens": 0}
_STEP = {"t_us": int, "dur_us": int, "sched": dict, "preempted": list, "first": list, "finished": list, "free": int}
_STEP |= {"free_end": int, "running": int, "waiting": int, "sched_us": int}
_PASSED_OVER = ("kind", "step", "cached")


def read_recording(path: Path) -> dict[str, Any]:
    """Read the input of a recording.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is malformed, or asks for what our schedulers do not have; naming file, key and value.
    """
    recording = read_object(path)
    config, law = (_object(recording, key, path) for key in ("config", "batch_time"))
    check_choice(f"{path}: config.engine", config.get("engine", ""), ("v0", "v1"))
    for key, least in _LIMITS.items():
        check_integer(f"{path}: config.{key}", config.get(key), at_least=least, at_most=_MOST)  # type: ignore[arg-type]
    for key in _OPTIONAL:
        check_integer(f"{path}: config.{key}", config.get(key) or 0, at_least=0, at_most=_MOST)
    for key in _FLAGS:
        if config.get(key) not in (None, True, False):
            raise ValueError(f"{path}: config.{key} must be true or false, got {shown(config[key])}")
    check_number(f"{path}: config.watermark", config.get("watermark", 0.0), at_least=0)
    check_choice(f"{path}: config.policy", config.get("policy", "fcfs"), ("fcfs", "priority"))
    for key in ("c_us", "a_us"):
        check_number(f"{path}: batch_time.{key}", law.get(key), at_least=0, at_most=_MOST)  # type: ignore[arg-type]
    check_integer(f"{path}: batch_time.b0", law.get("b0"), at_least=1, at_most=10**9)  # type: ignore[arg-type]
    requests = recording.get("requests")
    if not isinstance(requests, list) or not requests or not all(isinstance(request, dict) for request in requests):
        raise ValueError(f"{path}: requests must be a list of objects, got {shown(requests)}")
    for i, request in enumerate(requests):
        if not isinstance(request.get("id"), str):
            raise ValueError(f"{path}: requests[{i}].id must be a text, got {shown(request.get('id'))}")
        for key, least in (_OF_REQUESTS | {key: low for key, low in _OF_SOME.items() if key in request}).items():
            check_integer(f"{path}: requests[{i}].{key}", request.get(key), at_least=least, at_most=_MOST)
    try:
        scheduler_of(config), engine_of(recording), requests_of(recording)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return recording


def _object(values: dict[str, Any], key: str, path: Path) -> dict[str, Any]:
    value = values.get(key)
    if not isinstance(value, dict):
        raise ValueError(f"{path}: {key} must be an object, got {shown(value)}")
    return value


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
    """The steps of a recording under the keys of `replay`; preemptions of steps without a token count with the next.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is malformed; naming file, line, key and value.
    """
    carried = 0
    for number, line in enumerate(_lines(trace), 1):
        step = parse_json(line, f"{trace}, line {number}")
        if not isinstance(step, dict):
            raise ValueError(f"{trace}, line {number} must be an object, got {shown(step)}")
        if step.get("kind") != "step":
            continue
        for key, kind in _STEP.items():
            if type(step.get(key, step.get("t_us") if key == "sched_us" else None)) is not kind:
                what = {int: "a whole number", dict: "an object", list: "a list"}[kind]
                raise ValueError(f"{trace}, line {number}: {key} must be {what}, got {shown(step.get(key))}")
        if unknown := step.keys() - _STEP.keys() - {*_PASSED_OVER}:
            raise ValueError(f"{trace}, line {number} has unknown keys: {shown(sorted(unknown))}")
        carried += len(step["preempted"])
        if not step["sched"]:
            continue
        step["preempted"], carried = carried, 0
        step.setdefault("sched_us", step["t_us"])
        yield {key: value for key, value in step.items() if key not in _PASSED_OVER}


def _lines(trace: Path) -> list[str]:
    content = trace.read_bytes()
    if trace.suffix == ".gz":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{trace} must be compressed by gzip: {error}") from None
    return content.decode("utf-8", "replace").splitlines()


def first_difference(input_path: Path, trace_path: Path, interpreted: bool = False) -> str | None:
    """A description of the first difference between a recording and our run of its input; None if there is none."""
    recording = read_recording(input_path)
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
