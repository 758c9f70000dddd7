"""Results of serving benchmarks and logs of gateways: closed loops stay closed, several runs are told apart."""

import json
import math

import numpy as np
import pytest

import llmsched_env as ls
from baselines import vllm_v1
from llmsched_env.calibration import read_run
from llmsched_env.workloads import load_tasks, load_trace
from llmsched_env.workloads.closed_requests import ClosedRequests

ENGINE = ls.EngineConfig(ls.Staircase(c=0.01, a=0.01, b0=64), token_budget=256)

LENGTHS = {"input_lens": [10, 20, 30, 40, 50, 60], "output_lens": [3, 2, 5, 4, 3, 2]}
LATENCIES = {
    "ttfts": [0.5, 0.25, 0.5, 0.5, 0.25, 0.5],
    "itls": [[0.25, 0.25], [0.5], [0.125] * 4, [0.5, 0.25, 0.25], [0.25, 0.5], [1.0]],
}
CLOSED = {"request_rate": "inf", "burstiness": 1.0, "max_concurrency": 2, **LENGTHS}
SGLANG = {"request_rate": math.inf, "max_concurrency": 2, "total_output_tokens_retokenized": 19, **LENGTHS, **LATENCIES}


@pytest.fixture
def written(tmp_path):
    def write(*values, name="result.json", lines=False):
        path = tmp_path / name
        path.write_text(
            "\n".join(map(json.dumps, values)) if lines or len(values) > 1 else json.dumps(values[0], indent=1)
        )
        return path

    return write


@pytest.mark.parametrize("result", [CLOSED, SGLANG], ids=["vllm", "sglang"])
def test_a_closed_loop_without_start_times_is_no_burst(written, result):
    path = written(result)
    workload = load_trace(path)
    assert workload.max_concurrency == 2 and "closed loop of 2" in workload.recognised
    assert isinstance(workload.source, ClosedRequests) and math.isnan(workload.rate)
    assert workload.length_sample()[0].tolist() == LENGTHS["input_lens"]
    with pytest.raises(ValueError, match=r"closed loop of 2 without start times.*--concurrency 2.*rate="):
        workload.sample(0)
    drawn = load_trace(path, rate=3.0).sample(0)
    assert drawn.arrival[-1] == pytest.approx(2.0) and drawn.prompt_tokens.tolist() == LENGTHS["input_lens"]
    assert [len(part.source.table) for part in workload.split((0.5, 0.5))] == [3, 3]


@pytest.mark.parametrize("more", [{}, {"start_times": [7.0, 7.0, 8.0, 8.5, 9.0, 10.0]}], ids=["no times", "times"])
def test_as_tasks_whoever_is_free_sends_the_next_request(written, more):
    tasks = load_tasks(written(CLOSED | more)).sample(0)
    assert tasks.num_tasks == 6 and (tasks.calls.arrival == 0).all() and tasks.pool.users == 2
    assert tasks.calls.prompt_tokens.tolist() == [10, 20, 30, 40, 50, 60] and not tasks.pool.think.any()
    rows = ls.simulate(vllm_v1, load_tasks(written(CLOSED | more)), ENGINE, interpreted=True).requests
    assert rows.arrival.tolist() == [0.0, 0.0, *np.sort(rows.finish)[:4].tolist()]


def test_start_times_of_a_closed_loop_are_replayed_with_a_warning(written):
    path = written(CLOSED | {"start_times": [7.0, 7.0, 8.0, 8.5, 9.0, 10.0]})
    with pytest.warns(UserWarning, match=r"come from a closed loop of 2.*--concurrency 2"):
        workload = load_trace(path)
    assert workload.sample(0).arrival.tolist() == [0.0, 0.0, 1.0, 1.5, 2.0, 3.0] and workload.max_concurrency == 2


def test_a_limit_that_did_not_bind_is_an_open_loop(written):
    at_rate = {**CLOSED, "request_rate": 0.5, **LATENCIES}  # 0.5/s of about 1 s: half a request in the system
    assert load_trace(written(at_rate)).sample(0).arrival[-1] == pytest.approx(12.0)
    assert load_trace(written(at_rate)).max_concurrency is None
    assert load_trace(written({**at_rate, "request_rate": 4.0})).max_concurrency == 2
    throughput = {**CLOSED, "request_rate": 4.0, "request_throughput": 2.0}
    assert load_trace(written(throughput)).max_concurrency == 2
    assert load_trace(written({**throughput, "request_throughput": 3.9})).max_concurrency is None
    assert load_trace(written({**CLOSED, "max_concurrency": 6})).sample(0).arrival.tolist() == [0.0] * 6
    for wrong in (0, -1, 2.5, "8", 10**9):
        with pytest.raises(ValueError, match="max_concurrency must be an integer >= 1"):
            load_trace(written({**CLOSED, "max_concurrency": wrong}))


@pytest.mark.parametrize("strategy", ["linear", "exponential"])
def test_a_rate_that_ramps_up_is_drawn_so(written, strategy):
    n = 4000
    ramp = {"ramp_up_strategy": strategy, "ramp_up_start_rps": 2, "ramp_up_end_rps": 8}
    lengths = {"input_lens": [10] * n, "output_lens": [3] * n}
    workload = load_trace(written({"request_rate": "inf", "max_concurrency": None, **lengths, **ramp}))
    arrival = workload.sample(0).arrival
    first, last = 400 / arrival[400], 400 / (arrival[-1] - arrival[-401])
    begin, end = (2.3, 7.7) if strategy == "linear" else (2 * 4**0.05, 2 * 4**0.95)
    assert first == pytest.approx(begin, rel=0.15) and last == pytest.approx(end, rel=0.15)
    with pytest.raises(ValueError, match="ramp_up_strategy must be linear or exponential, got 'step'"):
        load_trace(written({**CLOSED, **ramp, "ramp_up_strategy": "step"}))
    with pytest.raises(ValueError, match="ramp_up_start_rps must be"):
        load_trace(written({**CLOSED, **ramp, "ramp_up_start_rps": -1}))


def test_several_runs_in_a_file_are_chosen_by_number(written):
    second = {**CLOSED, "input_lens": [1] * 6, "request_rate": 2.0, "max_concurrency": None}
    path = written(CLOSED, second)
    with pytest.raises(
        ValueError, match=r"2 runs in this file; choose one with\n.*#1: .*max_concurrency 2\n.*#2: .*2.0"
    ):
        load_trace(path)
    chosen = load_trace(f"{path}#2")
    assert chosen.name == "result#2" and chosen.sample(0).prompt_tokens.tolist() == [1] * 6
    assert load_trace(f"{path}#1").max_concurrency == 2 and load_tasks(f"{path}#1").name == "result#1"
    with pytest.raises(ValueError, match=r"#3: the run must be one of 1 to 2"):
        load_trace(f"{path}#3")
    with pytest.raises(FileNotFoundError):
        load_trace(f"{path}x#1")
    array = written([CLOSED, second], name="array.json")
    assert load_trace(f"{array}#2").sample(0).prompt_tokens.tolist() == [1] * 6
    plain = written({"arrival": 0, "prompt_tokens": 1, "output_tokens": 1}, name="plain.jsonl", lines=True)
    with pytest.raises(ValueError, match="is one run; leave out #2"):
        load_trace(f"{plain}#2")


def test_a_file_whose_name_holds_a_hash_is_a_file(written):
    path = written(CLOSED | {"start_times": [0.0, 1, 2, 3, 4, 5], "max_concurrency": None}, name="run#2")
    assert len(load_trace(path).sample(0)) == 6


def test_runs_of_sglang_are_calibrated_with_the_start_times_of_their_closed_loop(written):
    run = read_run(written(SGLANG))
    # Latencies 1, 0.75, 1, 1.5, 1, 1.5: two users.
    assert run.arrival.tolist() == [0.0, 0.0, 0.75, 1.0, 1.75, 2.5]
    assert run.e2el.tolist() == [1.0, 0.75, 1.0, 1.5, 1.0, 1.5] and [len(gaps) for gaps in run.gaps] == [
        2,
        1,
        4,
        3,
        2,
        1,
    ]
    with pytest.raises(ValueError, match="start_times must be a list, got nothing, and without a closed loop"):
        read_run(written({**SGLANG, "max_concurrency": None}))
    with pytest.raises(
        ValueError, match="ttfts must be a list, got nothing; was the result saved with --output-details"
    ):
        read_run(written({**SGLANG, "ttfts": None}))


def guidellm(strategy, starts=(100.0, 101.0, 100.5)):
    def request(start, k):
        times = {"request_start_time": start, "request_end_time": start + 2.0, "time_to_first_token_ms": 80.0}
        return {"request_id": str(k), **times, "prompt_tokens": 256 + k, "output_tokens": 128}

    requests = {"successful": [request(start, k) for k, start in enumerate(starts)], "errored": [{}], "incomplete": []}
    return {"type_": "generative_benchmark", "config": {"strategy": strategy}, "requests": requests}


def test_guidellm(written):
    poisson = guidellm({"type_": "poisson", "rate": 2.0})
    path = written({"metadata": {"version": 1}, "args": {}, "benchmarks": [poisson]})
    workload = load_trace(path)
    assert workload.sample(0).arrival.tolist() == [0.0, 0.5, 1.0] and workload.max_concurrency is None
    assert workload.sample(0).prompt_tokens.tolist() == [256, 258, 257] and workload.skipped.failed == 1
    run = read_run(path)
    assert run.ttft == pytest.approx([0.08] * 3) and run.e2el == pytest.approx([2.0] * 3) and run.gaps is None
    sweep = {
        "benchmarks": [poisson, guidellm({"type_": "concurrent", "streams": 8}), guidellm({"type_": "synchronous"})]
    }
    path = written(sweep)
    with pytest.raises(
        ValueError, match=r"3 runs in this file; choose one with\n.*#1: poisson 2.0\n.*#2: concurrent 8"
    ):
        load_trace(path)
    for run_of, users in ((2, 8), (3, 1)):
        with pytest.warns(UserWarning, match=f"closed loop of {users}"):
            assert load_trace(f"{path}#{run_of}").max_concurrency == users
    broken = guidellm({"type_": "poisson"})
    broken["requests"]["successful"][1]["request_end_time"] = 3.0
    with pytest.raises(ValueError, match=r"\[1\].request_end_time must be >= request_start_time \(101.0\), got 3.0"):
        load_trace(written({"benchmarks": [broken]}))


def aiperf(start, seconds=1.0, phase="profiling", error=None, **metadata):
    times = {"request_start_ns": int(start * 1e9), "request_end_ns": int((start + seconds) * 1e9)}
    metrics = {
        "input_sequence_length": {"value": 550, "unit": "tokens"},
        "output_sequence_length": {"value": 48, "unit": "tokens"},
        "time_to_first_token": {"value": 255.0, "unit": "ms"},
        "inter_chunk_latency": {"value": [10.0, 20.0], "unit": "ms"},
    }
    about = {"conversation_id": "c", "benchmark_phase": phase, "was_cancelled": False, **times, **metadata}
    return {"metadata": about, "metrics": {} if error else metrics, "error": error}


def test_aiperf(written):
    at = 1_759_522_419.0
    rows = [
        aiperf(at - 9, phase="warmup"),
        aiperf(at + 0.5),
        aiperf(at),
        aiperf(at + 4, error={"code": 500}),
        aiperf(at + 7),
    ]
    path = written(*rows, name="profile_export.jsonl")
    workload = load_trace(path)
    assert workload.sample(0).arrival == pytest.approx([0.0, 0.5, 7.0], abs=1e-6) and workload.skipped.failed == 1
    assert workload.sample(0).prompt_tokens.tolist() == [550] * 3 and workload.max_concurrency is None
    run = read_run(path)
    assert run.ttft == pytest.approx([0.255] * 3) and run.gaps[0] == pytest.approx([0.01, 0.02])
    settings = {"input_config": {"phases": [{"name": "profiling", "type": "concurrency", "concurrency": 4}]}}
    written(settings, name="profile_export_aiperf.json")
    with pytest.warns(UserWarning, match="closed loop of 4"):
        load_trace(path)
    written({"input_config": {"loadgen": {"concurrency": 4, "request_rate": 2.0}}}, name="profile_export_aiperf.json")
    assert load_trace(path).max_concurrency is None
    phases = [{"name": "profiling", "type": "poisson", "rate": 2.0, "concurrency": 4}]
    written({"input_config": {"phases": phases}}, name="profile_export_aiperf.json")
    assert load_trace(path).max_concurrency is None
    rows[1]["metrics"]["time_to_first_token"]["unit"] = "parsec"
    with pytest.raises(
        ValueError, match="line 2, column metrics.time_to_first_token.unit must be one of s, ms, us, ns"
    ):
        load_trace(written(*rows, name="other.jsonl"))


def test_a_closed_loop_is_recognised_by_its_times(written):
    """Three users, each of whom sends as soon as it got an answer; and a Poisson stream, which is none."""
    rng = np.random.default_rng(0)
    free, rows = [1000.0, 1000.0, 1000.0], []
    for _ in range(60):
        user = int(np.argmin(free))
        seconds = rng.uniform(0.5, 2.0)
        rows.append(aiperf(free[user], seconds))
        free[user] += seconds + 0.002
    with pytest.warns(UserWarning, match="closed loop of 3"):
        assert load_trace(written(*rows, name="closed.jsonl")).max_concurrency == 3
    rows = [aiperf(1000.0 + time, rng.uniform(0.5, 2.0)) for time in np.cumsum(rng.exponential(0.5, 60))]
    assert load_trace(written(*rows, name="open.jsonl")).max_concurrency is None


def test_inference_perf(written):
    def request(start, **more):
        info = {"input_tokens": 300, "output_tokens": 3, "output_token_times": [start + 0.25, start + 0.5, start + 1.0]}
        return {
            "start_time": start,
            "end_time": start + 1.5,
            "request": "",
            "response": "",
            "info": info,
            "error": None,
        } | more

    rows = [request(1000.5), request(1000.0), request(1003.0, error={"error_type": "x"}, info=None), request(1009.0)]
    path = written(rows)
    workload = load_trace(path)
    assert workload.sample(0).arrival.tolist() == [0.0, 0.5, 9.0] and workload.skipped.failed == 1
    run = read_run(path)
    assert run.ttft.tolist() == [0.25] * 3 and run.e2el.tolist() == [1.0] * 3 and run.gaps[0].tolist() == [0.25, 0.5]
    rows[0]["info"]["output_token_times"].reverse()
    with pytest.raises(ValueError, match=r"\[0\].output_token_times must not decrease"):
        load_trace(written(rows))


LITELLM = [
    {
        "startTime": "2025-05-10T00:00:01Z",
        "endTime": "2025-05-10T00:00:03Z",
        "completionStartTime": "2025-05-10T00:00:01.5Z",
    },
    {
        "startTime": "2025-05-10 00:00:00",
        "endTime": "2025-05-10 00:00:02",
        "completionStartTime": "2025-05-10 00:00:00.5",
    },
    {"startTime": "2025-05-10T00:00:09Z", "cache_hit": "True"},
    {"startTime": "2025-05-10T00:00:09Z", "status": "failure"},
]
LITELLM = [{**row, "prompt_tokens": 100 + k, "completion_tokens": 7, "user": "u"} for k, row in enumerate(LITELLM)]


def test_logs_of_litellm(written, tmp_path):
    titles = list(dict.fromkeys(title for row in LITELLM for title in row))
    table = "\n".join(
        ",".join(map(str, cells)) for cells in [titles, *([row.get(t, "") for t in titles] for row in LITELLM)]
    )
    (tmp_path / "spend.csv").write_text(table)
    unix = [{**row, "startTime": 1_746_835_200.0 + 1 - k, "endTime": None} for k, row in enumerate(LITELLM[:2])]
    for path in (written(LITELLM), written(*LITELLM, name="log.jsonl"), tmp_path / "spend.csv"):
        workload = load_trace(path)
        assert workload.sample(0).arrival.tolist() == [0.0, 1.0] and workload.skipped.failed == 1
        assert workload.sample(0).prompt_tokens.tolist() == [101, 100]
        run = read_run(path)
        assert run.ttft.tolist() == [0.5, 0.5] and run.e2el.tolist() == [2.0, 2.0]
    assert load_trace(written(*unix)).sample(0).arrival.tolist() == [0.0, 1.0]
    with pytest.raises(ValueError, match="must hold the time of the first token of each request"):
        read_run(written(*({**row, "completionStartTime": None} for row in LITELLM)))


def prometheus(name, bounds, upto, total, model="m"):
    labels = f'engine="0",model_name="{model}"'
    buckets = "".join(f'{name}_bucket{{{labels},le="{b}"}} {n}\n' for b, n in zip(bounds, upto, strict=True))
    return f"# TYPE {name} histogram\n{buckets}{name}_sum{{{labels}}} {total}\n{name}_count{{{labels}}} {upto[-1]}\n"


def scrape(model="m"):
    bounds = ["100.0", "200.0", "1000.0", "+Inf"]
    prompt = prometheus("vllm:request_prompt_tokens", bounds, [100.0, 300.0, 400.0, 400.0], 90_000.0, model)
    return prompt + prometheus("vllm:request_generation_tokens", bounds, [400.0, 400.0, 400.0, 400.0], 20_000.0, model)


def test_histograms_of_a_server_become_lengths(tmp_path):
    path = tmp_path / "metrics.txt"
    path.write_text("# HELP python_info x\npython_info 1.0\n" + scrape())
    workload = load_trace(path)
    prompt, output = workload.length_sample()
    assert (
        len(prompt) == 400
        and prompt.mean() == pytest.approx(225, rel=0.01)
        and output.mean() == pytest.approx(50, rel=0.02)
    )
    assert [int(np.sum(prompt <= bound)) for bound in (100, 200, 1000)] == [100, 300, 400]
    assert abs(np.corrcoef(prompt, output)[0, 1]) < 0.1 and workload.rate == 1.0 and "no times" in workload.recognised
    path.write_text(scrape("a") + scrape("b"))
    with pytest.raises(ValueError, match=r"2 runs in this file.*\n.*#1: a\n.*#2: b"):
        load_trace(path)
    assert len(load_trace(f"{path}#2").length_sample()[0]) == 400
    path.write_text(scrape() + scrape())
    with pytest.raises(ValueError, match="the file must hold one scrape"):
        load_trace(path)
    path.write_text(scrape().split("# TYPE vllm:request_generation")[0])
    with pytest.raises(ValueError, match=r"lacks the histogram vllm:request_generation_tokens.*curl SERVER/metrics"):
        load_trace(path)
    path.write_text(scrape().replace(" 300.0", " 50.0"))
    with pytest.raises(ValueError, match="the histogram of prompt tokens must not decrease"):
        load_trace(path)


def test_conversations_say_how_to_convert_them(written):
    with pytest.raises(ValueError, match=r"conversations as text \(ShareGPT\).*num_prefill_tokens,num_decode_tokens"):
        load_trace(written([{"id": "a", "conversations": [{"from": "human", "value": "hi"}]}]))


def test_images_of_azure_are_left_to_their_tokens(tmp_path):
    path = tmp_path / "azure.csv"
    path.write_text(
        "TIMESTAMP,NumImages,ContextTokens,GeneratedTokens\n"
        "2024-10-15 00:00:00.25+00:00,2,2345,87\n2024-10-15 00:00:01+00:00,0,512,20\n"
    )
    workload = load_trace(path)
    assert workload.sample(0).arrival.tolist() == [0.0, 0.75] and workload.sample(0).prompt_tokens.tolist() == [
        2345,
        512,
    ]
    assert "images not simulated beside their tokens" in workload.recognised
