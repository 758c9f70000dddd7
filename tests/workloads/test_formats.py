"""Every format of trace: recognised by content, read as its documentation says, errors that point at the value."""

import csv
import json
import math
import shutil

import numpy as np
import pytest

from llmsched_env.workloads import load_trace

BENCH = {
    "date": "20260101-000000",
    "request_rate": 4.0,
    "burstiness": 1.0,
    "input_lens": [10, 20, 30],
    "output_lens": [3, 4, 5],
}


@pytest.fixture
def trace_file(tmp_path):
    def write(text, name="trace"):
        path = tmp_path / name
        path.write_text(text if isinstance(text, str) else json.dumps(text))
        return path

    return write


def lines(*rows):
    return "\n".join(json.dumps(row) for row in rows)


def brute_force_prefixes(prompts, ids, block):
    """The same as the trie, comparing every pair."""
    for i, mine in enumerate(ids):
        best = (-1, 0)
        for j in range(i):
            run = next(
                (k for k, (a, b) in enumerate(zip(mine, ids[j], strict=False)) if a != b), min(len(mine), len(ids[j]))
            )
            if run > best[1]:
                best = (j, run)
        parent, run = best
        yield (parent, min(run * block, prompts[i], prompts[parent])) if run else (-1, 0)


def test_burstgpt_drops_failed_requests_and_numbers_models(shared):
    path = shared / "traces/burstgpt/BurstGPT_1.rows01-30.csv"
    rows = [row for row in csv.DictReader(path.read_text().splitlines()) if int(row["Request tokens"])]
    workload = load_trace(path)
    table = workload.sample(0)
    assert len(table) == 29 and workload.skipped.failed == 1 and workload.skipped.bad == 0
    assert table.arrival.tolist() == [float(row["Timestamp"]) for row in rows]
    assert table.prompt_tokens.tolist() == [int(row["Request tokens"]) for row in rows]
    assert table.output_tokens.tolist() == [int(row["Response tokens"]) for row in rows]
    assert table.klass.tolist() == [int(row["Model"] == "GPT-4") for row in rows]


def test_burstgpt_version_3_is_read_by_name_and_ordered_by_time(trace_file):
    text = (
        "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
        '7.5,b,1.2,"GPT-4",10,2,12,API log\n'
        "7.5,a,,ChatGPT,20,3,23,API log\n"
        "5.25,b,0.5,ChatGPT,30,0,30,API log\n"
        "6.25,b,0.5,ChatGPT,40,4,44,API log\n"
        "8,,,ChatGPT,50,5,55,API log\n"
    )
    workload = load_trace(trace_file(text))
    table = workload.sample(0)
    assert workload.skipped.failed == 1
    assert table.arrival.tolist() == [6.25, 7.5, 7.5, 8.0] and table.prompt_tokens.tolist() == [40, 10, 20, 50]
    assert table.session.tolist() == [0, 0, 1, -1] and table.klass.tolist() == [0, 1, 0, 0]


@pytest.mark.parametrize("name", ["conversation", "synthetic", "mooncake_trace_arxiv"])
def test_mooncake_keeps_ties_in_order_and_finds_shared_prefixes(shared, name):
    (path,) = (shared / "traces/mooncake").glob(f"{name}*")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    table = load_trace(path).sample(0)
    assert table.arrival.tolist() == [row["timestamp"] / 1000 for row in rows]
    assert table.prompt_tokens.tolist() == [row["input_length"] for row in rows]
    assert table.output_tokens.tolist() == [row["output_length"] for row in rows]
    first = 400
    prompts = [row["input_length"] for row in rows[:first]]
    expected = list(brute_force_prefixes(prompts, [row["hash_ids"] for row in rows[:first]], 512))
    assert table.parent[:first].tolist() == [parent for parent, _ in expected]
    assert table.shared_tokens[:first].tolist() == [shared for _, shared in expected]


def test_shared_prefix_of_a_run_of_leading_ids(trace_file):
    rows = [
        {"timestamp": 0, "input_length": 1500, "output_length": 1, "hash_ids": [1, 2, 3]},
        {"timestamp": 0, "input_length": 1100, "output_length": 1, "hash_ids": [1, 2, 4]},
        {"timestamp": 3000, "input_length": 1536, "output_length": 1, "hash_ids": [1, 2, 4]},  # 4 of the second: short
        {"timestamp": 3000, "input_length": 1024, "output_length": 1, "hash_ids": [2, 4]},
        {"timestamp": 3000, "input_length": 100, "output_length": 1, "hash_ids": [1]},
    ]
    table = load_trace(trace_file(lines(*rows))).sample(0)
    assert table.parent.tolist() == [-1, 0, 1, -1, 0]
    assert table.shared_tokens.tolist() == [0, 1024, 1100, 0, 100]


@pytest.mark.parametrize("kind", ["sharegpt_8k", "arxiv", "bwb"])
def test_length_files_keep_their_rows_at_any_rate(shared, kind):
    (path,) = (shared / "traces/lengths").glob(f"{kind}*")
    rows = list(csv.DictReader(path.read_text().splitlines()))
    workload = load_trace(path)
    table = workload.sample(3)
    assert table.prompt_tokens.tolist() == [int(row["num_prefill_tokens"]) for row in rows]
    assert table.output_tokens.tolist() == [int(row["num_decode_tokens"]) for row in rows]
    assert workload.rate == 1.0 and table.arrival[-1] == pytest.approx(len(rows))
    fast = load_trace(path, rate=8.0)
    assert fast.rate == 8.0 and fast.sample(3).arrival == pytest.approx(table.arrival / 8)
    assert not np.array_equal(workload.sample(4).arrival, table.arrival)
    assert [len(part.sample(0)) for part in workload.split((0.5, 0.5))] == [len(rows) / 2] * 2
    episode = workload.episode(np.random.default_rng(0), 500.0)
    assert episode.horizon == 500.0 and 400 < len(episode) < 600


def test_length_files_may_have_times(trace_file):
    text = "arrived_at,num_prefill_tokens,num_decode_tokens\n0.5,10,2\n0.75,20,3\n"
    table = load_trace(trace_file(text)).sample(0)
    assert table.arrival.tolist() == [0.5, 0.75] and table.prompt_tokens.tolist() == [10, 20]


def test_agent_sessions_have_sessions_subagents_and_prefixes(shared):
    path = shared / "traces/agents/kv_cache_tester/trace_0277.json"
    session = json.loads(path.read_text())
    calls = []
    for row in session["requests"]:
        inner = (
            [(row["t"] - row["duration_ms"] / 1000 + call["t"], call) for call in row["requests"]]
            if row["type"] == "subagent"
            else [(row["t"], row)]
        )
        calls += inner
    calls.sort(key=lambda call: call[0])
    table = load_trace(path).sample(0)
    assert table.arrival.tolist() == [t for t, _ in calls]
    assert table.prompt_tokens.tolist() == [call["in"] for _, call in calls]
    assert len(set(table.session.tolist())) == 5
    expected = list(brute_force_prefixes(table.prompt_tokens.tolist(), [call["hash_ids"] for _, call in calls], 64))
    assert list(zip(table.parent.tolist(), table.shared_tokens.tolist(), strict=True)) == expected


def test_ids_of_one_session_mean_nothing_in_another(shared, tmp_path):
    source = shared / "traces/agents/kv_cache_tester"
    names = ["trace_0022.json", "trace_0057.json"]
    for name in names:
        shutil.copy(source / name, tmp_path / name)
    both, alone = load_trace(tmp_path).sample(0), [load_trace(source / name).sample(0) for name in names]
    assert len(both) == sum(map(len, alone))
    assert both.shared_tokens.sum() == sum(table.shared_tokens.sum() for table in alone)
    assert len(load_trace(source).sample(0)) > 300


def test_agent_calls_share_with_the_call_before_them(shared):
    path = shared / "traces/agents/agent_calls_derived.csv"
    rows = list(csv.DictReader(path.read_text().splitlines()))
    workload = load_trace(path)
    table = workload.sample(0)
    failed = sum(row["output_tokens"] == "0" for row in rows)
    assert workload.skipped.failed == failed and len(table) == len(rows) - failed
    assert len(set(table.session.tolist())) == 171
    shares = table.parent >= 0
    assert np.array_equal(table.session[table.parent[shares]], table.session[shares])
    hits = sum(int(row["prefix_hit_tokens"]) for row in rows)
    assert table.shared_tokens.sum() == pytest.approx(hits, rel=0.01)


def test_dynamo_reads_the_requests_among_the_events(shared):
    path = shared / "traces/agents/dynamo_pi_request_trace.jsonl"
    events = [json.loads(line)["event"] for line in path.read_text().splitlines()]
    requests = sorted(
        (
            e["request"]["request_received_ms"],
            e["request"]["input_tokens"],
            e["request"]["output_tokens"],
            e["request"]["cached_tokens"],
        )
        for e in events
        if e["event_type"] == "request_end"
    )
    table = load_trace(path).sample(0)
    assert table.arrival.tolist() == [(request[0] - requests[0][0]) / 1000 for request in requests]
    assert table.prompt_tokens.tolist() == [request[1] for request in requests]
    assert table.shared_tokens.sum() > 0.9 * sum(request[3] for request in requests)


def test_tracelab_calls_are_issued_at_the_last_input(shared):
    table = load_trace(shared / "traces/agents/tracelab_example_round_trace.jsonl").sample(0)
    assert len(table) == 19 and len(set(table.session.tolist())) == 2
    # The later session: a person at 05:40:20.151, then the second of two tools at 05:40:50.938.
    second = table.arrival[table.session == 1]
    assert second[1] - second[0] == pytest.approx(30.787)
    assert table.shared_tokens[table.session == 1][1] == 29380


def test_vllm_run_counts_arrivals_from_the_first(shared):
    (path,) = (shared / "profiles/measured_runs").glob("*.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    table = load_trace(path).sample(0)
    assert len(table) == 300 and table.arrival[0] == 0
    assert table.arrival[-1] == pytest.approx(rows[-1]["arrival_time"] - rows[0]["arrival_time"])


def test_servegen_clients_keep_their_rates_and_lengths(shared):
    folder = shared / "traces/servegen_deepseek_r1"
    workload = load_trace(folder)
    table = workload.sample(0)
    for client, name in enumerate(("chunk-1", "chunk-43", "chunk-56", "chunk-62")):
        rows = [line.split(",") for line in (folder / f"{name}-trace.csv").read_text().split()]
        expected = 600 * sum(float(row[1]) for row in rows)
        mine = table.client == client
        spread = math.sqrt(600 * sum(float(row[1]) * float(row[2]) ** 2 for row in rows))
        assert abs(mine.sum() - expected) <= 4 * spread, name
        idle = np.array([float(row[1]) == 0 for row in rows])
        assert not idle[(table.arrival[mine] / 600).astype(int)].any()
        alone = load_trace(folder / f"{name}-dataset.json")
        assert alone.rate == pytest.approx(expected / 86400) and len(alone.source.clients) == 1
        means = [np.mean(lengths) for lengths in alone.length_sample()]
        drawn = table.prompt_tokens[mine], table.output_tokens[mine]
        for mean, tokens in zip(means, drawn, strict=True):
            assert abs(tokens.mean() - mean) <= 4 * tokens.std() / math.sqrt(len(tokens)) + 0.005 * mean
    assert workload.scaled(12.0).rate == pytest.approx(12.0)
    assert len(workload.scaled(12.0).episode(np.random.default_rng(1), 600.0)) > 1000


def test_vllm_bench_results(trace_file):
    times = {**BENCH, "start_times": [5.0, 7.0, 6.5], "errors": ["", "", ""]}
    table = load_trace(trace_file(times)).sample(0)
    assert table.arrival.tolist() == [0.0, 1.5, 2.0] and table.prompt_tokens.tolist() == [10, 30, 20]
    drawn = load_trace(trace_file(BENCH))
    assert drawn.rate == 4.0 and drawn.sample(0).arrival[-1] == pytest.approx(3 / 4)
    assert drawn.sample(0).output_tokens.tolist() == [3, 4, 5]
    at_once = load_trace(trace_file({**BENCH, "request_rate": "inf"}))
    assert at_once.sample(0).arrival.tolist() == [0.0, 0.0, 0.0]
    failed = load_trace(trace_file({**BENCH, "errors": ["", "timeout", ""]}))
    assert failed.skipped.failed == 1 and failed.sample(0).prompt_tokens.tolist() == [10, 30]
    indented = trace_file(json.dumps(BENCH, indent=2))
    assert load_trace(indented).sample(0).prompt_tokens.tolist() == [10, 20, 30]


def test_plain_json_lines(trace_file):
    rows = [
        {"arrival": 0.5, "prompt_tokens": 10, "output_tokens": 2, "client": 3, "ttft_slo": 0.5},
        {"arrival": 1, "prompt_tokens": 20, "output_tokens": 3, "client": None, "parent": 0, "shared_tokens": 11},
    ]
    table = load_trace(trace_file(lines(*rows))).sample(0)
    assert table.arrival.tolist() == [0.5, 1.0] and table.client.tolist() == [3, 0]
    assert table.ttft_slo.tolist() == [0.5, math.inf]
    assert table.parent.tolist() == [-1, 0] and table.shared_tokens.tolist() == [0, 11]


MOONCAKE = {"timestamp": 0, "input_length": 5, "output_length": 5, "hash_ids": [1]}
PLAIN = {"arrival": 0, "prompt_tokens": 1, "output_tokens": 1}
SESSION = {"id": "a", "block_size": 64, "requests": [{"t": 0, "type": "n", "in": 5, "out": 2, "hash_ids": []}]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            lines(MOONCAKE, {**MOONCAKE, "input_length": "x"}),
            "line 2, column input_length must be an integer >= 1 .* got 'x'",
        ),
        (
            lines(MOONCAKE, {**MOONCAKE, "output_length": 0}),
            "line 2, column output_length must be an integer >= 1 .* got 0",
        ),
        (
            lines(MOONCAKE, {**MOONCAKE, "timestamp": -1}),
            "line 2, column timestamp must be a finite number >= 0 .* got -1",
        ),
        (
            lines(MOONCAKE, {**MOONCAKE, "hash_ids": [1.5]}),
            r"line 2, column hash_ids must be a list of integers or of hashes, got \[1.5\]",
        ),
        (lines(MOONCAKE) + "\n{oops\n", r"line 2 must be a JSON object \(.*\), got '{oops'"),
        ("{oops\n" + lines(MOONCAKE), r"line 1 must be a JSON object \(.*\), got '{oops'"),
        ("[1, 2]", r"must be a JSON object, or an array of objects, got \[1, 2\]"),
        (lines(MOONCAKE) + "\n\n[1]\n", r"line 3 must be a JSON object, got '\[1\]'"),
        (lines(PLAIN, {**PLAIN, "output_tokens": True}), "line 2, column output_tokens must be an integer .* got True"),
        (lines(PLAIN, {**PLAIN, "priorty": 1}), "line 2, column priorty is unknown; did you mean 'priority'"),
        (
            lines({**PLAIN, "arrival": 2}, PLAIN),
            r"line 2, column arrival must be >= the arrival before it \(2 s\), got 0",
        ),
        (lines({"arrival": 0, "prompt_tokens": 1}, PLAIN), "line 1, column output_tokens must be .* got nothing"),
        (lines({"a": 1}, {"a": 2}), "must be one of: .*Mooncake.* got JSON with a"),
        (BENCH | {"output_lens": [1]}, "output_lens must have one value per request, that is 3, got 1"),
        (BENCH | {"input_lens": [1, -2, 3]}, r"input_lens\[1\] must be an integer >= 1 .* got -2"),
        (BENCH | {"input_lens": None}, "input_lens must be a list, got None; .*--save-detailed"),
        (BENCH | {"request_rate": -1}, "request_rate must be a finite number > 0"),
        (
            SESSION | {"requests": [{"t": "x", "in": 5, "out": 2}]},
            r"requests\[0\].t must be a finite number .* got 'x'",
        ),
        (SESSION | {"block_size": 0}, "block_size must be an integer >= 1"),
        ('{\n "requests": [,]\n}', "line 2, column 15 must be JSON"),
        (
            "num_prefill_tokens,num_decode_tokens\n5,x\n",
            "line 2, column num_decode_tokens must be an integer .* got 'x'",
        ),
        ("Timestamp,Request tokens\n5,1\n", "line 1 lacks column Response tokens"),
        (
            "session_id,t_s,input_tokens,output_tokens\na,-1,5,5\n",
            "line 2, column t_s must be a finite number .* got -1",
        ),
    ],
)
def test_errors_name_file_place_value_and_what_is_expected(trace_file, text, message):
    path = trace_file(text)
    with pytest.raises(ValueError, match=message) as error:
        load_trace(path)
    assert str(error.value).startswith(str(path))


def test_servegen_errors(tmp_path):
    trace, dataset = tmp_path / "a-trace.csv", tmp_path / "a-dataset.json"
    dataset.write_text('{"0": {"input_tokens": "{5: 1.0}", "output_tokens": "{7: 1.0}"}}')
    trace.write_text("0,0.5,1.0,Gamma,1.0,2.0\n600,0.5,1.0,Gauss,1.0,2.0\n")
    with pytest.raises(ValueError, match="a-trace.csv, line 2, column 4 must be Gamma, Weibull or empty, got 'Gauss'"):
        load_trace(tmp_path)
    trace.write_text("0,0.5,1.0,Gamma,1.0,2.0\n600,x,1.0,Gamma,1.0,2.0\n")
    with pytest.raises(ValueError, match="line 2, column 2 must be a finite number >= 0, got 'x'"):
        load_trace(trace)
    trace.write_text("0,0.5,1.0,Gamma,1.0,2.0\n")
    assert set(load_trace(tmp_path).sample(0).output_tokens.tolist()) == {7}
    trace.write_text("0,0.5,1.0,Gamma,1.0,2.0\n600,0,0,,0,0\n1800,0.5,1.0,Weibull,1.0,2.0\n")  # 1200 left out: idle
    windows = set((load_trace(trace).sample(0).arrival // 600).astype(int).tolist())
    assert windows == {0, 3}
    trace.write_text("0,0.5,1.0,Gamma,1.0,2.0\n600,0.5,1.0,Gamma,1.0,2.0\n1500,0.5,1.0,Gamma,1.0,2.0\n")
    with pytest.raises(ValueError, match=r"column 1 must hold multiples of the windows' width \(600 s\), got 1500"):
        load_trace(trace)
    trace.write_text("600,0.5,1.0,Gamma,1.0,2.0\n0,0.5,1.0,Gamma,1.0,2.0\n")
    with pytest.raises(ValueError, match=r"line 2, column 1 must be > the window start before it \(600 s\), got 0"):
        load_trace(trace)
    trace.write_text("0,0.5,1.0,Gamma,1.0,2.0\n")
    dataset.write_text('{"0": {"input_tokens": "oops", "output_tokens": "{7: 1.0}"}}')
    with pytest.raises(ValueError, match="a-dataset.json, window 0, input_tokens must be a dict .*got 'oops'"):
        load_trace(tmp_path)
    dataset.unlink()
    with pytest.raises(ValueError, match="one is missing"):
        load_trace(trace)


def test_folders_without_traces(tmp_path):
    with pytest.raises(ValueError, match="got a folder without them"):
        load_trace(tmp_path)


def test_skipping_bad_rows_counts_and_lists_them(trace_file):
    text = "arrival,prompt_tokens,output_tokens\n0,1,1\n1,x,1\n2,0,1\n3,1\n9,4,4\n5,5,5\n10,6,6\n"
    path = trace_file(text)
    with pytest.warns(UserWarning, match=r"skipped 4 bad rows:\n.*line 3, column prompt_tokens must be .* got 'x'"):
        workload = load_trace(path, skip_bad_rows=True)
    assert workload.sample(0).prompt_tokens.tolist() == [1, 4, 6]
    assert workload.skipped.bad == 4
    found = [int(problem.split("line ")[1].replace(",", " ").split()[0]) for problem in workload.skipped.problems]
    assert found == [3, 4, 5, 7]
    with pytest.warns(UserWarning, match="skipped 1 bad row:"):
        jsonl = load_trace(trace_file(lines(MOONCAKE) + "\noops\n" + lines(MOONCAKE)), skip_bad_rows=True)
    assert len(jsonl.sample(0)) == 2 and jsonl.skipped.bad == 1


def test_a_file_of_bad_rows_only(trace_file):
    with pytest.raises(ValueError, match="at least one request"):
        load_trace(trace_file("arrival,prompt_tokens,output_tokens\n0,0,1\n"), skip_bad_rows=True)
