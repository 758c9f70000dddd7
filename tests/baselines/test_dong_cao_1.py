"""Algorithm 1 of Dong and Cao: so many activations of a class per batch, whole prompts, first come first served."""

import numpy as np
import pytest

import llmsched_env as ls
from baselines import dong_cao_1


def run(klass, limits, prompt=3, output=4, arrival=None, horizon=None, **engine):
    n = len(klass)
    arrival = np.zeros(n) if arrival is None else np.asarray(arrival, float)
    workload = ls.Workload.from_arrays(arrival, np.full(n, prompt), np.full(n, output), klass=klass)
    machine = ls.EngineConfig(ls.Staircase(c=1.0, a=0.0, b0=1), block_size=1, **engine)
    scheduler = dong_cao_1(**{f"limit_{k}": limit for k, limit in enumerate(limits)})
    return ls.simulate(scheduler, workload, machine, horizon=horizon, record="entries")


def starts(result):
    return result.requests.first_scheduled.tolist()


def test_each_class_starts_its_own_number_per_batch_in_order_of_arrival():
    assert starts(run([0, 0, 1, 0, 1, 0, 1], [2, 1])) == [0, 0, 0, 1, 1, 1, 2]


def test_an_active_request_gets_a_token_in_every_batch():
    result = run([0, 0, 0], [1], prompt=10, output=5)
    assert (result.requests.finish - result.requests.first_scheduled).tolist() == [5.0] * 3
    entries = result.batch_entries
    assert entries.tokens[entries.is_prefill].tolist() == [10, 10, 10]
    assert set(entries.tokens[~entries.is_prefill]) == {1}


def test_limits_that_respect_the_memory_keep_within_it_and_fill_it():
    # w = l o + o (o + 1)/2 = 22 and 13 tokens: 2 * 22 + 13 = 57, of which 10 are the newest tokens.
    n = 40
    workload = ls.Workload.from_arrays(
        np.zeros(3 * n), np.tile([3, 3, 5], n), np.tile([4, 4, 2], n), klass=np.tile([0, 0, 1], n)
    )
    machine = ls.EngineConfig(ls.Staircase(c=1.0, a=0.0, b0=1), kv_blocks=57, block_size=1)
    batches = ls.simulate(dong_cao_1(limit_0=2, limit_1=1), workload, machine).batches
    assert (batches.kv_blocks_used + batches.num_seqs).max() == 57
    assert batches.kv_blocks_used.max() == 47
    assert batches.preemptions.sum() == 0


def test_limits_that_do_not_respect_it_run_into_the_machine():
    result = run([0] * 30, [8], kv_blocks=40)
    assert result.drained
    assert result.batches.kv_blocks_used.max() <= 40
    assert result.requests.preemptions.sum() > 0


def test_a_prompt_without_memory_holds_back_its_class_only():
    # At 1 s the first request holds 6 of 12 tokens and takes a seventh: 8 more do not fit, 1 does.
    workload = ls.Workload.from_arrays([0.0, 1.0, 1.0, 1.0], [6, 8, 1, 1], [4, 1, 1, 1], klass=[0, 0, 0, 1])
    machine = ls.EngineConfig(ls.Staircase(c=1.0, a=0.0, b0=1), kv_blocks=12, block_size=1)
    assert starts(ls.simulate(dong_cao_1, workload, machine)) == [0, 4, 4, 1]


def test_a_prompt_longer_than_the_batch_goes_on_in_the_next():
    result = run([0, 0], [1], prompt=9, output=1, token_budget=4)
    assert result.batch_entries.tokens.tolist() == [4, 4, 1, 3, 4, 2]
    assert result.requests.finish.tolist() == [3.0, 5.0]


@pytest.mark.parametrize(("klass", "limits"), [([0, 0], [0]), ([8, 8], [4] * 8)])
def test_classes_without_a_limit_never_start(klass, limits):
    with pytest.warns(RuntimeWarning, match="stalled"):
        assert run(klass, limits).requests.status.tolist() == ["active", "active"]
