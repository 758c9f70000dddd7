"""Learning to rank on cases worked out by hand; every batch takes a second."""

import numpy as np

from baselines import learning_to_rank, srpt_predicted, ssjf
from tests.baselines.test_shortest_first import batches, simulate


def served(result, request):
    """Batches that request is in."""
    return [k for k, batch in enumerate(batches(result)) if request in dict(batch)]


def test_the_score_is_that_of_the_whole_request():
    # Budget 1. At 5 s the first request has 3 of 6 tokens left; one of 2 + 4 tokens comes. Its score is smaller, though
    # it has more tokens left, so it goes first: by remaining length it would not, and SSJF would not pause the first.
    case = [0.0, 4.5], [3, 2], [6, 4]
    start = {
        s.name: simulate(s, *case, predicted=[6, 4], token_budget=1).requests.first_scheduled[1]
        for s in (learning_to_rank, srpt_predicted, ssjf)
    }
    assert start == {"learning_to_rank": 5.0, "srpt_predicted": 8.0, "ssjf": 8.0}


def test_a_prompt_leaves_a_token_for_each_decode():
    # Budget 4. The better score is that of the prompt of 8 tokens; the first request goes on decoding beside it.
    case = [0.0, 0.5], [4, 8], [9, 1]
    result = simulate(learning_to_rank, *case, predicted=[90, 1], token_budget=4)
    assert batches(result)[:4] == [[(0, 4)], [(1, 3), (0, 1)], [(1, 3), (0, 1)], [(1, 2), (0, 1)]]
    assert batches(simulate(srpt_predicted, *case, predicted=[90, 1], token_budget=4))[1] == [(1, 4)]


def test_memory_goes_to_the_better_score():
    # 12 blocks. The first holds 8 + 1 at 2 s; the second needs 4, has the better score, and takes them.
    case = [0.0, 1.5], [8, 4], [5, 3]
    result = simulate(learning_to_rank, *case, predicted=[5, 3], kv_blocks=12)
    assert result.requests.first_scheduled.tolist() == [0.0, 2.0]
    assert result.requests.preemptions.tolist() == [1, 0] and result.drained
    assert simulate(learning_to_rank, *case, predicted=[3, 5], kv_blocks=12).requests.preemptions.tolist() == [0, 0]


def test_who_starves_is_boosted_for_a_quantum():
    # Budget 1 and a stream of better ones, a prompt token and an output a second: the first never has its turn but for
    # a boost after 5 steps without, which lasts for 2. (Its prompt is served alone before the others come. From 20 s on
    # those that have to wait for it have queued for so long that they are boosted, too.)
    n = 30
    arrival, prompt, output = [0.0, *np.arange(n) + 0.5], [1] * (n + 1), [9] + [1] * n
    predicted = [9.0] + [1.0] * n
    guarded = simulate(learning_to_rank(threshold=5, quantum=2), arrival, prompt, output, predicted, token_budget=1)
    assert served(guarded, 0)[:5] == [0, 6, 7, 13, 14]
    forever = simulate(learning_to_rank(threshold=500), arrival, prompt, output, predicted, token_budget=1)
    assert served(forever, 0) == [0, *range(n + 1, n + 9)]
