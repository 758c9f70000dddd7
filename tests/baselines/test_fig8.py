"""The five-request example of arXiv 2504.07347, Fig. 8, for the four schedulers."""

import pytest

import baselines
import llmsched_env as ls

# A, B, C decode with 2, 4, 3 tokens left when D and E arrive during that batch, with one prompt and one output token
# each. A, B and C are given as one-token prompts at time 0, so that a batch of their prompts comes first.
REQUESTS = ls.Workload.from_arrays([0.0, 0.0, 0.0, 1.25, 1.5], [1, 1, 1, 1, 1], [2, 4, 3, 1, 1])
PROMPTS = "A* B* C*"
FIG_8 = {  # in scheduling order; * marks a prefill token, the others are decodes
    ("vllm_prefill_first", 4): ["A B C", "D* E*", "A B C D", "B C E", "B"],
    ("orca", 5): ["A B C", "D* E* A B C", "B C D E", "B"],  # prefill first; the figure lists the same sets
    ("fastertransformer", 4): ["A B C", "A B C", "B C", "B", "D* E*", "D E"],
    ("sarathi", 4): ["A B C", "A B C D*", "B C D E*", "B E"],
}


def shown(result: ls.Result) -> list[str]:
    batches = [[] for _ in result.batches]
    for entry in result.batch_entries:
        assert entry.tokens == 1
        batches[entry.batch].append("ABCDE"[entry.request] + "*" * bool(entry.is_prefill))
    return [" ".join(batch) for batch in batches]


@pytest.mark.parametrize(("name", "budget"), FIG_8)
@pytest.mark.parametrize("by_scheduler", [True, False], ids=["scheduler's budget", "engine's budget"])
def test_batches_of_the_figure(name, budget, by_scheduler):
    engine = ls.EngineConfig(
        ls.Staircase(c=0.5, a=0.5, b0=128), token_budget=16 if by_scheduler else budget, first_token="separate"
    )
    scheduler = baselines.get(name)
    result = ls.simulate(
        scheduler(token_budget=budget) if by_scheduler else scheduler, REQUESTS, engine, record="entries"
    )
    assert shown(result) == [PROMPTS, *FIG_8[name, budget]]
    assert result.batches.start.tolist() == list(range(len(result.batches)))
    assert result.drained
