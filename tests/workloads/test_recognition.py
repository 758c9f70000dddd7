"""Units, origins and block sizes of traces are recognised, or asked for; what was recognised is said."""

import json

import numpy as np
import pytest

from llmsched_env.workloads import load_tasks, load_trace

UNIX = 1_759_522_419.5
UNITS = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}


@pytest.fixture
def trace(tmp_path):
    def write(text, name="trace"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text if isinstance(text, str) else "\n".join(map(json.dumps, text)))
        return path

    return write


def row(timestamp, prompt=1024, ids=(), **more):
    return {"timestamp": timestamp, "input_length": prompt, "output_length": 5, "hash_ids": list(ids), **more}


def prompts(block, partial=0):
    """Three prompts of four, four and five blocks; the first two blocks are common."""
    return [(4 * block, [0, 1, 2, 3]), (4 * block - partial, [0, 1, 4, 5]), (5 * block - partial, [0, 1, 2, 3, 6])]


QWEN = [
    row(0.0, 64, [1, 2, 3, 4], chat_id=0, parent_chat_id=-1, type="text", turn=1),
    row(10.5, 60, [1, 2, 9, 10], chat_id=1, parent_chat_id=-1, type="search", turn=1),
    row(61.114, 130, [1, 2, 3, 4, 5, 6, 7, 8, 11], chat_id=2, parent_chat_id=0, type="text", turn=2),
    row(7200.0, 48, [1, 20, 21], chat_id=3, parent_chat_id=2, type="text", turn=3),
]


def test_qwen_bailian_has_seconds_blocks_of_16_and_sessions_from_parents(trace):
    workload = load_trace(trace(QWEN))
    table = workload.sample(0)
    assert workload.recognised == "Qwen-Bailian trace, seconds, blocks of 16"
    assert workload.recognised in repr(workload)
    assert table.arrival.tolist() == [0.0, 10.5, 61.114, 7200.0]
    assert table.shared_tokens.tolist() == [0, 32, 64, 16] and table.session.tolist() == [0, 1, 0, 0]
    tasks = load_tasks(trace(QWEN)).sample(0)
    assert tasks.num_tasks == 2 and tasks.delay[1] == pytest.approx(61.114)


def test_chats_that_are_their_own_ancestors_end_in_one_session(trace):
    rows = [{**one, "parent_chat_id": (one["chat_id"] + 1) % 4} for one in QWEN]
    assert len(set(load_trace(trace(rows)).sample(0).session.tolist())) == 1
    many = [row(float(k), 32, [k], chat_id=k, parent_chat_id=k + 1) for k in range(20_000)]
    assert set(load_trace(trace(many)).sample(0).session.tolist()) == {0}


@pytest.mark.parametrize("block", [16, 32, 64, 128, 256, 512, 1024])
@pytest.mark.parametrize("partial", [0, 3])
def test_block_size_follows_from_the_number_of_ids(trace, block, partial):
    rows = [row(1000 * k, prompt, ids) for k, (prompt, ids) in enumerate(prompts(block, partial))]
    workload = load_trace(trace(rows))
    assert workload.sample(0).shared_tokens.tolist() == [0, 2 * block, 4 * block - 0]
    assert workload.recognised == f"Mooncake trace, milliseconds, blocks of {block}"


def test_ids_of_full_blocks_only(trace):
    rows = [row(0, 70, [1, 2, 3, 4]), row(1000, 90, [1, 2, 3, 5, 6]), row(2000, 10, [])]
    workload = load_trace(trace(rows))
    assert workload.sample(0).shared_tokens.tolist() == [0, 48, 0] and "blocks of 16" in workload.recognised


def test_hashes_in_hexadecimal_digits_are_ids(trace):
    rows = [row(1000 * k, prompt, [f"{i:032x}" for i in ids]) for k, (prompt, ids) in enumerate(prompts(64))]
    assert load_trace(trace(rows)).sample(0).shared_tokens.tolist() == [0, 128, 256]


def test_a_block_size_that_cannot_be_told_is_asked_for(trace):
    path = trace([row(0, 1000, [1, 2, 3]), row(1000, 1000, [1, 2, 3, 4, 5, 6, 7])])
    with pytest.raises(ValueError, match=r"no size of blocks explains hash_ids.*block_tokens=16 \(--block-tokens 16\)"):
        load_trace(path)
    workload = load_trace(path, block_tokens=100)
    assert workload.sample(0).shared_tokens.tolist() == [0, 300] and "blocks of 100" in workload.recognised


@pytest.mark.parametrize(
    ("times", "expected", "said"),
    [
        ([0, 900, 27_000], [0.0, 0.9, 27.0], "milliseconds"),
        ([0.0, 0.25, 0.5], [0.0, 0.25, 0.5], "seconds"),  # 4000 requests/s otherwise
        ([0, 0, 0], [0.0, 0.0, 0.0], "milliseconds"),
        ([50_000_000, 50_000_900], [0.0, 0.9], "milliseconds, counted from the first"),
        *(
            (
                [int(UNIX) * int(per), (int(UNIX) + 1) * int(per), (int(UNIX) + 61) * int(per)],
                [0.0, 1.0, 61.0],
                f"Unix times in {word}",
            )
            for word, per in (("seconds", 1.0), ("milliseconds", 1e3), ("microseconds", 1e6), ("nanoseconds", 1e9))
        ),
    ],
)
def test_time_unit_of_rows_like_mooncakes(trace, times, expected, said):
    workload = load_trace(trace([row(time) for time in times]))
    assert workload.sample(0).arrival == pytest.approx(expected, abs=1e-6) and said in workload.recognised


@pytest.mark.parametrize("times", [[0.0, 10.5, 61.114], [0, 2, 5, 9], [0.5, 1000.25]])
def test_a_time_unit_that_cannot_be_told_is_asked_for(trace, times):
    path = trace([row(time) for time in times])
    with pytest.raises(ValueError, match=r"unit of timestamp cannot be recognised.*time_unit='ms' \(--time-unit ms\)"):
        load_trace(path)
    assert load_trace(path, time_unit="s").sample(0).arrival.tolist() == times
    assert load_trace(path, time_unit="ms").sample(0).arrival == pytest.approx(np.array(times) / 1e3)
    with pytest.raises(ValueError, match="time_unit must be one of"):
        load_trace(path, time_unit="sec")


def plain_csv(times):
    return "arrival,prompt_tokens,output_tokens\n" + "".join(f"{time},10,2\n" for time in times)


def plain_lines(times):
    return "\n".join(f'{{"arrival": {time}, "prompt_tokens": 10, "output_tokens": 2}}' for time in times)


def burstgpt(times):
    head = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
    return head + "".join(f"{time},GPT-4,10,2,12,API log\n" for time in times)


def vidur(times):
    return "arrived_at,num_prefill_tokens,num_decode_tokens\n" + "".join(f"{time},10,2\n" for time in times)


def agent_calls(times):
    rows = "".join(f"s,{time},10,2\n" for time in times)
    return "session_id,t_s,input_tokens,output_tokens\n" + rows


def azure(times):
    return "TIMESTAMP,ContextTokens,GeneratedTokens\n" + "".join(f"{time},10,2\n" for time in times)


def vllm_run(times):
    return "\n".join(f'{{"arrival_time": {time}, "input_toks": 10, "output_toks": 2}}' for time in times)


def kv_cache_tester(times):
    calls = ",".join(f'{{"t": {time}, "type": "n", "in": 10, "out": 2, "hash_ids": []}}' for time in times)
    return f'{{"block_size": 64, "requests": [{calls}]}}'


FORMATS = [plain_csv, plain_lines, burstgpt, vidur, agent_calls, azure, kv_cache_tester]


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("write", FORMATS, ids=lambda write: write.__name__)
def test_unix_times_count_from_the_first_in_every_format(trace, write, unit):
    per = UNITS[unit]
    texts = [f"{(UNIX + gap) * per:.3f}" if unit != "ns" else str(int((UNIX + gap) * per)) for gap in (0, 0.25, 60)]
    workload = load_trace(trace(write(texts)))
    assert workload.sample(0).arrival == pytest.approx([0.0, 0.25, 60.0], abs=1e-3 / per + 2e-6)
    assert workload.rate == pytest.approx(2 / 60, rel=1e-4)


@pytest.mark.parametrize("write", [plain_csv, plain_lines, burstgpt, vidur, vllm_run], ids=lambda write: write.__name__)
def test_times_of_another_clock_count_from_the_first(trace, write):
    workload = load_trace(trace(write([353_399.75, 353_400.0, 353_455.75])))
    assert workload.sample(0).arrival.tolist() == [0.0, 0.25, 56.0] and "counted from the first" in workload.recognised


def test_a_pause_before_the_first_request_stays(trace):
    assert load_trace(trace(plain_csv([5, 6, 8]))).sample(0).arrival.tolist() == [5.0, 6.0, 8.0]
    assert load_trace(trace(plain_csv([7000, 20_000]))).sample(0).arrival.tolist() == [7000.0, 20_000.0]


def test_the_caller_can_say_the_unit(trace):
    path = trace(plain_csv([500, 750, 1500]))
    assert load_trace(path).sample(0).arrival.tolist() == [500.0, 750.0, 1500.0]
    assert load_trace(path, time_unit="ms").sample(0).arrival.tolist() == [0.5, 0.75, 1.5]
    with pytest.raises(ValueError, match="block_tokens must be left out .* plain CSV leaves no choice"):
        load_trace(path, block_tokens=16)
    with pytest.raises(ValueError, match="time_unit must be left out .* Azure leaves no choice"):
        load_trace(trace(azure(["2024-05-10 00:00:00"])), time_unit="s")


@pytest.mark.parametrize("year", ["0001", "1677", "1899", "2151", "2262", "9999"])
def test_years_that_int64_nanoseconds_do_not_hold_are_refused(trace, year):
    with pytest.raises(
        ValueError, match=f"line 3, column TIMESTAMP must be a time in the years 1900 to 2150, got '{year}"
    ):
        load_trace(trace(azure(["2024-05-10 00:00:00", f"{year}-05-10 00:00:00.5"])))
    assert load_trace(trace(azure(["1900-01-01 00:00:00", "2150-12-31 23:59:59"]))).sample(0).arrival[
        1
    ] == pytest.approx(7_920_806_399)


def test_stamps_without_an_offset_are_utc_whatever_the_time_zone(trace, monkeypatch):
    """A local clock would repeat an hour in autumn."""
    import time

    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    event = {"event_type": "user_message", "timestamp": "2025-11-02T01:30:00"}
    rows = [
        {"session_id": "a", "input_tokens_total": 5, "output_tokens": 2, "timing_events": [event]},
        {
            "session_id": "a",
            "input_tokens_total": 5,
            "output_tokens": 2,
            "timing_events": [{**event, "timestamp": "2025-11-02T02:30:00"}],
        },
    ]
    try:
        assert load_trace(trace(rows)).sample(0).arrival.tolist() == [0.0, 3600.0]
    finally:
        monkeypatch.undo()
        time.tzset()


def test_windows_of_servegen_may_begin_at_a_unix_time(trace, tmp_path):
    laws = {str(int(UNIX) + 600 * k): {"input_tokens": "{10: 1.0}", "output_tokens": "{2: 1.0}"} for k in range(3)}
    windows = "".join(f"{int(UNIX) + 600 * k},0.5,1.0,Gamma,1.0,2.0\n" for k in range(3))
    trace(windows, "clients/chunk-1-trace.csv")
    trace(json.dumps(laws), "clients/chunk-1-dataset.json")
    workload = load_trace(tmp_path / "clients")
    assert workload.rate == pytest.approx(0.5) and workload.sample(0).arrival.max() < 1800
    assert "Unix times" in workload.recognised
