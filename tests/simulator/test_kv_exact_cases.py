"""Small runs worked out by hand: batches decided ahead, prefixes, swapping, timeouts, watermarks, reservations."""

import dataclasses
import math

import pytest

import baselines
import llmsched_env as ls
from llmsched_env import testing

SECOND = ls.Staircase(c=0.5, a=0.5, b0=10**6)  # every batch takes 1 s


def simulate(scheduler, arrival, prompt, output, horizon=None, engine=None, **columns):
    """Blocks of one token unless `engine` says otherwise."""
    workload = ls.Workload.from_arrays(arrival, prompt, output, **columns)
    machine = ls.EngineConfig(SECOND, **{"block_size": 1, **(engine or {})})
    result = ls.simulate(scheduler, workload, machine, horizon=horizon, record="entries")
    assert testing.check_run(result, scheduler) == []
    return result


def entries(result):
    """(request, tokens, tokens in the KV cache before) of each batch."""
    batches = [[] for _ in result.batches]
    for entry, context in zip(result.batch_entries, result.entry_contexts, strict=True):
        batches[entry.batch].append((int(entry.request), int(entry.tokens), int(context)))
    return batches


AHEAD = {"schedule_ahead": 1}


@pytest.mark.parametrize("scheduler", [baselines.vllm_v1, baselines.sarathi])
def test_a_batch_is_decided_as_the_one_before_it_starts(scheduler):
    # Request 1 arrives at 0.5 s, when the batch at 1 s has been decided: it comes into the one at 2 s.
    result = simulate(scheduler, [0.0, 0.5], [2, 3], [3, 2], engine=AHEAD)
    assert entries(result) == [[(0, 2, 0)], [(0, 1, 2)], [(0, 1, 3), (1, 3, 0)], [(1, 1, 3)]]
    assert result.batches.start.tolist() == [0.0, 1.0, 2.0, 3.0]
    assert result.batches.decided.tolist() == [0.0, 0.0, 1.0, 2.0]
    rows = result.requests
    assert rows.first_scheduled.tolist() == [0.0, 2.0]
    assert rows.first_token.tolist() == [1.0, 3.0] and rows.finish.tolist() == [3.0, 4.0]
    assert result.batches.backlog.tolist() == [4, 2 + 4, 1 + 4, 1]
    assert result.batches.num_in_system.tolist() == [1, 2, 2, 1]
    assert result.batches.num_running.tolist() == [1, 1, 2, 2]  # at the decision, when 0 waits for its last token
    without = simulate(scheduler, [0.0, 0.5], [2, 3], [3, 2])
    assert entries(without) == [[(0, 2, 0)], [(0, 1, 2), (1, 3, 0)], [(0, 1, 3), (1, 1, 3)]]
    assert without.batches.decided.tolist() == without.batches.start.tolist() == [0.0, 1.0, 2.0]


def test_an_idle_engine_decides_at_the_arrival_and_ahead_of_nothing():
    result = simulate(baselines.vllm_v1, [0.25, 7.5], [3, 3], [1, 1], engine=AHEAD)
    assert result.batches.start.tolist() == result.batches.decided.tolist() == [0.25, 7.5]


def test_a_token_under_way_is_not_lost_with_the_memory_of_its_request():
    # At 0 s, with its prompt under way, 1 finds no block for its first decode. Its first token appears all the same,
    # and is computed again with the prompt as soon as there is memory.
    result = simulate(baselines.vllm_v1, [0, 0], [2, 2], [2, 2], engine={**AHEAD, "kv_blocks": 5})
    assert entries(result) == [[(0, 2, 0), (1, 2, 0)], [(0, 1, 2)], [(1, 3, 0)]]
    batches, row = result.batches, result.requests[1]
    assert batches.decided.tolist() == [0.0, 0.0, 2.0]
    assert batches.kv_blocks_used.tolist() == [4, 3, 3]
    assert (batches.preemptions.tolist(), batches.recomputed.tolist()) == ([0, 1, 0], [0, 2, 0])
    assert batches.backlog.tolist() == [6, 1 + 3, 3]
    assert (row.first_token, row.finish, row.generated, row.computed, row.recomputed) == (1.0, 3.0, 2, 3, 2)


def test_who_is_preempted_with_the_last_token_under_way_finishes_while_waiting():
    result = simulate(baselines.vllm_v1, [0, 0], [2, 2], [2, 1], engine={**AHEAD, "kv_blocks": 4})
    assert entries(result) == [[(0, 2, 0), (1, 2, 0)], [(0, 1, 2)]]
    row = result.requests[1]
    assert (row.status, row.finish, row.generated, row.computed, row.recomputed) == ("finished", 1.0, 1, 0, 2)
    assert result.batches.backlog.tolist() == [3 + 2, 1]  # nothing is left of request 1
    assert result.backlog([0.5, 1.0, 2.0]).tolist() == [5, 1, 0]


def test_what_is_under_way_at_the_end_counts_for_nothing():
    """The same, with a client that hangs up at 0.5 s, stopped within the first batch."""
    columns = {"horizon": 0.75, "timeout": [math.inf, 0.5]}
    result = simulate(baselines.vllm_v1, [0, 0], [2, 2], [2, 2], engine={**AHEAD, "kv_blocks": 5}, **columns)
    rows = result.requests
    assert rows.status.tolist() == ["active", "abandoned"]
    assert rows.computed.tolist() == rows.recomputed.tolist() == rows.generated.tolist() == [0, 0]
    assert (len(result.batches), result.backlog(0.75)) == (0, 3)


CACHING = {"prefix_caching": True, "block_size": 2, "kv_blocks": 20}


@pytest.mark.parametrize("scheduler", [baselines.vllm_v1, baselines.sarathi, baselines.orca, baselines.sglang])
def test_children_find_the_full_blocks_of_a_finished_parent(scheduler):
    # 4 + 3 tokens leave 6 in memory: three blocks. Of 7 shared tokens they cover 6, of 5 the first 4; a prompt of 6
    # that is shared whole has its last token computed, so that only 4 are found.
    result = simulate(
        scheduler(max_new_tokens=1) if scheduler is baselines.sglang else scheduler,
        [0, 10, 10, 20], [4, 9, 6, 6], [3, 1, 1, 1], parent=[-1, 0, 0, 0], shared_tokens=[0, 7, 5, 6], engine=CACHING,
    )  # fmt: skip
    assert entries(result)[3:] == [[(1, 3, 6), (2, 2, 4)], [(3, 2, 4)]]
    batches = result.batches
    assert batches.prefix_hit.tolist() == [0, 0, 0, 10, 4]
    assert batches.prefill_tokens.tolist() == [4, 0, 0, 5, 2]
    assert batches.kv_blocks_used.tolist() == [2, 3, 3, 5 + 3 - 2, 3]  # two blocks are shared
    assert batches.backlog.tolist() == [6, 2, 1, 15 - 10, 6 - 4]
    assert result.requests.prefix_hit.tolist() == [0, 6, 4, 4]
    assert result.requests.computed.tolist() == [6, 9, 6, 6]
    assert result.summary()["prefix_hit_rate"] == 14 / (14 + 11)


def test_the_longest_unused_block_goes_first_and_the_end_of_a_sequence_before_its_beginning():
    # Six blocks of one token. Request 2 takes the last unused block and the end of 0; its prefix of two tokens is left
    # for 3, which takes two blocks of 1, so that 4 finds nothing; 4 takes those of 2 and the end of 3.
    result = simulate(
        baselines.vllm_v1, [0, 10, 20, 30, 40, 50], [3, 2, 2, 4, 3, 4], [1] * 6,
        parent=[-1, -1, -1, 0, 1, 0], shared_tokens=[0, 0, 0, 3, 2, 3],
        engine={"prefix_caching": True, "kv_blocks": 6},
    )  # fmt: skip
    assert result.requests.prefix_hit.tolist() == [0, 0, 0, 2, 0, 3]
    assert result.batches.kv_blocks_used.tolist() == [3, 2, 2, 4, 3, 4]


def test_swapping_takes_time_and_loses_nothing():
    # In the batch at 1 s request 1 finds no sixth block: its two go to the host, and come back when 0 has left.
    engine = {"kv_blocks": 5, "swap_blocks": 2, "swap_block_time": 0.25}
    result = simulate(baselines.sarathi, [0, 0], [2, 2], [3, 2], engine=engine)
    assert entries(result) == [[(0, 2, 0), (1, 2, 0)], [(0, 1, 2)], [(0, 1, 3)], [(1, 1, 2)]]
    batches, row = result.batches, result.requests[1]
    assert batches.swapped.tolist() == [0, 2, 0, 2]
    assert batches.start.tolist() == [0.0, 1.0, 2.5, 3.5] and result.end == 5.0
    assert batches.kv_blocks_used.tolist() == [4, 3, 4, 3]
    assert batches.preemptions.tolist() == [0, 1, 0, 0]
    assert batches.backlog.tolist() == [7, 3, 2, 1]
    assert (row.finish, row.preemptions, row.recomputed, row.computed) == (5.0, 1, 0, 3)
    # With room for one block on the host, both are lost and computed again.
    lost = simulate(baselines.sarathi, [0, 0], [2, 2], [3, 2], engine={**engine, "swap_blocks": 1})
    assert lost.batches.swapped.tolist() == [0, 0, 0, 0] and lost.requests.recomputed.tolist() == [0, 2]


def test_clients_that_give_up_waiting_and_running():
    # Request 2 waits for a seat until 1.5 s, when 0 runs; its token of the batch at 1 s is lost, its blocks are free.
    result = simulate(
        baselines.sarathi, [0, 0, 0], [2, 2, 2], [5, 3, 1], timeout=[1.5, math.inf, 1.25],
        engine={"kv_blocks": 8, "max_num_seqs": 2},
    )  # fmt: skip
    rows = result.requests
    assert rows.status.tolist() == ["abandoned", "finished", "abandoned"]
    assert rows.left.tolist() == [1.5, 3.0, 1.25]
    assert rows.generated.tolist() == [1, 3, 0] and rows.computed.tolist() == [3, 4, 0]
    assert math.isnan(rows.first_scheduled[2]) and math.isnan(rows.finish[0])
    assert entries(result) == [[(0, 2, 0), (1, 2, 0)], [(0, 1, 2), (1, 1, 2)], [(1, 1, 3)]]
    assert result.batches.kv_blocks_used.tolist() == [4, 6, 4]
    assert result.number_in_system([1.0, 1.25, 1.5]).tolist() == [3, 2, 1]
    assert result.backlog([1.0, 1.25, 1.5, 2.0]).tolist() == [4 + 2 + 2, 4 + 2, 1 + 2, 1]
    assert result.summary()["abandoned"] == 2


def test_a_client_that_gives_up_with_two_batches_under_way():
    result = simulate(baselines.vllm_v1, [0], [2], [5], timeout=[1.5], engine=AHEAD)
    assert entries(result) == [[(0, 2, 0)], [(0, 1, 2)], [(0, 1, 3)]]  # the one at 2 s was decided at 1 s
    row = result.requests[0]
    assert (row.status, row.left, row.generated, row.computed) == ("abandoned", 1.5, 1, 4)
    assert (result.end, result.drained) == (3.0, True)
    assert result.backlog([1.0, 1.5, 2.0, 3.0]).tolist() == [4, 2, 1, 0]


@pytest.mark.parametrize("name", ["vllm_v0", "vllm_v1", "sarathi_paged"])
def test_a_watermark_holds_the_next_request_back(name):
    # Half of eight blocks stay free: beside the two of request 0, three more do not fit.
    for watermark, start in ((0.5, 3.0), (0.0, 0.0)):
        scheduler = dataclasses.replace(baselines.get(name)(watermark=watermark), work_conserving=False)
        result = simulate(scheduler, [0, 0], [2, 3], [3, 1], engine={"kv_blocks": 8})
        assert result.requests.first_scheduled.tolist() == [0.0, start]


def test_only_vllm_v0_turns_away_what_a_watermark_leaves_no_room_for():
    for name, status in (("vllm_v0", "rejected"), ("vllm_v1", "finished"), ("sarathi_paged", "finished")):
        result = simulate(baselines.get(name)(watermark=0.5), [1], [5], [1], engine={"kv_blocks": 8})
        assert result.requests.status.tolist() == [status]


def test_orca_sets_memory_aside_for_the_longest_output():
    # 2 + 4 blocks of ten for request 0, which needs three: the 3 + 4 of request 1 have to wait for them.
    result = simulate(baselines.orca_reserved(max_output_tokens=4), [0, 0], [2, 3], [2, 1], engine={"kv_blocks": 10})
    assert entries(result) == [[(0, 2, 0)], [(0, 1, 2)], [(1, 3, 0)]]
    assert result.batches.kv_blocks_used.tolist() == [6, 6, 7]


def test_fastertransformer_admits_when_all_have_finished():
    scheduler = baselines.fastertransformer_static(max_output_tokens=3)
    result = simulate(scheduler, [0, 0, 0.5], [1, 1, 1], [3, 1, 1], engine={"kv_blocks": 8})
    assert entries(result) == [[(0, 1, 0), (1, 1, 0)], [(0, 1, 1)], [(0, 1, 2)], [(2, 1, 0)]]
    assert result.batches.kv_blocks_used.tolist() == [8, 4, 4, 4]


def test_sarathi_serve_gives_a_prompt_its_blocks_at_once():
    result = simulate(baselines.sarathi_paged(token_budget=2), [0], [5], [2], engine={"kv_blocks": 10})
    assert result.batches.prefill_tokens.tolist() == [2, 2, 1, 0]
    assert result.batches.kv_blocks_used.tolist() == [5, 5, 5, 6]


def test_sglang_retracts_the_request_with_the_fewest_tokens_and_the_longest_prompt():
    # Three output tokens are expected, there are eight. At 4 s both have four, and one block is free: 1 goes to the
    # back of the queue, and finds room for its seven tokens only when 0 has left.
    scheduler = baselines.sglang(max_new_tokens=3)
    result = simulate(scheduler, [0, 0], [2, 3], [8, 8], engine={"kv_blocks": 12})
    both = [[(0, 1, 2 + k), (1, 1, 3 + k)] for k in range(3)]
    first, second = [[(0, 1, 5 + k)] for k in range(4)], [[(1, 1, 7 + k)] for k in range(3)]
    assert entries(result) == [[(0, 2, 0), (1, 3, 0)], *both, *first, [(1, 7, 0)], *second]
    assert result.requests.finish.tolist() == [8.0, 12.0]
    assert result.requests.recomputed.tolist() == [0, 6]
    assert result.batches.preemptions.tolist() == [0, 0, 0, 0, 1] + [0] * 7


@pytest.mark.parametrize(("longest_first", "order"), [(0, [1, 2, 3]), (1, [3, 2, 1])])
def test_sglang_serves_the_longest_cached_prefix_first_if_asked(longest_first, order):
    scheduler = baselines.sglang(max_new_tokens=1, longest_prefix_match=longest_first)
    result = simulate(
        scheduler, [0, 10, 10, 10], [4, 5, 5, 5], [1] * 4, parent=[-1, -1, 0, 0], shared_tokens=[0, 0, 2, 4],
        engine={"prefix_caching": True, "kv_blocks": 40},
    )  # fmt: skip
    entry = {1: (1, 5, 0), 2: (2, 3, 2), 3: (3, 1, 4)}
    assert entries(result)[1:] == [[entry[i] for i in order]]


def test_vllm_v0_preempts_although_the_last_block_has_room():
    # Two blocks of four tokens: neither request needs a second one, but each decode asks for a free block.
    engine = {"block_size": 4, "kv_blocks": 2}
    result = simulate(baselines.vllm_v0, [0, 0], [2, 2], [3, 3], engine=engine)
    assert entries(result) == [[(0, 2, 0), (1, 2, 0)], [(0, 1, 2)], [(1, 3, 0)], [(0, 1, 3)], [(1, 4, 0)]]
    assert result.requests.preemptions.tolist() == [0, 2] and result.requests.recomputed.tolist() == [0, 5]
    other = simulate(baselines.vllm_v1, [0, 0], [2, 2], [3, 3], engine=engine)
    assert entries(other) == [[(0, 2, 0), (1, 2, 0)], [(0, 1, 2), (1, 1, 2)], [(0, 1, 3), (1, 1, 3)]]


def test_vllm_v0_never_decodes_a_prompt_that_fills_the_memory():
    # Its last block has room for the token to come, but no block is free: preempted and computed again, for ever.
    engine = {"block_size": 4, "kv_blocks": 2, "first_token": "separate"}
    result = simulate(baselines.vllm_v0, [0], [7], [1], horizon=10, engine=engine)
    assert entries(result) == [[(0, 7, 0)]] * 10
    assert result.requests.preemptions.tolist() == [9] and result.requests.generated.tolist() == [0]
    assert simulate(baselines.vllm_v1, [0], [7], [1], engine=engine).drained
