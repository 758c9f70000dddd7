"""What vLLM's scheduler would not have done with four knobs."""

import pytest

import baselines
import llmsched_env as ls
from llmsched_env.evaluation.benchmark.run import FOUR_KNOBS
from llmsched_env.evaluation.suite import H100, Site
from llmsched_env.testing import batches_beyond_vllm

ENGINE = ls.EngineConfig(ls.Staircase(c=0.0, a=0.01, b0=4), token_budget=4)


def run(scheduler, arrivals, prompts, outputs):
    workload = ls.Workload.from_arrays(arrivals, prompts, outputs)
    return ls.simulate(scheduler, workload, ENGINE, record="entries")


def test_orders_of_the_queue_are_within_and_orders_of_begun_prompts_are_beyond():
    # The long prompt begins alone; two short ones come meanwhile, which shortest remaining first lets pass.
    arrivals, prompts, outputs = [0.0, 0.02, 0.02], [12, 4, 3], [2, 2, 2]
    assert batches_beyond_vllm(run(baselines.ssjf, arrivals, prompts, outputs)) == 0
    assert batches_beyond_vllm(run(baselines.srpt_predicted, arrivals, prompts, outputs)) > 0


def test_a_decode_that_is_left_out_is_beyond():
    # Prompts first: the second takes the whole batch while the first has a token to generate.
    assert batches_beyond_vllm(run(baselines.vllm_prefill_first, [0.0, 0.0], [4, 4], [3, 3])) > 0
    assert batches_beyond_vllm(run(baselines.fastertransformer, [0.0, 0.0], [4, 4], [3, 3])) == 0  # holds prefill


def test_it_asks_for_entries_and_for_no_preemption():
    workload = ls.Workload.from_arrays([0.0], [4], [2])
    with pytest.raises(ValueError, match='record="entries"'):
        batches_beyond_vllm(ls.simulate(baselines.sarathi, workload, ENGINE))
    short = ls.EngineConfig(ls.Staircase(c=0.0, a=0.01, b0=4), token_budget=64, kv_blocks=5, block_size=4)
    both = ls.Workload.from_arrays([0.0, 0.0], [8, 8], [8, 8])
    with pytest.raises(ValueError, match="preemptions"):
        batches_beyond_vllm(ls.simulate(baselines.sarathi, both, short, record="entries"))


@pytest.mark.parametrize("name", FOUR_KNOBS)
def test_the_baselines_that_are_said_to_keep_within_do(name):
    for preset in ("azure-chat", "multi-tenant"):
        assert batches_beyond_vllm(on_h100(name, preset)) == 0


def test_deadlines_of_several_classes_take_more_than_the_order_of_the_queue():
    assert batches_beyond_vllm(on_h100("edf", "multi-tenant")) > 0


def on_h100(name, preset):
    site = Site(preset, "default", H100)
    result = ls.simulate(baselines.get(name), site.at(1.5, 8.0), site.engine, seed=1, record="entries")
    assert len(result.batches) > 100
    return result
