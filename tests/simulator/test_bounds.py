"""No number that a scheduler hands to a primitive, and none that it declares wrongly, touches memory out of bounds."""

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import baselines
import llmsched_env as ls
from baselines import routers
from llmsched_env.simulator import pacing
from llmsched_env.simulator.memory import client_memory, engine_memory, params_of, request_memory
from llmsched_env.simulator.ordering import chunks_by_key
from llmsched_env.simulator.router import Router

ROOT = Path(__file__).resolve().parents[2]
ENGINE = ls.EngineConfig(ls.Staircase(c=0.01, a=0.03, b0=128), kv_blocks=64, token_budget=64)
WORKLOAD = ls.Workload.from_arrays([0.0] * 6, [40, 20, 5, 7, 300, 9], [5] * 6)

RANDOM_CALLS = """
from math import inf
import numpy as np
import llmsched_env as ls
from llmsched_env.simulator.memory import params_of
from llmsched_env.simulator.primitives import make_room, whole_prompts
from tests.simulator.test_bounds import ENGINE, WORKLOAD

PARAMS = {"token_budget": ls.Param(64, 1, 64), "call": ls.Param(0, 0, 99), "i": ls.Param(0, -inf, inf),
          "n": ls.Param(0, -inf, inf)}
params_in = params_of(PARAMS)

def compose(view):
    params = params_in(view)
    call, i, n, tokens = int(params.call), int(params.i), int(params.n), params.n
    order = np.array([i, n, 0, i, -1, 3])
    if call == 0: ls.take(view, i, n)
    if call == 1: ls.take(view, i, tokens)
    if call == 2: ls.preempt(view, i)
    if call == 3: ls.reject(view, i)
    if call == 4: ls.untake(view, i)
    if call == 5: ls.evict(view, i)
    if call == 6: ls.reserve(view, i, n)
    if call == 7: make_room(view, i, n)
    if call == 8: ls.chunk(view, i, n)
    if call == 9: ls.decodes(view, order)
    if call == 10: ls.chunks(view, order, n)
    if call == 11: ls.lower_token_limit(view, n)
    if call == 12: ls.step_seconds_with(view, i, n)
    if call == 13: ls.chunk_within(view, i, n, 1.0)
    if call == 14 and ls.memory_for_prompt(view, i) and ls.is_decoding(view, i): ls.take(view, i, ls.usable(view, i))
    if call == 15: ls.take(view, i, ls.prefill_left(view, i))
    ls.decodes(view, view.running)
    ls.chunks(view, view.running, ls.ALL)
    ls.chunks(view, view.waiting, ls.ALL)
    return inf

scheduler = ls.Scheduler("random_calls", compose, params=PARAMS)
rng = np.random.default_rng(0)
for k in range(200):
    i, n = (int(rng.choice([-1, 0, 3, 6, 7, 10**9, -10**9, 2**62, -2**62, int(rng.integers(-20, 20))])) for _ in "in")
    ls.simulate(scheduler(call=k % 16, i=i, n=n), WORKLOAD, ENGINE, horizon=60.0)
print("done")
"""


def run(source: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", source], cwd=ROOT, text=True, capture_output=True, check=False
    )


def test_random_numbers_in_all_primitives_of_compiled_code():
    call = run(RANDOM_CALLS)
    assert (call.returncode, call.stdout) == (0, "done\n"), call.stderr[-2000:]


def scheduler(first, **more):
    """Serves everyone after `first` has been called."""

    def compose(view):
        first(view)
        ls.decodes(view, view.running)
        ls.chunks(view, view.running, ls.ALL)
        ls.chunks(view, view.waiting, ls.ALL)
        return math.inf

    return ls.Scheduler("probe", compose, mixes_phases=True, chunks_prefill=True, **more)


NUMBERS = (-1, -2, 6, 10**9)


@pytest.mark.parametrize("i", NUMBERS)
def test_a_number_of_no_request_is_refused(i):
    def first(view):
        assert ls.take(view, i, 1) == ls.chunk(view, i, 9) == ls.prefill_left(view, i) == ls.usable(view, i) == 0
        for primitive in (ls.preempt, ls.evict, ls.reject, ls.is_decoding, ls.memory_for_prompt):
            assert not primitive(view, i)
        assert not ls.reserve(view, i, 4) and ls.untake(view, i) is None
        assert ls.step_seconds_with(view, i, 1) == math.inf and ls.chunk_within(view, i, 9, 1.0) == 0
        ls.decodes(view, np.array([i]))
        ls.chunks(view, np.array([i]), 9)
        assert view.batch.counts.num_seqs == 0

    result = ls.simulate(scheduler(first), WORKLOAD, ENGINE, interpreted=True)
    assert (result.requests.status == "finished").all()


def test_a_call_at_another_engine_is_not_taken_preempted_or_rejected():
    seen = []

    def first(view):
        if view.engine == 1:
            for i in np.flatnonzero(view.own.engine == 0):
                assert ls.take(view, i, 1) == 0 and not ls.preempt(view, i) and not ls.reject(view, i)
                seen.append(i)
            ls.decodes(view, np.flatnonzero(view.own.engine == 0))
            assert view.batch.counts.num_seqs == 0

    result = ls.simulate_network(
        scheduler(first), WORKLOAD, [ENGINE, ENGINE], routers.round_robin, interpreted=True, horizon=60.0
    )
    assert seen and (result.requests.status == "finished").all()


def test_tokens_that_are_no_whole_number_are_cut_to_one():
    def first(view):
        assert ls.take(view, 0, 0.5) == ls.take(view, 0, math.nan) == 0
        assert ls.take(view, 0, 2.9) == 2 and ls.take(view, 0, math.inf) > 2
        ls.untake(view, 0)

    ls.simulate(scheduler(first), WORKLOAD, ENGINE, interpreted=True, horizon=0.02)


ENGINE_NUMBERS, REQUEST_NUMBERS, CLIENT_NUMBERS = ("a", "b"), ("x", "y"), ("c",)
engine_in, of_request = engine_memory(ENGINE_NUMBERS), request_memory(REQUEST_NUMBERS)
of_client, params_in = client_memory(CLIENT_NUMBERS), params_of(("p", "q"))


def writes_engine_memory(view):
    engine_in(view).b = 1.0
    return math.inf


def writes_request_memory(view):
    of_request(view).y[0] = 1.0
    return math.inf


def writes_client_memory(view):
    of_client(view).c[0] = 1.0
    return math.inf


def reads_params(view):
    return math.inf if params_in(view).q > 0.0 else view.clock + 1.0


def orders_without_a_heap(view):
    chunks_by_key(view, view.req.arrival, 0.0)
    return math.inf


@pytest.mark.parametrize("interpreted", [False, True], ids=["compiled", "interpreted"])
@pytest.mark.parametrize(
    ("compose", "memory", "message"),
    [
        (writes_engine_memory, {"engine": ("a",)}, 'memory "engine" must be declared .* 2 numbers, a, b'),
        (writes_engine_memory, {}, 'memory "engine"'),
        (writes_request_memory, {"request": ("x",)}, 'memory "request" must be declared .* 2 numbers, x, y'),
        (writes_client_memory, {}, 'memory "client"'),
        (reads_params, {}, "parameters must be declared .* p, q"),
        (orders_without_a_heap, {}, 'memory "heap" must be declared'),
    ],
)
def test_memory_that_is_not_declared_is_refused(compose, memory, message, interpreted):
    wrong = ls.Scheduler("forgetful", compose, params={"p": ls.Param(1, 0, 9)}, memory=memory)
    with pytest.raises(ValueError, match=message):
        ls.simulate(wrong, WORKLOAD, ENGINE, interpreted=interpreted)


def reads_beyond(view):
    return view.req.arrival[10**9]


def test_a_plain_function_that_is_compiled_checks_its_indices():
    with pytest.raises(IndexError):
        ls.simulate(ls.Scheduler("beyond", reads_beyond), WORKLOAD, ENGINE)


def naps(view):
    return np.nextafter(view.clock, math.inf)


def test_a_scheduler_that_never_lets_time_pass_is_stopped_with_its_name():
    with pytest.raises(ValueError, match="scheduler 'naps' .* time hardly moves"):
        ls.simulate(ls.Scheduler("naps", naps), WORKLOAD, ENGINE)
    with pytest.raises(ValueError, match="scheduler 'naps' .* time hardly moves"):
        ls.simulate_network(ls.Scheduler("naps", naps), WORKLOAD, [ENGINE], routers.round_robin)


def never_returns(view):
    k = 0.0
    while k >= 0.0:
        k = (k + 1.0) % 7.0
    return k


def test_a_scheduler_that_never_returns_is_stopped_with_its_name(monkeypatch):
    monkeypatch.setattr(pacing, "SECONDS_TO_RETURN", 0.5)
    with pytest.raises(ValueError, match="scheduler 'asleep' has been asked at 0 s and has not returned"):
        ls.simulate(ls.Scheduler("asleep", never_returns), WORKLOAD, ENGINE)


@pytest.mark.parametrize("g", [-1, 2, 10**9, -(2**62)])
@pytest.mark.parametrize("interpreted", [False, True], ids=["compiled", "interpreted"])
def test_a_router_that_names_no_engine_is_refused(g, interpreted):
    astray = Router("astray", lambda fleet, i: g)
    with pytest.raises(ValueError, match="router 'astray' must send a call to one of the engines 0, 1, got"):
        ls.simulate_network(baselines.sarathi, WORKLOAD, [ENGINE, ENGINE], astray, interpreted=interpreted)


def test_a_long_run_goes_on_after_its_pauses(monkeypatch):
    whole = ls.simulate(baselines.sarathi, WORKLOAD, ENGINE, record="entries")
    monkeypatch.setattr(pacing, "_FIRST_SLICE", 1)
    monkeypatch.setattr(pacing, "_SLICE_SECONDS", 0.0)
    paused = ls.simulate(baselines.sarathi, WORKLOAD, ENGINE, record="entries")
    assert paused.requests.tobytes() == whole.requests.tobytes()
    assert paused.batch_entries.tobytes() == whole.batch_entries.tobytes()


def writes(what):
    def compose(view):
        ls.chunks(view, view.running, ls.ALL)
        ls.chunks(view, view.waiting, ls.ALL)
        exec(what, {"view": view})
        return math.inf

    return ls.Scheduler("probe", compose)


@pytest.mark.parametrize(
    ("what", "named"),
    [
        ("view.req.prompt_tokens[0] = 1", "view.req.prompt_tokens"),
        ("view.req.computed[view.running] += 1", "view.req.computed"),
        ("view.req.scheduled[0] = 3", "view.req.scheduled"),
        ("view.req.phase[2] = 2", "view.req.phase"),
        ("view.batch.counts.seq_limit += 1", "a limit in view.batch.counts"),
        ("view.batch.counts.num_seqs = 10**6", "view.batch.counts.num_seqs"),
        ("view.kv.free += 1", "view.kv.free"),
        ("view.waiting[::-1].sort()", "view.waiting"),
        ("view.totals.finished += 1", "view.totals"),
    ],
)
def test_debug_names_what_a_scheduler_wrote_and_may_not(what, named):
    with pytest.raises(ValueError, match="scheduler 'probe' must write only its own memory.*" + named):
        ls.simulate(writes(what), WORKLOAD, ENGINE, debug=True)


@pytest.mark.parametrize("name", ["sarathi", "vllm_v1"])
def test_debug_gives_the_rows_of_any_run(name):
    rule = baselines.get(name)
    plain = ls.simulate(rule, WORKLOAD, ENGINE)
    assert ls.simulate(rule, WORKLOAD, ENGINE, debug=True).requests.tobytes() == plain.requests.tobytes()


def out_of_bounds(view):
    view.mem.engine[3] = 1.0
    return math.inf


def test_debug_checks_indices_of_compiled_code():
    from llmsched_env.compiled import compiled

    wrong = ls.Scheduler("writes_beyond", compiled(out_of_bounds), memory={"engine": ("a",)})
    with pytest.raises(IndexError):
        ls.simulate(wrong, WORKLOAD, ENGINE, debug=True)
