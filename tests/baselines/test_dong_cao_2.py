"""Algorithm 2 of Dong and Cao: unknown lengths, so many activations per slot, the latest go where memory overflows."""

import numpy as np

import llmsched_env as ls
from baselines import dong_cao_1, dong_cao_2


def simulate(limit, prompt, output, memory=None, scheduler=dong_cao_2, **options):
    n = len(prompt)
    name = "limit" if scheduler is dong_cao_2 else "limit_0"
    engine = ls.EngineConfig(ls.Staircase(c=1.0, a=0.0, b0=1), kv_blocks=memory, block_size=1, first_token="separate")
    workload = ls.Workload.from_arrays(np.zeros(n), prompt, output)
    return ls.simulate(scheduler(**{name: limit}), workload, engine, record="entries", interpreted=True, **options)


# M = 10, prompts of 3, 3 and 4 tokens. U is 4 + 4 in slots 0 and 1 and 5 + 5 in slot 2; in slot 3 it would be 6 + 6.
LENGTHS = [3, 3, 4], [6, 6, 1]


def test_the_latest_activated_starts_over_at_the_back_of_the_queue():
    # So the second request goes, with 3 + 2 tokens, behind the third. That one finds room when the first has left after
    # slot 6, with U = 5; beside it the second one would need 6, so it waits until slot 9.
    result = simulate(2, *LENGTHS, memory=10)
    rows = result.batch_entries
    assert result.requests.preemptions.tolist() == [0, 1, 0]
    assert result.requests.recomputed.tolist() == [0, 5, 0]
    assert rows.batch[rows.request == 1].tolist() == [0, 1, 2, 9, 10, 11, 12, 13]
    assert rows.batch[rows.request == 2].tolist() == [7, 8]


def test_algorithm_1_lets_it_come_back_first():
    rows = simulate(2, *LENGTHS, memory=10, scheduler=dong_cao_1).batch_entries
    assert rows.batch[rows.request == 1].tolist()[:4] == [0, 1, 2, 7]


def test_no_slot_holds_more_than_the_memory():
    rng = np.random.default_rng(1)
    prompt, output = rng.integers(1, 9, 60), rng.integers(1, 13, 60)
    result = simulate(3, prompt, output, memory=24)
    assert result.drained and result.requests.preemptions.sum() > 0
    # The token that a request will have in the next slot is counted: prompts in the slot of their activation as well.
    new = np.bincount(result.batch_entries.batch, result.batch_entries.is_prefill, len(result.batches))
    assert (result.batches.kv_blocks_used + new <= 24).all()


def test_so_many_start_in_a_slot():
    assert simulate(2, [1] * 5, [1] * 5).requests.first_scheduled.tolist() == [0, 0, 1, 1, 2]


def test_a_fraction_is_met_on_average():
    # One always decodes, so that slots go on: 2.25 requests start in each of 400, with a variance of 3/16.
    result = simulate(2.25, [1] * 2000, [3] * 2000, horizon=400.0)
    started = np.count_nonzero(result.requests.first_scheduled < 400)
    assert abs(started - 900) < 4 * np.sqrt(400 * 3 / 16)


def test_slots_in_which_nothing_runs_take_no_time():
    assert simulate(0.25, [1], [1]).requests.first_scheduled.tolist() == [0]
