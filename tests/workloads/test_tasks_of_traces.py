"""Recorded sessions as tasks in a closed loop: graphs, delays, prefixes."""

import csv
import json

import numpy as np
import pytest

from llmsched_env.workloads import FixedTasks, Gamma, ReplayedTasks, SingleCalls, load_tasks, load_trace
from llmsched_env.workloads.formats.trace_calls import TraceCall, tasks_of

HEADER = "session_id,call_index,t_s,input_tokens,prefix_hit_tokens,output_tokens,wait_before_s,api_time_s\n"


def pairs(edges):
    return sorted(map(tuple, edges.tolist()))


def call(session, arrival, **changes):
    return TraceCall(arrival, 10, 5, session, **changes)


def test_sessions_go_on_after_what_they_set_to_work():
    calls = [
        call("b", 3.0),
        call("a", 1.0, served=2.0),
        call("a/1", 4.0, caller="a", served=1.0),
        call("a/1", 8.0, caller="a", served=2.0),
        call("a/2", 4.0, caller="a", served=3.0),
        call("a", 12.0, served=1.0),
        call("b", 5.5, wait=0.75),
        call("a", 20.0),
    ]
    table = tasks_of(calls)
    assert table.task.tolist() == [0, 0, 0, 0, 0, 0, 1, 1] and table.arrival.tolist() == [1.0, 3.0]
    assert pairs(table.edges) == [(0, 1), (0, 3), (0, 4), (1, 2), (2, 4), (3, 4), (4, 5), (6, 7)]
    # a/1 is at work from 4 to 10, so 3 of the 9 seconds after the first answer remain.
    assert table.delay.tolist() == [0.0, 0.0, 3.0, 0.0, 3.0, 7.0, 0.0, 0.75]
    assert table.calls.session.tolist() == [0, 1, 1, 2, 0, 0, 3, 3]


def test_sub_agents_of_sub_agents_are_waited_for():
    calls = [
        call("a", 0.0),
        call("b", 1.0, caller="a"),
        call("c", 2.0, caller="b"),
        call("c", 3.0, caller="b"),
        call("a", 9.0),
    ]
    assert pairs(tasks_of(calls).edges) == [(0, 1), (0, 4), (1, 2), (1, 4), (2, 3), (3, 4)]
    named_only = [call("b", 1.0, caller="a"), call(None, 1.0), call("x", 2.0, caller="y"), call("y", 3.0, caller="x")]
    table = tasks_of(named_only)  # callers that are not there or wait for each other
    assert table.task.tolist() == [0, 1, 2, 3] and not len(table.edges)


def test_kv_cache_tester_sessions_wait_for_their_sub_agents(shared):
    path = shared / "traces/agents/kv_cache_tester/trace_0277.json"
    source = load_tasks(path)
    table = source.sample(0)
    rows = json.loads(path.read_text())["requests"]
    assert isinstance(source, FixedTasks) and source.name == "trace_0277" and table.num_tasks == 1
    flat, place = [], {}
    for i, row in enumerate(rows):
        place[i] = len(flat)
        flat += row["requests"] if row["type"] == "subagent" else [row]
    assert table.calls.prompt_tokens.tolist() == [row["in"] for row in flat]
    assert table.calls.output_tokens.tolist() == [row["out"] for row in flat]
    # Rows 1 to 3 are sub-agents of row 0; row 4 waits for all.
    starts, ends = [place[i] for i in (1, 2, 3)], [place[i + 1] - 1 for i in (1, 2, 3)]
    edges = pairs(table.edges)
    assert [b for a, b in edges if a == 0] == [*starts, place[4]]
    assert [a for a, b in edges if b == place[4]] == [0, *ends]
    think = [row["think_time"] for row in flat]
    starts.append(place[10])
    alone = [i for i in range(len(flat)) if sum(b == i for _, b in edges) == 1 and i not in starts]
    assert table.delay[alone].tolist() == [think[i] for i in alone]
    longest = max(row["requests"][-1]["t"] + row["requests"][-1]["api_time"] for row in rows[1:4])
    assert table.delay[place[4]] == pytest.approx(209.0 - longest)
    assert (table.delay[starts] == 0).all()


def test_sub_agents_arrive_as_long_before_their_entry_as_they_took(shared):
    path = shared / "traces/agents/kv_cache_tester/trace_0277.json"
    rows = json.loads(path.read_text())["requests"]
    table = load_trace(path).sample(0)
    for row in (rows[i] for i in (1, 2, 3, 10)):
        start = row["t"] - row["duration_ms"] / 1000
        for inner in row["requests"]:
            assert np.isclose(table.arrival, start + inner["t"]).any()
    # All three are set to work by the end of the first call, 18.78 s after the start.
    assert [round(row["t"] - row["duration_ms"] / 1000 - 18.78, 1) for row in rows[1:4]] == [0.7, 0.7, 0.7]


def test_a_folder_of_sessions_at_a_rate(shared):
    path = shared / "traces/agents/kv_cache_tester"
    table = load_tasks(path).sample(0)
    assert table.num_tasks == 24 and (table.calls.arrival == 0).all()
    assert len(table) == len(load_trace(path).sample(0))
    # Prefixes are found within a session, as without tasks.
    assert table.calls.shared_tokens.sum() == load_trace(path).sample(0).shared_tokens.sum()
    shares = table.calls.parent >= 0
    assert np.array_equal(table.task[table.calls.parent[shares]], table.task[shares])
    source = load_tasks(path, rate=0.5, arrivals=Gamma(2.0))
    assert isinstance(source, ReplayedTasks) and source.rate == 0.5
    assert (np.diff(source.sample(0).arrival) > 0).all()
    assert not np.array_equal(source.sample(0).arrival, source.sample(1).arrival)


def test_agent_calls_have_the_graphs_of_the_sessions_they_come_from(shared):
    folder = shared / "traces/agents"
    rows = list(csv.DictReader((folder / "agent_calls_derived.csv").read_text().splitlines()))
    table = load_tasks(folder / "agent_calls_derived.csv").sample(0)
    names = {row["session_id"] for row in rows}
    assert table.num_tasks == len({name.partition("/")[0] for name in names}) < len(names)
    kept = [row for row in rows if row["output_tokens"] != "0"]
    assert len(table) == len(kept) and table.calls.prompt_tokens.sum() == sum(int(row["input_tokens"]) for row in kept)
    for name in ("trace_0277", "trace_0291"):
        recorded = load_tasks(folder / f"kv_cache_tester/{name}.json").sample(0)
        begin = [row["session_id"].partition("/")[0] for row in kept].index(name)
        begin = int(np.flatnonzero(table.task == table.task[_place(table, kept, begin)])[0])
        rows_here = slice(begin, begin + len(recorded))
        assert table.calls.prompt_tokens[rows_here].tolist() == recorded.calls.prompt_tokens.tolist()
        assert table.delay[rows_here] == pytest.approx(recorded.delay)
        mine = table.edges[(table.edges >= begin).all(axis=1) & (table.edges < begin + len(recorded)).all(axis=1)]
        assert pairs(mine - begin) == pairs(recorded.edges)


def _place(table, rows, i):
    """Where row i of the file stands in the table: sessions all begin at 0, so tasks keep the order of the file."""
    roots = [row["session_id"].partition("/")[0] for row in rows]
    order = sorted(range(len(rows)), key=lambda k: roots.index(roots[k]))
    return order.index(i)


def test_agent_calls_without_times_or_hits(tmp_path):
    path = tmp_path / "calls.csv"
    path.write_text(
        HEADER
        + "a,0,0,100,0,10,,2\na/x,0,0,50,0,5,0,1\na/x,1,4,60,48,5,3,1.5\na,1,9,140,96,10,7,\na,2,20,150,0,10,,1\n"
    )
    table = load_tasks(path).sample(0)
    assert pairs(table.edges) == [(0, 1), (0, 3), (1, 2), (2, 3), (3, 4)]
    # a/x takes 5.5 of the 7 s; the call after the one of unknown length comes 11 s after that one came.
    assert table.delay.tolist() == [0.0, 0.0, 3.0, 1.5, 11.0]
    assert table.calls.parent.tolist() == [-1, -1, 1, 0, -1]
    path.write_text(HEADER + "a,0,0,100,0,10,-1,2\n")
    with pytest.raises(ValueError, match=r"line 2, column wait_before_s must be a finite number >= 0 \(s\), got -1"):
        load_tasks(path)
    path.write_text("session_id,t_s,input_tokens,output_tokens\na,0,100,10\na,5,120,10\n")
    assert load_tasks(path).sample(0).delay.tolist() == [0.0, 5.0]


def test_dynamo_sub_agents_run_side_by_side(shared):
    table = load_tasks(shared / "traces/agents/dynamo_pi_request_trace.jsonl").sample(0)
    assert table.num_tasks == 2 and np.bincount(table.task).tolist() == [1, 16]
    degree = np.bincount(table.edges[:, 1], minlength=len(table))
    forks = np.bincount(table.edges[:, 0], minlength=len(table))
    assert degree.max() == 4 and forks.max() == 4  # the caller's next call, and two scouts and a reviewer
    assert table.hops().max() == 10
    assert table.delay[np.argmax(degree)] == pytest.approx(0.81, abs=0.01)  # 71.84 s, of which 71.03 by the longest


def test_tracelab_sessions_wait_for_tools_and_people(shared):
    table = load_tasks(shared / "traces/agents/tracelab_example_round_trace.jsonl").sample(0)
    assert table.num_tasks == 2 and len(table.edges) == len(table) - 2
    # Last events of the first rounds at 10:06:05.542 and 05:40:31.647, last results of tools at 06.704 and 50.938.
    assert table.delay[table.task == 0][:2] == pytest.approx([0.0, 1.162])
    assert table.delay[table.task == 1][:2] == pytest.approx([0.0, 19.291])


@pytest.mark.parametrize("name", ["mooncake/mooncake_trace_arxiv.lines0001-0600.jsonl", "servegen_deepseek_r1"])
def test_requests_without_sessions_are_tasks_of_one_call(shared, name):
    path = shared / "traces" / name
    source = load_tasks(path)
    table, requests = source.sample(0), load_trace(path).sample(0)
    assert isinstance(source, SingleCalls) and table.num_tasks == len(table) == len(requests)
    assert np.array_equal(table.calls.shared_tokens, requests.shared_tokens)
    assert load_tasks(path, rate=3.0).rate == pytest.approx(3.0)


def test_bad_arguments(tmp_path):
    path = tmp_path / "calls.csv"
    path.write_text(HEADER + "a,0,0,100,0,10,0,2\n")
    with pytest.raises(ValueError, match=r"rate must be a finite number > 0 \(tasks/s\), got 0"):
        load_tasks(path, rate=0)
    with pytest.raises(ValueError, match="rate must be a number .* where arrivals are to be drawn"):
        load_tasks(path, arrivals=Gamma(2.0))
    with pytest.raises(FileNotFoundError):
        load_tasks(tmp_path / "none.csv")
