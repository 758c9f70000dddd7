"""Damaged files of every kind that we read give our errors, which name the file, or are read; never anything else."""

import contextlib
import gzip
import json
import shutil
import signal
import warnings
from pathlib import Path

import numpy as np
import pytest

from baselines.vllm_replay import first_difference, read_recording, recorded_steps
from llmsched_env.calibration import VllmSettings, read_batches, read_run
from llmsched_env.machine.config import EngineConfig
from llmsched_env.machine.profiles import gpu_profile
from llmsched_env.workloads import load_tasks, load_trace
from llmsched_env.workloads.sources import FixedRequests
from tests.malformed.mutations import mutated

ROUNDS = [500, pytest.param(10_000, marks=pytest.mark.slow)]
CPU_SECONDS = 2.0
ROW = {"timestamp": 0, "input_length": 100, "output_length": 5, "hash_ids": [1, 2]}
LENGTHS = {"input_lens": [10, 20, 30, 40], "output_lens": [3, 2, 2, 2], "errors": ["", "", "", ""]}
TIMES = {"ttfts": [0.5, 0.25, 0.5, 0.5], "itls": [[0.25, 0.25], [0.5], [0.5], [0.25]]}
BENCH = {"date": "d", "request_rate": "inf", "burstiness": 1.0, "max_concurrency": 2, **LENGTHS, **TIMES}
GUIDELLM = {
    "type_": "generative_benchmark",
    "config": {"strategy": {"type_": "concurrent", "streams": 2}},
    "requests": {
        "successful": [
            {
                "request_start_time": 1.75e9 + k,
                "request_end_time": 1.75e9 + k + 2,
                "prompt_tokens": 100,
                "output_tokens": 20,
                "time_to_first_token_ms": 80.0,
            }
            for k in range(3)
        ],
        "errored": [],
        "incomplete": [],
    },
}
AIPERF = {
    "metadata": {"conversation_id": "c", "request_start_ns": 10**18, "request_end_ns": 10**18 + 10**9},
    "metrics": {
        "input_sequence_length": {"value": 550, "unit": "tokens"},
        "output_sequence_length": {"value": 48, "unit": "tokens"},
        "time_to_first_token": {"value": 255.0, "unit": "ms"},
        "inter_chunk_latency": {"value": [10.0, 20.0], "unit": "ms"},
    },
}
INFERENCE_PERF = {
    "start_time": 10.0,
    "end_time": 12.0,
    "info": {"input_tokens": 5, "output_tokens": 2, "output_token_times": [10.5, 11.0]},
    "error": None,
}
LITELLM = {
    "startTime": "2025-05-10T00:00:00",
    "endTime": "2025-05-10T00:00:02Z",
    "completionStartTime": 1.8e9,
    "prompt_tokens": 5,
    "completion_tokens": 2,
    "session_id": "s",
}
DYNAMO = {
    "event": {
        "event_type": "request_end",
        "agent_context": {"session_id": "a", "parent_session_id": None},
        "request": {
            "request_received_ms": 1000,
            "total_time_ms": 10.0,
            "input_tokens": 100,
            "output_tokens": 3,
            "replay": {"trace_block_size": 64, "input_sequence_hashes": [1, 2]},
        },
    }
}
EVENTS = [{"event_type": "user_message", "timestamp": f"2025-05-10T00:00:0{k}Z"} for k in range(2)]
TRACELAB = {"session_id": "a", "project": "p", "input_tokens_total": 9, "output_tokens": 2, "prefix_tokens": 3}
VLLM_RUN = {"arrival_time": 5.0, "input_toks": 5, "output_toks": 2}
VLLM_RUN |= {"queued_ts": 5.0, "first_token_ts": 6.0, "last_token_ts": 7.0}
SESSION = {
    "block_size": 64,
    "requests": [
        {"t": 0, "type": "n", "in": 100, "out": 2, "hash_ids": [1, 2], "think_time": 1.0, "api_time": 0.5},
        {"t": 9, "type": "subagent", "agent_id": "x", "duration_ms": 100, "requests": [{"t": 0, "in": 5, "out": 2}]},
        {"t": 12, "type": "n", "in": 130, "out": 2, "hash_ids": [1, 2, 3]},
    ],
}
PROMETHEUS = "".join(
    f'# TYPE {name} histogram\n{name}_bucket{{le="10.0",model_name="m"}} 5.0\n'
    f'{name}_bucket{{le="+Inf",model_name="m"}} 9.0\n{name}_sum{{model_name="m"}} 99.0\n'
    for name in ("vllm:request_prompt_tokens", "vllm:request_generation_tokens")
)
TRACES = {
    "plain.csv": "arrival,prompt_tokens,output_tokens,client\n" + "0.5,10,2,\n" * 9 + "1.25,20,3,1\n3,7,1,0\n",
    "azure.csv": "TIMESTAMP,ContextTokens,GeneratedTokens\n"
    + "2024-05-10 00:00:01.25,10,2\n" * 9
    + "2024-05-10 00:00:02+00:00,9,3\n",
    "burstgpt.csv": "Timestamp,Model,Request tokens,Response tokens,Session ID\n5,GPT-4,10,2,a\n9.5,ChatGPT,20,3,\n",
    "lengths.csv": "arrived_at,num_prefill_tokens,num_decode_tokens\n0.5,10,2\n0.75,20,3\n",
    "calls.csv": "session_id,t_s,input_tokens,output_tokens,prefix_hit_tokens,wait_before_s\n"
    "a,0,10,2,0,\na,5,20,3,12,4.5\na/b,2,5,1,0,\n",
    "spend.csv": "startTime,endTime,prompt_tokens,completion_tokens\n2025-05-10T00:00:00,2025-05-10T00:00:02,10,2\n",
    "metrics.txt": PROMETHEUS,
    "mooncake.jsonl": [ROW, {**ROW, "timestamp": 900, "hash_ids": [1, 3]}],
    "qwen.jsonl": [
        {**ROW, "chat_id": k, "parent_chat_id": k - 1, "timestamp": 1.5 * k, "hash_ids": [1] * 7} for k in range(3)
    ],
    "plain.jsonl": [
        {"arrival": k, "prompt_tokens": 5, "output_tokens": 2, "parent": k - 1, "shared_tokens": 0} for k in range(3)
    ],
    "dynamo.jsonl": [DYNAMO, DYNAMO],
    "tracelab.jsonl": [{**TRACELAB, "timing_events": EVENTS}] * 2,
    "run.jsonl": [
        {
            "arrival_time": 5.0,
            "input_toks": 5,
            "output_toks": 2,
            "queued_ts": 5.0,
            "first_token_ts": 6.0,
            "last_token_ts": 7.0,
        }
    ]
    * 2,
    "aiperf.jsonl": [AIPERF, AIPERF],
    "litellm.jsonl": [LITELLM, LITELLM],
    "vllm.json": BENCH,
    "ramp.json": BENCH
    | {"max_concurrency": None, "ramp_up_strategy": "linear", "ramp_up_start_rps": 1, "ramp_up_end_rps": 3},
    "times.json": BENCH | {"start_times": [1.0, 1.0, 2.0, 3.0]},
    "append.json": [BENCH, BENCH | {"max_concurrency": None}],
    "sglang.json": BENCH | {"total_output_tokens_retokenized": 9},
    "guidellm.json": {"benchmarks": [GUIDELLM]},
    "inference_perf.json": {"items": [INFERENCE_PERF, INFERENCE_PERF]},
    "session.json": SESSION,
    "sharegpt.json": {"items": [{"id": "a", "conversations": [{"from": "human", "value": "hi"}]}]},
}


def content(value):
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, list):
        return "\n".join(map(json.dumps, value)).encode()
    return json.dumps(value["items"] if value.keys() == {"items"} else value, indent=1).encode()


def damage(path, text, read, rounds, also=()):
    """Reads damaged copies of a file; returns how many were read and how many refused."""
    rng = np.random.default_rng([rounds, *path.name.encode()])
    read_ones = refused = 0

    def too_long(number, frame):
        raise TimeoutError(f"more than {CPU_SECONDS} s of CPU")

    path.write_bytes(text)
    with contextlib.suppress(ValueError), warnings.catch_warnings(action="ignore"):
        read(path)  # compiled parsers are ready from here on
    before = signal.signal(signal.SIGVTALRM, too_long)
    try:
        for k in range(rounds):
            damaged = mutated(text, rng)
            path.write_bytes(damaged)
            signal.setitimer(signal.ITIMER_VIRTUAL, CPU_SECONDS)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", UserWarning)
                    read(path)
                read_ones += 1
            except ValueError as error:
                assert any(str(own) in str(error) for own in (path, *also)), (
                    f"round {k}: {error!r} of {damaged[:2000]!r}"
                )
                assert type(error).__name__ in ("ValueError", "CellError"), (
                    f"round {k}: {error!r} of {damaged[:2000]!r}"
                )
                refused += 1
            except Exception as error:
                raise AssertionError(f"round {k}: {error!r} of {damaged[:2000]!r}") from error
            finally:
                signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    finally:
        signal.signal(signal.SIGVTALRM, before)
    return read_ones, refused


def read_requests(path):
    skip = path.stat().st_size % 2 == 0
    workload = load_trace(f"{path}#1" if path.name == "append.json" else path, skip_bad_rows=skip)
    if isinstance(workload.source, FixedRequests):
        assert len(workload.sample(0)) >= 1
    workload.length_sample()


@pytest.mark.parametrize("rounds", ROUNDS)
@pytest.mark.parametrize("name", TRACES)
def test_traces(tmp_path, name, rounds):
    text = content(TRACES[name])
    read_ones, refused = damage(tmp_path / name, text, read_requests, rounds)
    assert refused >= 20 and (read_ones >= 3 or name == "sharegpt.json")


@pytest.mark.parametrize("rounds", ROUNDS)
@pytest.mark.parametrize(
    "name", ["calls.csv", "qwen.jsonl", "dynamo.jsonl", "tracelab.jsonl", "session.json", "vllm.json"]
)
def test_traces_as_tasks(tmp_path, name, rounds):
    assert min(damage(tmp_path / name, content(TRACES[name]), load_tasks, rounds)) >= 3


@pytest.mark.parametrize("rounds", ROUNDS)
@pytest.mark.parametrize("part", ["-trace.csv", "-dataset.json"])
def test_clients_of_servegen(tmp_path, part, rounds):
    texts = {
        "-trace.csv": b"0,1.5,1.0,Gamma,1.0,2.0\n600,0,,,,\n1200,0.5,2.0,Weibull,0.7,2.0\n",
        "-dataset.json": json.dumps(
            {str(600 * k): {"input_tokens": "{10: 0.5, 20: 0.5}", "output_tokens": "{2: 1.0}"} for k in range(3)}
        ).encode(),
    }
    texts["-trace.csv"] = texts["-trace.csv"].replace(b"600,0,,,,", b"600,0,0,,0,0")
    for name, text in texts.items():
        (tmp_path / f"chunk-1{name}").write_bytes(text)
    assert (
        min(damage(tmp_path / f"chunk-1{part}", texts[part], lambda path: load_trace(tmp_path), rounds, [tmp_path]))
        >= 3
    )


@pytest.mark.parametrize("rounds", ROUNDS)
@pytest.mark.parametrize(
    "name",
    ["run.jsonl", "times.json", "sglang.json", "guidellm.json", "aiperf.jsonl", "inference_perf.json", "litellm.jsonl"],
)
def test_serving_runs(tmp_path, name, rounds):
    assert min(damage(tmp_path / name, content(TRACES[name]), read_run, rounds)) >= 3


@pytest.mark.parametrize("rounds", ROUNDS)
def test_batches(tmp_path, rounds):
    titles = "profile,total_tokens,decode_kv_tokens,prefill_attn_pairs,prefill_context_tokens,num_seqs,iter_ms\n"
    text = titles + "a,100,500,0,0,4,10.5\nb,200,0,5000,100,2,20\n"
    assert min(damage(tmp_path / "batches.csv", text.encode(), read_batches, rounds)) >= 3


ROOFLINE = {"c": 5.0, "a_tok": 0.1, "a_tok_over": 0.1, "b0": 128, "a_kv": 1e-5, "a_attn": 1e-7, "a_ctx": 1e-6}
STAIRCASE = {"c": 5.0, "a": 3.0, "b0": 128}
PROFILE = {
    "form": "roofline",
    "roofline": ROOFLINE,
    "staircase": STAIRCASE,
    "hinge": None,
    "model": "m",
    "gpu": "g",
    "tensor_parallel": 1,
    "source": "s",
    "mape_pct": 2.0,
    "p95_ape_pct": 5.0,
    "gpu_memory_bytes": 80 * 10**9,
    "weight_bytes_per_gpu": 16 * 10**9,
    "kv_bytes_per_token": 131072,
    "reserve_bytes_per_gpu": 10**9,
    "max_model_len": 4096,
    "range": {"total_tokens": [1, 2048]},
    "made_with": {"x": "1"},
    "warnings": ["w"],
    "host_overhead_ms": [0.5, 0.01],
    "step_noise": 0.05,
    "believed": {"form": "staircase", "host_overhead_ms": [0.0, 0.0], **STAIRCASE},
}
TABULATED = {"decode": [[1, 5.0], [64, 9.0]], "mixed": [[1, 6.0], [512, 30.0]]}
TABULATED |= dict.fromkeys(("a_seq", "a_kv_decode", "a_kv", "a_attn", "a_ctx"), 1e-6)
FORMS = {
    "roofline": {"coef": ROOFLINE, "fit": {"mape_pct": 2.0}},
    "staircase": {"coef": STAIRCASE},
    "piecewise": {"coef": STAIRCASE},
}
PROFILES = {
    "one": PROFILE,
    "tabulated": {"form": "tabulated", "tabulated": TABULATED, "mape_pct": 1.0, "kv_tokens": 1000},
    "several": {"profiles": {"a": {"forms": FORMS, "memory": {"kv_bytes_per_token": 5}, "model": "m", "gpu": "g"}}},
}
PROFILES["several"]["profiles"]["a"]["memory"] |= {"gpu_memory_bytes": 9000.5, "weight_bytes_per_gpu": 50}
PROFILES["several"]["profiles"]["a"]["memory"] |= {"reserve_bytes_per_gpu": 0}


@pytest.mark.parametrize("rounds", ROUNDS)
@pytest.mark.parametrize("name", PROFILES)
def test_profiles(tmp_path, name, rounds):
    text = json.dumps(PROFILES[name]).encode()
    assert gpu_profile_of(tmp_path / "profile.json", text) is not None
    also = ["gpu_memory_utilization must be >"]  # of an engine without room for a KV block
    assert min(damage(tmp_path / f"{name}.json", text, EngineConfig.for_gpu, rounds, also)) >= 20


def gpu_profile_of(path, text):
    path.write_bytes(text)
    return gpu_profile(path)


SETTINGS = {
    "num_requests": 100,
    "engine_kwargs": {"model": "m", "max_num_batched_tokens": 2048, "max_num_seqs": 64, "block_size": 16, "foo": 1},
    "kv_cache": {"num_gpu_blocks": 1000},
    "hardware": {"device_name": "H100"},
    "resolved_config": {"scheduler_config": {"policy": "fcfs"}, "cache_config": {"gpu_memory_utilization": 0.9}},
}


@pytest.mark.parametrize("rounds", ROUNDS)
def test_settings_of_vllm(tmp_path, rounds):
    assert min(damage(tmp_path / "meta.json", json.dumps(SETTINGS).encode(), VllmSettings.read, rounds)) >= 20


RECORDINGS = Path(__file__).parents[1] / "data" / "vllm"


@pytest.mark.parametrize("rounds", ROUNDS)
def test_recordings_of_vllm(tmp_path, rounds):
    recording = json.loads((RECORDINGS / "extra_async.input.json").read_text())
    recording["requests"] = recording["requests"][:3]
    path = tmp_path / "x.input.json"
    assert min(damage(path, json.dumps(recording).encode(), read_recording, rounds)) >= 20


@pytest.mark.parametrize("rounds", ROUNDS)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_recorded_steps_of_vllm(tmp_path, rounds, suffix):
    lines = gzip.decompress((RECORDINGS / "extra_async.trace.jsonl.gz").read_bytes()).splitlines()[:6]
    text = b"\n".join(lines)
    text = gzip.compress(text) if suffix else text
    path = tmp_path / f"x.trace.jsonl{suffix}"
    read_ones, refused = damage(path, text, lambda own: list(recorded_steps(own)), rounds)
    assert refused >= 20 and read_ones >= 1


def test_whole_recordings_still_replay(tmp_path):
    for name in ("extra_async.input.json", "extra_async.trace.jsonl.gz"):
        shutil.copy(RECORDINGS / name, tmp_path / name)
    assert first_difference(tmp_path / "extra_async.input.json", tmp_path / "extra_async.trace.jsonl.gz") is None
