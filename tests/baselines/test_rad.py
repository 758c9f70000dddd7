"""RAD: chunks of one size, decodes of one number, never both in a batch."""

import numpy as np

import llmsched_env as ls
from baselines import rad

ENGINE = ls.EngineConfig(ls.Staircase(c=1.0, a=0.0, b0=1), first_token="separate")


def batches(prompt, output, arrival=None, engine=ENGINE, **params):
    arrival = np.zeros(len(prompt)) if arrival is None else arrival
    workload = ls.Workload.from_arrays(arrival, prompt, output)
    return ls.simulate(rad(**params), workload, engine, record="entries", interpreted=True).batches


def test_all_batches_are_whole_tiles_as_long_as_prompts_are_pending():
    rng = np.random.default_rng(0)
    rows = batches(4 * rng.integers(1, 6, 60), rng.integers(1, 9, 60), chunk=4, decode_tile=4)
    last_prompt = np.flatnonzero(rows.prefill_tokens)[-1]
    tokens = rows.prefill_tokens + rows.decode_tokens
    assert (tokens[: last_prompt + 1] == 4).all()
    assert ((rows.prefill_tokens == 0) | (rows.decode_tokens == 0)).all()


def test_decodes_run_when_the_tile_is_full_or_nothing_else_is_there():
    # Three prompts of two chunks; two of them make a tile of decodes, which runs until one has finished (1 and 3
    # tokens): p p p p d2 p p d2 d1.
    rows = batches([4, 4, 4], [1, 3, 1], chunk=2, decode_tile=2)
    assert rows.prefill_tokens.tolist() == [2, 2, 2, 2, 0, 2, 2, 0, 0]
    assert rows.decode_tokens.tolist() == [0, 0, 0, 0, 2, 0, 0, 2, 1]


def test_a_cycle_bounds_the_chunks_between_two_tokens():
    rows = batches([4, 8], [3, 1], chunk=2, decode_tile=9, cycle=2)
    assert rows.decode_tokens.tolist() == [0, 0, 1, 0, 0, 1, 0, 0, 2]


def test_without_memory_for_a_prompt_it_decodes():
    engine = ls.EngineConfig(ENGINE.batch_time, first_token="separate", kv_blocks=7, block_size=1)
    rows = batches([4, 4], [2, 2], chunk=4, decode_tile=2, engine=engine)
    assert rows.decode_tokens.tolist() == [0, 1, 1, 0, 1, 1]
