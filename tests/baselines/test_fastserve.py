"""Skip-join MLFQ on cases worked out by hand; every batch takes a second, so quanta are 1, 2, 4, ... s."""

import numpy as np

from baselines import fastserve, sarathi
from tests.baselines.test_learning_to_rank import served
from tests.baselines.test_shortest_first import batches, simulate


def test_a_long_prompt_joins_a_later_queue():
    # Budget 4. The prompt of 12 tokens takes 3 s and joins the queue of 4 s; the one of 4 tokens goes first, and then,
    # in the queue of 2 s, decodes beside the other's chunks.
    case = [0.0, 0.0], [12, 4], [1, 3]
    result = simulate(fastserve, *case, token_budget=4)
    assert batches(result) == [[(1, 4)], [(1, 1), (0, 3)], [(1, 1), (0, 3)], [(0, 4)], [(0, 2)]]
    # With one queue it is first come first served.
    assert batches(simulate(fastserve(queues=1), *case, token_budget=4))[0] == [(0, 4)]
    # A first quantum of 3 s covers both.
    assert batches(simulate(fastserve(first_quantum=3), *case, token_budget=4))[0] == [(0, 4)]


def test_who_has_used_its_quantum_drops():
    # Two equal requests of 1 + 9 tokens take turns of 1, 2, 4, ... tokens.
    result = simulate(fastserve, [0.0, 0.0], [1, 1], [9, 9], token_budget=1)
    assert served(result, 0) == [0, 2, 3, 6, 7, 8, 9, 14, 15]
    assert served(result, 1) == [1, 4, 5, 10, 11, 12, 13, 16, 17]
    tripled = simulate(fastserve(ratio=3), [0.0, 0.0], [1, 1], [9, 9], token_budget=1)
    assert served(tripled, 0) == [0, 2, 3, 4, 8, 9, 10, 11, 12]


def test_who_is_not_served_for_long_returns_to_the_first_queue():
    # A new request of one token each second goes before the first one, which has dropped at 1 s; each promotion is good
    # for a second of service.
    n = 20
    result = simulate(
        fastserve(promotion_age=5), [0.0, *np.arange(n) + 0.5], [1] * (n + 1), [9] + [1] * n, token_budget=1
    )
    assert served(result, 0)[:3] == [0, 6, 12]


def test_earlier_queues_take_the_memory_of_later_ones_if_there_is_a_host():
    # 12 blocks. The first request holds 9 at 2 s, one token of decode after its prompt; it has dropped twice. The
    # second needs 4: they come from the first, which goes to the host, or without one it waits.
    case = {"arrival": [0.0, 1.5], "prompt": [8, 4], "output": [5, 1], "kv_blocks": 12}
    result = simulate(fastserve, **case, swap_blocks=12)
    assert result.requests.first_scheduled[1] == 2.0
    assert result.requests.preemptions.tolist() == [1, 0]
    assert result.requests.recomputed.sum() == 0 and result.drained
    for scheduler, blocks in ((fastserve, 0), (sarathi, 12)):
        assert simulate(scheduler, **case, swap_blocks=blocks).requests.first_scheduled[1] > 2.0
