"""Shortest job and shortest remaining work first on cases worked out by hand; every batch takes a second."""

import math

import numpy as np
import pytest

import llmsched_env as ls
from baselines import sarathi, sjf, srpt, srpt_predicted, ssjf

LAW = ls.Staircase(c=1.0, a=0.0, b0=1)


def simulate(scheduler, arrival, prompt, output, predicted=None, interpreted=True, **limits):
    workload = ls.Workload.from_arrays(arrival, prompt, output, predicted_output=predicted)
    engine = ls.EngineConfig(LAW, block_size=1, **limits)
    return ls.simulate(scheduler, workload, engine, record="entries", interpreted=interpreted)


def batches(result):
    rows = [[] for _ in result.batches]
    for entry in result.batch_entries:
        rows[entry.batch].append((int(entry.request), int(entry.tokens)))
    return rows


# Prompts of 4 tokens, one per batch of 4. Outputs of 1, 4 and 1 tokens; told that the second is the shortest.
@pytest.mark.parametrize(
    ("scheduler", "order"), [(sarathi, [0, 1, 2, 3]), (sjf, [0, 3, 2, 1]), (ssjf, [0, 1, 2, 3]), (srpt, [0, 3, 2, 1])]
)
def test_who_comes_first(scheduler, order):
    arrival = [0.0, 0.5, 0.5, 0.5]
    result = simulate(scheduler, arrival, [4] * 4, [1, 4, 3, 1], predicted=[1, 1, 2, 3], token_budget=4)
    assert np.argsort(result.requests.first_scheduled, kind="stable").tolist() == order


def test_sjf_counts_outputs_and_srpt_prompts_as_well():
    # 2 + 5 tokens against 8 + 2: the second has the shorter output, the first the less work.
    lengths = [0.0, 0.0], [2, 8], [5, 2]
    assert batches(simulate(sjf, *lengths, token_budget=8))[0] == [(1, 8)]
    assert batches(simulate(srpt, *lengths, token_budget=8))[0] == [(0, 2), (1, 6)]


def test_sjf_lets_running_requests_go_on_and_srpt_pauses_them():
    # Budget 2. The long request has its prompt behind it when the short one, 2 + 1 tokens, arrives at 0.5 s.
    arrival, prompt, output = [0.0, 0.5], [2, 2], [6, 1]
    # SJF: a decode, and a chunk of one token beside it, twice.
    assert batches(simulate(sjf, arrival, prompt, output, token_budget=2))[:3] == [[(0, 2)], [(0, 1), (1, 1)]] + [
        [(0, 1), (1, 1)]
    ]
    # SRPT: 3 tokens of work against 5 that are left, so the prompt takes the whole budget.
    result = simulate(srpt, arrival, prompt, output, token_budget=2)
    assert batches(result) == [[(0, 2)], [(1, 2)], *[[(0, 1)]] * 5]
    assert result.requests.preemptions.sum() == 0


def test_remaining_work_falls_as_it_is_served():
    # The first has 3 + 6 tokens of work. After its prompt and two decodes 3 output tokens are left, fewer than 2 + 2 of
    # the second, which arrives then: by total length the second would go first. Budget 1.
    arrival, prompt, output = [0.0, 4.5], [3, 2], [6, 2]
    result = simulate(srpt, arrival, prompt, output, token_budget=1)
    assert result.requests.finish.tolist() == [8.0, 11.0]


# 12 blocks of a token. At 2 s two requests of 4 + 9 tokens hold 5 each and have 7 tokens left. The third, 3 + 1 tokens,
# needs 3 blocks: SRPT preempts the second at once. Else it comes at 4 s, after the two have outgrown the memory.
@pytest.mark.parametrize(("scheduler", "start"), [(sjf, 4.0), (srpt, 2.0), (srpt_predicted, 4.0)])
def test_srpt_takes_the_memory_of_more_work(scheduler, start):
    result = simulate(scheduler, [0.0, 0.0, 1.5], [4, 4, 3], [9, 9, 1], predicted=[9] * 3, kv_blocks=12)
    assert result.requests.first_scheduled[2] == start
    assert result.requests.preemptions[[0, 2]].tolist() == [0, 0] and result.drained


def test_a_request_without_prediction_stands_behind_all_others():
    result = simulate(
        ssjf, [0.0] * 4, [4] * 4, [2] * 4, predicted=[math.nan, 9.0, math.nan, 3.0], token_budget=4, max_num_seqs=1
    )
    assert np.argsort(result.requests.first_scheduled, kind="stable").tolist() == [3, 1, 0, 2]


def test_noise_is_drawn_once_and_spoils_the_order_by_degrees():
    rng = np.random.default_rng(0)
    output = rng.integers(1, 400, 200)
    spread, order = {}, {}
    for noise in (0.0, 0.3, 3.0):
        rows = simulate(
            sjf(noise=noise, token_budget=8, max_num_seqs=1), np.zeros(200), [1] * 200, output, interpreted=False
        ).requests
        order[noise] = output[np.argsort(rows.first_scheduled, kind="stable")]
        spread[noise] = np.corrcoef(np.arange(200), order[noise])[0, 1]
    assert order[0.0].tolist() == sorted(output)
    assert spread[0.0] > spread[0.3] > spread[3.0] > 0.0
    # One request at a time: who is passed over keeps its factor, so the ratio of its length to those before is bounded.
    again = simulate(
        sjf(noise=0.3, token_budget=8, max_num_seqs=1), np.zeros(200), [1] * 200, output, interpreted=False
    ).requests
    assert output[np.argsort(again.first_scheduled, kind="stable")].tolist() == order[0.3].tolist()


def srpt_by_hand(arrival, work):
    """Finish times of preemptive SRPT, one token a second; arrivals at whole seconds, ties by number."""
    left, finish = np.array(work), np.zeros(len(work))
    for clock in range(int(arrival[-1] + np.sum(work)) + 1):
        present = np.flatnonzero((arrival <= clock) & (left > 0))
        if len(present):
            i = present[np.argmin(left[present])]
            left[i] -= 1
            finish[i] = clock + 1
    return finish


@pytest.mark.parametrize("seed", range(5))
def test_with_a_token_at_a_time_it_is_the_optimal_server(seed):
    rng = np.random.default_rng(seed)
    arrival = np.sort(rng.integers(0, 300, 40)).astype(float)
    prompt, output = rng.integers(1, 6, 40), rng.integers(1, 9, 40)
    finish = [
        simulate(s, arrival, prompt, output, token_budget=1, first_token="separate").requests.finish
        for s in (srpt, srpt(noise=1.0), sjf, sarathi)
    ]
    assert finish[0].tolist() == srpt_by_hand(arrival, prompt + output).tolist()
    assert finish[0].mean() < min(other.mean() for other in finish[1:])
