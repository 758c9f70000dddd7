"""What tells the paper's four schedulers apart (Table 1 of arXiv 2504.07347), on cases worked out by hand."""

import pytest

import baselines
import llmsched_env as ls

SECOND = ls.Staircase(c=0.5, a=0.5, b0=10**6)  # every batch takes 1 s


def batches(scheduler, workload, **limits):
    """The batches as lists of (request, tokens)."""
    result = ls.simulate(scheduler, workload, ls.EngineConfig(SECOND, **limits), record="entries")
    rows = [[] for _ in result.batches]
    for entry in result.batch_entries:
        rows[entry.batch].append((int(entry.request), int(entry.tokens)))
    return rows


# Prompts of 3, 4 and 2 tokens at once, 2 output tokens each, budget 6.
PROMPTS = ls.Workload.from_arrays([0.0, 0.0, 0.0], [3, 4, 2], [2, 2, 2])


def test_sarathi_decodes_first_and_finishes_the_oldest_prompt():
    assert batches(baselines.sarathi, PROMPTS, token_budget=6) == [
        [(0, 3), (1, 3)],
        [(0, 1), (1, 1), (2, 2)],
        [(1, 1), (2, 1)],
    ]


def test_orca_prefills_first():
    assert batches(baselines.orca, PROMPTS, token_budget=6) == [
        [(0, 3), (1, 3)],
        [(1, 1), (2, 2), (0, 1)],
        [(1, 1), (2, 1)],
    ]


def test_orca_lets_prompts_starve_decodes():
    assert batches(baselines.orca, PROMPTS, token_budget=3) == [
        [(0, 3)],
        [(1, 3)],
        [(1, 1), (2, 2)],
        [(0, 1), (1, 1), (2, 1)],
    ]
    assert batches(baselines.sarathi, PROMPTS, token_budget=3) == [
        [(0, 3)],
        [(0, 1), (1, 2)],
        [(1, 2), (2, 1)],
        [(1, 1), (2, 1)],
        [(2, 1)],
    ]


def test_vllm_runs_whole_prompts_before_any_decode():
    assert batches(baselines.vllm_prefill_first, PROMPTS, token_budget=6) == [
        [(0, 3)],  # 4 more do not fit; the 2 behind them must wait, too
        [(1, 4), (2, 2)],
        [(0, 1), (1, 1), (2, 1)],
    ]


def test_fastertransformer_decodes_to_the_end_before_the_next_prompts():
    assert batches(baselines.fastertransformer, PROMPTS, token_budget=6) == [
        [(0, 3)],
        [(0, 1)],
        [(1, 4), (2, 2)],
        [(1, 1), (2, 1)],
    ]


@pytest.mark.parametrize("name", ["sarathi", "orca"])
def test_the_last_seats_go_by_order(name):
    # One seat: with decodes first the running request keeps it, with prefill first every prompt gets it in turn.
    rows = batches(baselines.get(name)(max_num_seqs=1), PROMPTS, token_budget=6)
    served = [[request for request, _ in batch] for batch in rows]
    assert served == {"sarathi": [[0], [0], [1], [1], [2], [2]], "orca": [[0], [1], [2], [0], [1], [2]]}[name]


def test_decodes_beyond_the_budget_wait_for_their_turn():
    # Four requests decode under a budget of 3; first come first served, the fourth starves until one has left.
    four = ls.Workload.from_arrays([0.0] * 4, [1] * 4, [2, 3, 3, 3])
    rows = batches(baselines.fastertransformer(token_budget=3), four, first_token="separate")
    assert rows == [
        [(0, 1), (1, 1), (2, 1)],
        [(0, 1), (1, 1), (2, 1)],
        [(0, 1), (1, 1), (2, 1)],
        [(1, 1), (2, 1)],
        [(3, 1)],
        [(3, 1)],
        [(3, 1)],
        [(3, 1)],
    ]
    rows = batches(baselines.vllm_prefill_first(token_budget=3), four, first_token="separate")
    assert rows == [
        [(0, 1), (1, 1), (2, 1)],
        [(3, 1)],
        [(0, 1), (1, 1), (2, 1)],
        [(0, 1), (1, 1), (2, 1)],
        [(1, 1), (2, 1), (3, 1)],
        [(3, 1)],
        [(3, 1)],
    ]
