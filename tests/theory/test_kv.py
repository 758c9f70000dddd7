"""KV memory: token-steps by hand, and the published numbers of slotted control."""

import numpy as np
import pytest

import llmsched_env as ls
from llmsched_env import theory

ONE_SECOND = ls.Hinge(c=1.0, a=0.0, b0=1)


def engine(**options):
    return ls.EngineConfig(ONE_SECOND, **{"block_size": 1, **options})


def test_token_steps_by_hand():
    # (5, 3): the prompt holds 5, two decode steps 6 and 7.
    assert theory.kv_token_steps([5], [3], engine()) == [5 + 6 + 7]
    assert theory.kv_token_steps([5], [3], engine(first_token="separate")) == [5 + 6 + 7 + 8]
    # In chunks of 2: 2, 4 and 5; in chunks of 5: once.
    assert theory.kv_token_steps([5, 4], [1, 1], engine(), prefill_chunk=2).tolist() == [2 + 4 + 5, 2 + 4]
    assert theory.kv_token_steps([5], [1], engine(), prefill_chunk=5) == [5]
    # Blocks of 4 add 1.5 tokens in each of three batches.
    assert theory.kv_token_steps([5], [3], engine(block_size=4)) == [18 + 3 * 1.5]


def test_capacity_by_memory():
    # 18 token-seconds a request; 36 tokens are two requests a second.
    assert theory.kv_capacity(engine(kv_blocks=36), ls.Workload.poisson(1.0, 5, 3, 10.0)) == pytest.approx(2.0)
    measured = theory.kv_capacity(engine(kv_blocks=36), ls.Workload.poisson(1.0, 5, 3, 10.0), batch_seconds=0.5)
    assert measured == pytest.approx(4.0)
    with pytest.raises(ValueError, match="kv_blocks must be a number of blocks"):
        theory.kv_capacity(engine(), ls.Workload.poisson(1.0, 5, 3, 10.0))


def test_the_reference_capacity_is_that_of_memory_where_memory_limits():
    config = ls.EngineConfig(ls.Staircase(0.01128, 0.03547, 128), kv_blocks=500)
    workload = ls.Workload.poisson(1.0, ls.dist.Geometric(129), ls.dist.Geometric(112), 10.0)
    # Between steps of the staircase the reference takes the cheaper smaller batch.
    assert theory.capacity(config, workload) == pytest.approx(theory.kv_capacity(config, workload), rel=0.1)
    smooth = ls.EngineConfig(ls.Roofline(0.01, 1e-4, 0.0, 1, 1e-6, 1e-7, 0.0), kv_blocks=500)
    assert theory.capacity(smooth, workload) == pytest.approx(theory.kv_capacity(smooth, workload))


def test_slotted_control():
    # Dong and Cao, arXiv 2604.11001: classes (10, 20), (10, 40), (10, 60), four activations a slot each, M = 16492.
    prompt, output = [10, 10, 10], [20, 40, 60]
    assert theory.memory_demand([4, 4, 4], prompt, output) == 16_240 < 16_492
    assert theory.memory_demand([3, 3, 3], prompt, output) == 3 * (410 + 1220 + 2430)
    assert theory.volume(10, 3) == 11 + 12 + 13


def test_volume_counts_the_newest_token_that_the_cache_does_not_hold_yet():
    prompt, output = np.array([10, 7, 1]), np.array([20, 1, 5])
    assert (
        theory.kv_token_steps(prompt, output, engine(), newest=True).tolist() == theory.volume(prompt, output).tolist()
    )
    assert theory.kv_token_steps(prompt, output, engine()).tolist() == (theory.volume(prompt, output) - output).tolist()
