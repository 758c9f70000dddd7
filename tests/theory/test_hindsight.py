"""The hindsight optimum: by hand, against every start that there is, and against every scheduler."""

import functools
import itertools
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import baselines
import llmsched_env as ls
from llmsched_env.theory import SlottedRequests, hindsight_optimum, lp_bound, volume_bound
from tests.simulator.cases import modest

BATCH = ls.Staircase(c=1.0, a=0.0, b0=1)


def slotted(requests, memory):
    """From (arrival, prompt, output) each."""
    return SlottedRequests(*np.array(requests).T, memory)


def simulated(scheduler, table, memory, **engine):
    machine = ls.EngineConfig(BATCH, kv_blocks=memory, block_size=1, **engine)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* stalled at ", RuntimeWarning)
        result = ls.simulate(
            modest(scheduler, 8), ls.Workload.from_table(table, "small"), machine, horizon=1e4, record="requests"
        )
    return result.requests


def ordered(key):
    """Whole prompts in order of the key while they fit for good; what runs decodes."""

    def compose(view):
        ls.decodes(view, view.running)
        req, running = view.req, view.running
        for i in sorted(view.waiting, key=lambda i: (key(req, i), i)):
            chosen = [*running, *view.batch.requests[: view.batch.counts.num_seqs]]
            if not fits(req, {int(k) for k in chosen} | {int(i)}, int(view.kv.total)):
                break
            ls.take(view, i, int(req.prompt_tokens[i]))
        return np.inf

    return ls.Scheduler("ordered", compose, mixes_phases=True, needs_lengths="true")


def fits(req, requests, memory):
    """Whether the memory lasts until all of them have ended, if each goes on without a pause."""
    left = {i: int(req.known_output[i] - req.generated[i]) for i in requests}
    holds = {i: int(req.prompt_tokens[i] + req.generated[i]) for i in requests}
    return all(sum(holds[i] + step for i in requests if left[i] > step) <= memory for step in range(max(left.values())))


def all_starts(requests):
    """Least total latency over all starts up to one request after the other."""
    last = int(requests.arrival.max() + requests.output.sum())
    best = np.inf
    for starts in itertools.product(
        *(range(a, last - o + 1) for a, o in zip(requests.arrival, requests.output, strict=True))
    ):
        total = requests.total_latency(starts)
        if total < best and requests.held(starts).max() <= requests.memory:
            best = total
    return best


def test_what_a_schedule_holds_and_takes():
    requests = slotted([(0, 2, 3), (1, 1, 2)], 10)
    assert requests.held([0, 1]).tolist() == [3, 4 + 2, 5 + 3]
    assert requests.held([1, 4]).tolist() == [0, 3, 4, 5, 2, 3]
    assert requests.total_latency([1, 4]) == (4 - 0) + (6 - 1)


@settings(max_examples=40, deadline=None)
@given(
    requests=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(1, 4)), min_size=1, max_size=4),
    spare=st.integers(0, 5),
)
def test_no_starts_are_better_and_the_bounds_are_below(requests, spare):
    instance = slotted(requests, max(s + o for _, s, o in requests) + spare)
    found = hindsight_optimum(instance)
    assert found.optimal
    assert found.total_latency == instance.total_latency(found.starts) == all_starts(instance)
    assert (found.starts >= instance.arrival).all() and instance.held(found.starts).max() <= instance.memory
    assert volume_bound(instance) <= found.total_latency + 1e-9
    assert lp_bound(instance) <= found.total_latency + 1e-6


# Memory 6. A, C and D hold 1 and 2 tokens, B holds 6: it runs alone. In hindsight A, C, D run side by side and end
# after 2 rounds, B after 3: 9 in all, and B first makes 1 + 3 * 3 = 10. Shortest first does that. First come first
# served ends A after 2, B after 3, C and D after 5: 15.
BY_HAND = slotted([(0, 0, 2), (0, 5, 1), (0, 0, 2), (0, 0, 2)], 6)


def test_first_come_first_served_and_shortest_first_are_both_worse():
    best = hindsight_optimum(BY_HAND)
    assert (best.total_latency, best.optimal, best.gap, best.mean_latency) == (9, True, 0.0, 2.25)
    assert best.starts.tolist() == [0, 2, 0, 0]
    # Volumes 3, 3, 3, 6 at 6 tokens a round: (3 + 6 + 9 + 15)/6 = 5.5, less than the 7 rounds of output.
    assert volume_bound(BY_HAND) == 7.0
    assert 7.0 <= lp_bound(BY_HAND) <= 9.0
    table = ls.RequestTable.from_columns(BY_HAND.arrival, BY_HAND.prompt + 1, BY_HAND.output)
    engine = ls.EngineConfig(BATCH, kv_blocks=6, block_size=1)
    again = SlottedRequests.from_table(table, engine)
    assert (again.prompt.tolist(), again.output.tolist(), again.memory) == ([0, 5, 0, 0], [2, 1, 2, 2], 6)
    for key, total in ((lambda req, i: req.arrival[i], 15), (lambda req, i: req.known_output[i], 10)):
        rows = simulated(ordered(key), table, 6)
        assert np.sum(rows.finish - rows.arrival) == total


def test_volume_with_arrivals_over_time_is_that_of_srpt():
    # Volumes 10 and 3, memory 10: the second comes when half of the first is done, and goes first.
    instance = slotted([(0, 9, 1), (0, 0, 1)], 10)
    assert volume_bound(instance) == 2.0  # two rounds of output, more than (1 + 11)/10
    late = slotted([(0, 0, 4), (2, 4, 1), (50, 1, 2)], 5)
    # 10/5 = 2 and 5/5 = 1 and 5/5 = 1 after one another; 7 rounds of output are more.
    assert volume_bound(late) == 7.0
    tight = slotted([(0, 0, 5), (0, 0, 5), (0, 0, 5)], 5)
    assert volume_bound(tight) == 3 + 6 + 9


@pytest.mark.parametrize("first_token", ["with_prefill", "separate"])
def test_the_program_holds_what_the_engine_holds(first_token):
    table = ls.RequestTable.from_columns([0.0, 1.0, 1.0], [3, 1, 2], [4, 2, 1])
    engine = ls.EngineConfig(BATCH, kv_blocks=100, block_size=1, first_token=first_token)
    result = ls.simulate(baselines.sarathi, ls.Workload.from_table(table, "three"), engine)
    program = SlottedRequests.from_table(table, engine)
    assert program.held([0, 1, 1]).tolist() == result.batches.kv_blocks_used.tolist()
    assert program.total_latency([0, 1, 1]) == np.sum(result.requests.finish - result.requests.arrival)


@functools.cache
def instance(number, most_requests, memory, longest):
    """Requests, and the tokens of memory, of an engine; half of the instances have all arrivals at 0."""
    rng = np.random.default_rng([number, most_requests, memory])
    n = 2 + number % (most_requests - 1)
    arrival = np.sort(rng.integers(0, 2 * longest, n)) if number % 2 else np.zeros(n)
    prompt, output = rng.integers(1, memory // 2 + 1, n), rng.integers(1, longest + 1, n)
    table = ls.RequestTable.from_columns(arrival, prompt, output, predicted_output=output.astype(float))
    slots = int(rng.integers(np.max(prompt + output - 1), memory + 1))
    engine = ls.EngineConfig(BATCH, kv_blocks=slots, block_size=1)
    found = hindsight_optimum(SlottedRequests.from_table(table, engine))
    assert found.optimal, "the solver did not prove it"
    return table, slots, found


def check_never_better(scheduler, instances):
    compared = 0
    for table, memory, best in instances:
        rows = simulated(scheduler, table, memory)
        if rows.preemptions.sum() == 0 and (rows.status == "finished").all():
            compared += 1
            assert np.sum(rows.finish - rows.arrival) >= best.total_latency - 1e-9, (table, memory, best)
    assert compared > 0


SCHEDULERS = pytest.mark.parametrize("scheduler", baselines.REGISTRY.values(), ids=baselines.REGISTRY)


@SCHEDULERS
def test_no_scheduler_that_preempts_nobody_is_better(scheduler):
    check_never_better(scheduler, [instance(k, 10, 8, 4) for k in range(18)])


@pytest.mark.slow
@SCHEDULERS
def test_no_scheduler_is_better_with_longer_outputs(scheduler):
    check_never_better(scheduler, [instance(k, 10, 12, 5) for k in range(90)])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (([0.5], [1], [1], 4), r"arrival\[0\] must be an integer >= 0, got 0.5"),
        (([0], [-1], [1], 4), r"prompt\[0\] must be an integer >= 0, got -1"),
        (([0, 0], [1, 1], [1, 0], 4), r"output\[1\] must be an integer >= 1, got 0"),
        (([0, 0], [1], [1, 1], 4), "prompt must have 2 values, got 1"),
        (([0], [1], [1], 0), "memory must be"),
        (([0, 0], [1, 3], [1, 2], 4), r"request 1 holds prompt \+ output = 3 \+ 2 .* <= memory = 4"),
        (([[0]], [1], [1], 4), "arrival must be a one-dimensional array"),
    ],
)
def test_bad_requests_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        SlottedRequests(*map(np.array, fields[:3]), fields[3])


@pytest.mark.parametrize(
    ("engine", "arrival", "message"),
    [
        ({}, 0.0, "kv_blocks must be a number"),
        ({"kv_blocks": 9, "block_size": 2}, 0.0, "block_size"),
        ({"kv_blocks": 9, "prefix_caching": True}, 0.0, "prefix caching"),
        ({"kv_blocks": 9, "batch_time": ls.Staircase(1.0, 1.0, 4)}, 0.0, "batch_time must be the same"),
        ({"kv_blocks": 9, "host_overhead": (0.0, 1.0)}, 0.0, "batch_time must be the same"),
        ({"kv_blocks": 9}, 0.5, "arrival must be at multiples"),
        ({"kv_blocks": 3}, 0.0, "request 0 holds"),
    ],
)
def test_engines_that_the_program_is_not_about_are_refused(engine, arrival, message):
    table = ls.RequestTable.from_columns([arrival], [2], [3])
    machine = ls.EngineConfig(**{"batch_time": BATCH, "block_size": 1, **engine})
    with pytest.raises(ValueError, match=message):
        SlottedRequests.from_table(table, machine)


def test_nothing_to_schedule_takes_no_time():
    nobody = SlottedRequests(*np.zeros((3, 0), np.int64), 5)
    assert hindsight_optimum(nobody).total_latency == lp_bound(nobody) == volume_bound(nobody) == 0


def test_out_of_time_it_says_how_far_it_may_be():
    rng = np.random.default_rng(0)
    prompt = rng.integers(1, 6, 14)
    found = hindsight_optimum(SlottedRequests(np.zeros(14), prompt, rng.integers(1, 36 - prompt), 35), time_limit=0.1)
    assert found.bound < found.total_latency and not found.optimal
    assert found.gap == 1 - found.bound / found.total_latency
