"""WAIT idles until its thresholds are met; nested WAIT holds requests at the beginning of each segment."""

from math import inf

import numpy as np
import pytest

import llmsched_env as ls
from baselines import nested_wait, wait
from baselines.flow_control.wait import thresholds

ENGINE = ls.EngineConfig(ls.Staircase(c=1.0, a=0.0, b0=1), block_size=1)


def simulate(scheduler, arrival, output, klass=None, engine=ENGINE, **options):
    n = len(arrival)
    workload = ls.Workload.from_arrays(arrival, [2] * n, output, klass=klass)
    return ls.simulate(scheduler, workload, engine, record="entries", interpreted=True, **options)


def entries(result):
    """The requests of each batch."""
    rows = result.batch_entries
    return [sorted(rows.request[rows.batch == b].tolist()) for b in range(len(result.batches))]


def test_a_batch_takes_exactly_so_many_of_each_class_and_all_that_have_begun():
    result = simulate(wait(limit_0=2, limit_1=1), [0.0] * 6, [2] * 6, klass=[0, 0, 0, 0, 1, 1])
    assert entries(result) == [[0, 1, 4], [0, 1, 2, 3, 4, 5], [2, 3, 5]]


def test_the_engine_idles_until_every_class_is_there():
    # Decodes wait as well: after the batch at 2 s nothing runs until the third request of class 1 comes at 6 s.
    arrival, klass = [0.0, 0.0, 1.5, 2.0, 3.0, 6.0], [0, 1, 0, 1, 0, 1]
    result = simulate(wait(limit_0=1, limit_1=1, patience=9), arrival, [3] * 6, klass=klass, horizon=7.5)
    assert result.batches.start.tolist() == [0.0, 2.0, 6.0]
    assert entries(result) == [[0, 1], [0, 1, 2, 3], [0, 1, 2, 3, 4, 5]]


def test_the_wait_ends_with_patience_and_never_without_it():
    arrival, output = [0.0, 0.0, 5.0], [4, 4, 1]
    result = simulate(wait(limit_0=2, patience=3), arrival, output)
    assert result.batches.start.tolist() == [0.0, 3.0, 4.0, 5.0]
    with pytest.warns(RuntimeWarning, match="stalled"):
        result = simulate(wait(limit_0=2, patience=inf), arrival, output)
    assert result.batches.start.tolist() == [0.0]


def test_classes_without_a_limit_are_neither_served_nor_waited_for():
    with pytest.warns(RuntimeWarning, match="stalled"):
        result = simulate(wait(limit_0=1, limit_1=0), [0.0, 0.0], [1, 1], klass=[1, 0])
    assert result.requests.status.tolist() == ["active", "finished"]


def test_thresholds_share_out_a_batch_by_arrivals():
    # 1 * (3 + 1) + 2 * (7 + 1) = 20 requests are in a batch for each one of class 0 that enters.
    assert thresholds(60, [1.0, 2.0], [3, 7]) == {"limit_0": 3.0, "limit_1": 6.0}
    assert thresholds(10, [1.0, 2.0], [3, 7]) == {"limit_0": 1.0, "limit_1": 1.0}


def test_a_batch_of_the_thresholds_holds_the_total():
    limits = thresholds(60, [1.0, 2.0], [3, 7])
    arrival, klass = np.zeros(180), np.tile([0, 1, 1], 60)
    engine = ls.EngineConfig(ENGINE.batch_time, first_token="separate")
    result = simulate(wait(**limits), arrival, np.array([3, 7, 7])[np.arange(180) % 3], klass, engine)
    assert (result.batches.num_seqs[8:12] == 60).all()


def nested(**options):
    return nested_wait(**{"begin_2": 2, "limit_1": 1, "limit_2": 3, "safety_buffer": 0, "patience": 0, **options})


def test_a_segment_waits_for_its_first_stage_to_fill():
    # Each batch starts one request. With 2 tokens the first two are held until the third has so many; they then get
    # a token together, and wait for three more. WAIT would have gone on with each at once.
    result = simulate(nested(), [0.0] * 9, [4] * 9)
    assert entries(result)[:6] == [[0], [0, 1], [1, 2], [2, 3], [0, 1, 2, 3, 4], [4, 5]]


def test_a_segment_does_not_wait_where_no_more_can_come():
    result = simulate(nested(), [0.0] * 2, [3] * 2)
    assert entries(result) == [[0], [0, 1], [1], [0, 1]]


def test_held_requests_that_fill_the_memory_go_on():
    # Two requests of 3 tokens each hold all that there is: the third finds no memory, the two are not three.
    result = simulate(
        nested(), [0.0] * 4, [3] * 4, engine=ls.EngineConfig(ENGINE.batch_time, block_size=1, kv_blocks=7)
    )
    assert result.drained
    assert entries(result)[:4] == [[0], [0, 1], [1], [0]]


def test_the_first_segment_waits_for_so_many_requests():
    with pytest.warns(RuntimeWarning, match="stalled"):
        result = simulate(nested(limit_1=2, patience=inf), [0.0, 3.0, 4.0], [1, 1, 1])
    assert result.batches.start.tolist() == [3.0]
    assert result.stalled_since == 4.0
