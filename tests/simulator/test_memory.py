"""KV memory: preemption and recomputation, worked out by hand in blocks of one token unless said."""

import math

import pytest

import baselines
import llmsched_env as ls

SECOND = ls.Staircase(c=0.5, a=0.5, b0=10**6)  # every batch takes 1 s


def simulate(arrival, prompt, output, scheduler, horizon=None, block_size=1, **limits):
    workload = ls.Workload.from_arrays(arrival, prompt, output)
    engine = ls.EngineConfig(SECOND, block_size=block_size, **limits)
    return ls.simulate(scheduler, workload, engine, horizon=horizon, record="entries")


@pytest.mark.parametrize("name", ["sarathi", "orca", "vllm_prefill_first", "fastertransformer"])
def test_the_latest_admitted_makes_room_and_recomputes(name):
    # Requests of 2 + 3 and 2 + 2 tokens; separate: 5 + 4 tokens of work. Batch 2 needs a 7th block.
    result = simulate([0, 0], [2, 2], [3, 2], baselines.get(name), kv_blocks=6, first_token="separate")
    assert result.batch_entries.tolist() == [
        (0, 0, 2, True),
        (0, 1, 2, True),
        (1, 0, 1, False),
        (1, 1, 1, False),
        (2, 0, 1, False),  # 1 loses its three tokens
        (3, 0, 1, False),  # and finds no room for three
        (4, 1, 3, True),  # its prompt and its first output token again
        (5, 1, 1, False),
    ]
    batches, row = result.batches, result.requests[1]
    assert batches.kv_blocks_used.tolist() == [4, 6, 4, 5, 3, 4]
    assert batches.preemptions.tolist() == [0, 0, 1, 0, 0, 0]
    assert batches.recomputed.tolist() == [0, 0, 3, 0, 0, 0]
    assert batches.backlog.tolist() == [9, 5, 3 + 3, 5, 4, 1]
    assert batches.num_waiting.tolist() == [0, 0, 1, 1, 0, 0]
    assert (row.first_scheduled, row.first_token, row.finish) == (0.0, 2.0, 6.0)
    assert (row.generated, row.computed, row.preemptions, row.recomputed) == (2, 4, 1, 3)
    assert result.token_gaps.tolist() == [[3.0, 1.0, 1.0], [4.0, 1.0, 1.0], [6.0, 4.0, 1.0]]


def test_a_recomputed_prompt_yields_the_next_token():
    # with_prefill: in batch 1 request 1 finds no sixth block and is itself the latest admitted.
    result = simulate([0, 0], [2, 2], [3, 2], baselines.sarathi, kv_blocks=5)
    assert result.batch_entries.tolist() == [
        (0, 0, 2, True),
        (0, 1, 2, True),
        (1, 0, 1, False),
        (2, 0, 1, False),
        (3, 1, 3, True),
    ]
    row = result.requests[1]
    assert (row.first_token, row.finish, row.generated, row.computed, row.recomputed) == (1.0, 4.0, 2, 3, 2)


def test_a_new_block_is_needed_every_block_size_tokens():
    result = simulate([0], [6], [5], baselines.sarathi, block_size=4, kv_blocks=3)
    # computed in and after each batch: 6, 7, 8, 9, 10
    assert result.batches.kv_blocks_used.tolist() == [2, 2, 2, 3, 3]


def test_a_preempted_request_goes_to_the_front_of_the_queue():
    # 2 waits for memory from 0.5 s on; 1 is preempted in batch 1 and comes before it all the same.
    result = simulate([0, 0, 0.5], [2, 2, 1], [3, 2, 1], baselines.sarathi, kv_blocks=4)
    served = [(int(e.batch), int(e.request)) for e in result.batch_entries]
    assert served == [(0, 0), (0, 1), (1, 0), (2, 0), (3, 1), (3, 2)]


def test_several_preempted_requests_keep_their_order():
    # Blocks of two tokens, one for each prompt of two: for 0 and 1 to decode, 3 and then 2 must go.
    result = simulate([0, 0, 0, 0, 0.5], [2] * 5, [2, 2, 3, 3, 1], baselines.sarathi, block_size=2, kv_blocks=4)
    served = [(int(e.batch), int(e.request)) for e in result.batch_entries]
    assert served == [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1), (2, 2), (2, 3), (3, 2), (3, 3), (4, 4)]
    assert result.batches.preemptions.tolist() == [0, 2, 0, 0, 0]
    assert result.batches.kv_blocks_used.tolist() == [4, 4, 4, 4, 1]


@pytest.mark.parametrize(("first_token", "status"), [("with_prefill", "finished"), ("separate", "rejected")])
def test_a_request_that_can_never_fit_is_turned_away(first_token, status):
    # 3 + 2 tokens need 4 blocks, or 5 with a separate first token.
    result = simulate([1, 1], [3, 1], [2, 1], baselines.sarathi, kv_blocks=4, first_token=first_token)
    assert result.requests.status.tolist() == [status, "finished"]
    row = result.requests[0]
    assert row.left == (1.0 if status == "rejected" else 3.0)
    assert math.isnan(row.finish) == math.isnan(row.first_scheduled) == (status == "rejected")
    assert result.number_in_system(1.5) == (1 if status == "rejected" else 2)
    assert result.backlog(1.5) == (2 if status == "rejected" else 4 + 1)
    assert result.drained and not result.stalled


def test_a_prompt_without_memory_is_not_pending_for_vllm():
    # Request 1 needs 3 of the 4 blocks; until 0 has left, vLLM decodes 0 rather than wait for ever.
    result = simulate([0, 0.5], [2, 3], [3, 1], baselines.vllm_prefill_first, kv_blocks=4)
    assert [int(e.request) for e in result.batch_entries] == [0, 0, 0, 1]
    assert result.requests.preemptions.tolist() == [0, 0]


@pytest.mark.parametrize("name", ["orca", "sarathi", "vllm_prefill_first", "fastertransformer"])
@pytest.mark.parametrize("first_token", ["with_prefill", "separate"])
def test_requests_do_not_push_each_other_out_of_memory_for_ever(name, first_token):
    # Two requests of 2 + 2 tokens and 4 blocks; one alone fits. Both must be served.
    result = simulate([0, 0.5], [2, 2], [2, 2], baselines.get(name), horizon=100, kv_blocks=4, first_token=first_token)
    assert result.drained
    assert result.requests.preemptions.max() <= 1


def test_backlog_at_the_horizon_knows_what_the_running_batch_preempted():
    # The first case above, stopped at 2.5 s within batch 2, which has preempted request 1 with its three tokens.
    result = simulate([0, 0], [2, 2], [3, 2], baselines.sarathi, horizon=2.5, kv_blocks=6, first_token="separate")
    assert result.requests.recomputed.tolist() == [0, 3]
    assert result.requests.computed.tolist() == [3, 0]
    assert result.backlog(2.5) == (5 - 3) + 4
    assert result.backlog([1.5, 2.0, 2.5]).tolist() == [5, 2 + 4, 2 + 4]


def test_preemptions_of_an_empty_batch_are_counted_with_the_next_one():
    """A scheduler that preempts at 1 s, sleeps, and goes on at 2.5 s."""

    def compose(view):
        if view.clock == 1.0:
            ls.preempt(view, view.running[0])
            return 2.5
        for i in view.waiting:
            ls.take(view, i, 9)
        for i in view.running:
            ls.take(view, i, 1)
        return math.inf

    scheduler = ls.Scheduler("sleeper", compose, mixes_phases=True, chunks_prefill=True)
    result = simulate([0], [2], [3], scheduler)
    assert result.batches.start.tolist() == [0.0, 2.5, 3.5]
    assert result.batches.recomputed.tolist() == [0, 2, 0]
    assert result.batches.backlog.tolist() == [4, 4, 1]
    assert result.batches.preemptions.tolist() == [0, 1, 0]
    assert result.requests.preemptions.tolist() == [1]
