"""Small runs worked out by hand: when tokens appear, what counts as in the system, where a run stops."""

import math

import numpy as np
import pytest

import baselines
import llmsched_env as ls

NAN = math.nan
SECOND = ls.Staircase(c=0.5, a=0.5, b0=10**6)  # every batch takes 1 s
CONVENTIONS = pytest.mark.parametrize("first_token", ["with_prefill", "separate"])
FOUR = pytest.mark.parametrize("name", ["fastertransformer", "vllm_prefill_first", "orca", "sarathi"])


def simulate(arrival, prompt, output, scheduler=baselines.sarathi, horizon=None, **limits):
    workload = ls.Workload.from_arrays(arrival, prompt, output)
    return ls.simulate(scheduler, workload, ls.EngineConfig(SECOND, **limits), horizon=horizon, record="entries")


@FOUR
@pytest.mark.parametrize(
    ("first_token", "work", "first", "finish"),
    [("with_prefill", [4, 4], 1.0, 3.0), ("separate", [4, 5], 2.0, 4.0)],
)
def test_one_request_of_4_and_3_tokens(name, first_token, work, first, finish):
    result = simulate([0.0], [4], [3], baselines.get(name), first_token=first_token)
    row, batches = result.requests[0], result.batches
    assert (row.first_scheduled, row.first_token, row.finish) == (0.0, first, finish)
    assert (row.status, row.generated, row.preemptions, row.recomputed) == ("finished", 3, 0, 0)
    # Work is s + o - 1 or s + o tokens; in the KV cache are s + g - 1 or s + g after the g-th output token.
    separate = first_token == "separate"
    assert row.computed == 4 + 3 - 1 + separate
    assert batches.backlog.tolist() == ([7, 3, 2, 1] if separate else [6, 2, 1])
    assert batches.prefill_tokens.tolist() == [4, 0, 0, 0][: len(batches)]
    assert batches.decode_tokens.tolist() == [0, 1, 1, 1][: len(batches)]
    assert result.token_gaps.tolist() == [[first + 1, 1.0, 1.0], [first + 2, 1.0, 1.0]]
    assert (result.end, result.stalled, result.drained) == (finish, False, True)


@CONVENTIONS
def test_memory_after_each_output_token(first_token):
    """With blocks of one token, the blocks in use are the tokens in the KV cache, those of the batch included."""
    result = simulate([0.0], [4], [3], first_token=first_token, token_budget=3, block_size=1)
    # prompt in 3 + 1 tokens, then s + g - 1 (with_prefill: g = 2, 3) or s + g (separate: g = 1, 2, 3)
    assert result.batches.kv_blocks_used.tolist() == [3, 4, 5, 6, 7][: 4 + (first_token == "separate")]
    result = simulate([0.0], [4], [3], first_token=first_token, token_budget=3, block_size=4)
    assert result.batches.kv_blocks_used.tolist() == [1, 1, 2, 2, 2][: 4 + (first_token == "separate")]


@CONVENTIONS
def test_one_output_token(first_token):
    separate = first_token == "separate"
    row = simulate([2.0], [4], [1], first_token=first_token).requests[0]
    assert (row.first_token, row.finish) == ((4.0, 4.0) if separate else (3.0, 3.0))
    assert row.computed == 4 + separate


@FOUR
def test_an_arrival_at_a_batch_start_is_in_it_and_one_inside_waits(name):
    result = simulate([0.0, 0.5, 1.0, 1.0 + 2**-40], [1, 1, 1, 1], [1, 1, 1, 1], baselines.get(name))
    assert result.batch_entries.tolist() == [(0, 0, 1, True), (1, 1, 1, True), (1, 2, 1, True), (2, 3, 1, True)]
    assert result.batches.start.tolist() == [0.0, 1.0, 2.0]
    assert result.batches.num_in_system.tolist() == [1, 2, 1]


def test_an_idle_engine_starts_at_the_arrival():
    result = simulate([0.25, 7.5], [3, 3], [1, 1])
    assert result.batches.start.tolist() == [0.25, 7.5]
    assert result.requests.finish.tolist() == [1.25, 8.5]


def test_the_next_batch_starts_when_the_last_one_ends():
    result = simulate([0.25], [1], [4])
    assert result.batches.start.tolist() == [0.25, 1.25, 2.25, 3.25]


# Two requests of 2 + 3 tokens at 0 and 1.5 s, batches of 1 s; with_prefill: 4 tokens of work each.
#   batch at 0: prompt of 0; at 1: 0; at 2: 0 and prompt of 1; at 3: 1; at 4: 1; end at 5.
HORIZONS = [  # horizon, batches, arrived, generated, computed, number in system, backlog
    (0.5, 0, 1, [0], [0], 1, 4),
    (1.0, 1, 1, [1], [2], 1, 2),  # a batch that ends exactly there is applied
    (1.25, 1, 1, [1], [2], 1, 2),
    (1.5, 1, 2, [1, 0], [2, 0], 2, 6),  # an arrival exactly there has a row
    (2.0, 2, 2, [2, 0], [3, 0], 2, 5),
    (2.999, 2, 2, [2, 0], [3, 0], 2, 5),  # a batch running there is not applied
    (3.0, 3, 2, [3, 1], [4, 2], 1, 2),
    (4.5, 4, 2, [3, 2], [4, 3], 1, 1),
    (5.0, 5, 2, [3, 3], [4, 4], 0, 0),
    (9.0, 5, 2, [3, 3], [4, 4], 0, 0),
]


@pytest.mark.parametrize("name", ["orca", "sarathi"])
@pytest.mark.parametrize(("horizon", "batches", "arrived", "generated", "computed", "present", "backlog"), HORIZONS)
def test_where_the_clock_stops(name, horizon, batches, arrived, generated, computed, present, backlog):
    result = simulate([0.0, 1.5], [2, 2], [3, 3], baselines.get(name), horizon=horizon)
    assert (result.end, result.stalled) == (horizon, False)
    assert (len(result.batches), len(result.requests)) == (batches, arrived)
    assert result.requests.generated.tolist() == generated
    assert result.requests.computed.tolist() == computed
    assert (result.number_in_system(horizon), result.backlog(horizon)) == (present, backlog)
    assert np.array_equal(result.requests.status == "finished", np.array(generated) == 3)
    assert np.array_equal(np.isnan(result.requests.finish), np.array(generated) < 3)
    assert len(result.batch_entries) == result.batches.num_seqs.sum()
    assert result.token_gaps[:, 2].sum() == sum(max(0, g - 1) for g in generated)


def test_number_and_backlog_between_the_events():
    result = simulate([0.0, 1.5], [2, 2], [3, 3])
    times = np.array([0.0, 0.999, 1.0, 1.499, 1.5, 2.0, 2.5, 3.0, 4.0, 4.999, 5.0, 99.0])
    assert result.backlog(times).tolist() == [4, 4, 2, 2, 6, 5, 5, 2, 1, 1, 0, 0]
    assert result.number_in_system(times).tolist() == [1, 1, 1, 1, 2, 2, 2, 1, 1, 1, 0, 0]


def test_a_horizon_before_the_first_arrival():
    result = simulate([3.0], [2], [3], horizon=2.0)
    assert (len(result.requests), len(result.batches), len(result.batch_entries)) == (0, 0, 0)
    assert (result.end, result.stalled, result.number_in_system(2.0), result.backlog(2.0)) == (2.0, False, 0, 0)


@pytest.mark.parametrize(
    ("name", "seats"),
    [
        ("fastertransformer", [2, 2, 1, 1]),
        ("vllm_prefill_first", [2, 1, 2, 1]),
        ("orca", [2, 2, 2]),
        ("sarathi", [2, 2, 1, 1]),
    ],
)
def test_a_seat_limit_of_the_engine(name, seats):
    # Three prompts of one token and two output tokens each.
    result = simulate([0.0] * 3, [1] * 3, [2] * 3, baselines.get(name), max_num_seqs=2)
    assert result.batches.num_seqs.tolist() == seats and result.drained


def test_the_lower_of_two_limits_applies():
    for own, engine in ((3, 7), (7, 3)):
        result = simulate([0.0], [9], [1], baselines.sarathi(token_budget=own), token_budget=engine)
        assert result.batches.prefill_tokens.tolist() == [3, 3, 3]
        result = simulate([0.0] * 9, [1] * 9, [1] * 9, baselines.sarathi(max_num_seqs=own), max_num_seqs=engine)
        assert result.batches.num_seqs.tolist() == [3, 3, 3]


def test_equal_gaps_of_a_batch_share_a_row():
    result = simulate([0.0, 0.0, 0.5], [1, 1, 1], [3, 3, 2])
    # Request 2 is prefilled in the batch at 1 s and gets its second token at 3 s.
    assert result.token_gaps.tolist() == [[2.0, 1.0, 2.0], [3.0, 1.0, 3.0]]


def test_how_much_is_recorded():
    workload, engine = ls.Workload.from_arrays([0.0], [4], [3]), ls.EngineConfig(SECOND)
    full = ls.simulate(baselines.sarathi, workload, engine, record="entries")
    for record, batches, entries in (("requests", False, False), ("batches", True, False), ("entries", True, True)):
        result = ls.simulate(baselines.sarathi, workload, engine, record=record)
        assert (result.batches is not None, result.batch_entries is not None) == (batches, entries)
        assert result.requests.tobytes() == full.requests.tobytes()
        assert result.token_gaps.tobytes() == full.token_gaps.tobytes()
        assert not batches or result.batches.tobytes() == full.batches.tobytes()


def test_a_result_says_what_was_run():
    workload = ls.Workload.poisson(rate=2.0, prompt_tokens=3, output_tokens=2, horizon=5.0)
    engine = ls.EngineConfig(SECOND, token_budget=8)
    result = ls.simulate(baselines.orca, workload, engine, seed=4)
    assert (result.scheduler, result.workload, result.seed, result.engine) == ("orca", "poisson", 4, engine)
    # Batches of 8 tokens a second, 4 tokens a request.
    assert (result.capacity, result.load) == (pytest.approx(2.0), pytest.approx(1.0))
    assert math.isnan(ls.simulate(baselines.orca, ls.Workload.from_arrays([0.0], [1], [1]), engine).load)
