"""Routers on cases worked out by hand, and engines that only prefill or only decode."""

from functools import partial

import numpy as np
import pytest

import baselines
import llmsched_env as ls
from baselines.routers import (
    br_0,
    distserve_pools,
    join_shortest_queue,
    least_outstanding_seconds,
    least_outstanding_tokens,
    llumnix,
    prefix_aware,
    session_affinity,
)
from llmsched_env.simulator.simulate import simulate_network
from tests.network.cases import table

SECOND = ls.EngineConfig(ls.Staircase(c=1.0, a=0.0, b0=1), block_size=4)
CACHING = ls.EngineConfig(ls.Staircase(c=1.0, a=0.0, b0=1), block_size=4, prefix_caching=True, kv_blocks=100)


def engines_of(router, tasks, engine=SECOND, count=2, **options):
    result = simulate_network(baselines.sarathi, tasks, [engine] * count, router, interpreted=True, **options)
    return result.requests.engine.tolist()


def context(n, *, at=10.0):
    """A call of 16 tokens at time 0, and `n` calls at time `at` whose prompts of 20 begin with these."""
    return table([0.0] + [at] * n, [16] + [20] * n, [1] + [5] * n, parent=[-1] + [0] * n, shared_tokens=[0] + [16] * n)


def test_calls_go_to_where_their_prefix_is_cached():
    assert engines_of(prefix_aware, context(4), CACHING) == [0, 0, 0, 0, 0]
    # Four fifths of the prompt are cached: not enough if nine tenths are asked for; the emptier cache is elsewhere.
    assert engines_of(prefix_aware(least_match=0.9), context(1), CACHING) == [0, 1]


def test_no_more_calls_than_the_balance_allows_follow_a_prefix():
    # The fourth finds three calls there and none on the other engine, beyond both thresholds; the fifth three and one.
    assert engines_of(prefix_aware(more_calls=2, times=1), context(5), CACHING) == [0, 0, 0, 0, 1, 0]


def test_sessions_stay_on_their_engine_and_leave_it_overloaded():
    sessions = np.tile([5, 8, 9, 11], 6)
    n = len(sessions)
    tasks = table(np.arange(n) * 100.0, [4] * n, [2] * n, session=sessions)
    home = np.array(engines_of(session_affinity, tasks, count=3))
    for session in set(sessions):
        assert len(set(home[sessions == session])) == 1
    assert len(set(home)) > 1
    crowd = table([0.0] * 6, [4] * 6, [2] * 6, session=[5] * 6)
    escaped = engines_of(session_affinity(more_calls=2, times=1), crowd, count=3)
    assert escaped[:3] == [home[0]] * 3 and len(set(escaped)) == 3


def test_freeness_counts_memory_and_requests():
    # Engine 0 runs a prompt of 40 tokens and engine 1 one of 4: a third call finds more free blocks at engine 1.
    tasks = table([0.0, 0.0, 1.5], [40, 4, 4], [9, 9, 1], engine=[0, 1, -1])
    assert engines_of(llumnix, tasks, CACHING)[2] == 1
    # With two requests of 4 tokens there, engine 0 has 90 blocks for one request, engine 1 only 98 for two.
    tasks = table([0.0, 0.0, 0.0, 1.5], [40, 4, 4, 4], [9, 9, 9, 1], engine=[0, 1, 1, -1])
    assert engines_of(llumnix, tasks, CACHING)[3] == 0


def test_margin_below_the_highest_engine_is_filled_first():
    # Engine 0 holds 10 blocks of one call, engine 1 two calls of 1 block, engine 2 one call of 8 blocks. A prompt of 4
    # tokens fits below 10 blocks at both 1 and 2, and 2 has fewer calls; one of 20 tokens fits only at 1.
    held = [40, 4, 4, 32]
    for prompt, engine in ((4, 2), (20, 1)):
        tasks = table([0.0] * 4 + [1.5], [*held, prompt], [9] * 4 + [1], engine=[0, 1, 1, 2, -1])
        assert engines_of(br_0, tasks, CACHING, count=3)[4] == engine


def test_seconds_are_those_of_each_engine():
    """A batch of 512 tokens takes 5.12 s on engine 0 and 15.36 s on engine 1; a decode step 0.01 and 0.03 s."""
    engines = [ls.EngineConfig(ls.Staircase(c=0.0, a=a, b0=1), token_budget=4) for a in (0.01, 0.03)]

    def third(prompts, predicted, router):
        tasks = table([0.0] * 3, [*prompts, 8], [50] * 3, engine=[0, 1, -1], predicted_output=predicted)
        result = simulate_network(baselines.sarathi, tasks, engines, router, interpreted=True)
        return result.requests.engine[2]

    alone, no_others = least_outstanding_seconds(own_decode=0, held_up=0), least_outstanding_seconds(held_up=0)
    # (280 + 10) * 0.01 = 2.9 s and (90 + 10) * 0.03 = 3 s; the other way round with 320 tokens, 3.3 s.
    assert [third([prompt, 90], [10, 10, 100], alone) for prompt in (280, 320)] == [0, 1]
    # The same with 0.01 and 0.03 s for each of its 100 predicted tokens: 4.3 s and 6 s.
    assert third([320, 90], [10, 10, 100], no_others) == 0
    # Predicted tokens of others count as `output_weight` says: 2 + w and 0.3 + 3 w seconds.
    chosen = [third([200, 10], [100, 100, 1], alone(output_weight=w)) for w in (0.8, 0.9)]
    assert chosen == [1, 0]
    # One that has no prediction is taken to yield 128 tokens: 1.28 s against 3.84 s of decode, 3 s of work against 0.6.
    assert [third([300, 20], [1e-9, 1e-9, np.nan], no_others(own_decode=w)) for w in (0.9, 1)] == [1, 0]
    # Its own 8 tokens take 0.08 or 0.24 s, and the call that is there waits as long: 3.36 s against 3.48 s.
    assert [third([310, 90], [10, 10, 100], alone(held_up=w)) for w in (0, 0.5, 1)] == [1, 1, 0]


@pytest.mark.parametrize("router", [join_shortest_queue, least_outstanding_tokens])
def test_prefill_and_decode_in_pools_of_their_own(router):
    engine = ls.EngineConfig(ls.Staircase(c=0.25, a=0.0, b0=1), block_size=4)
    pools = distserve_pools(2, 2, kv_bytes_per_token=1024.0, bandwidth=2.0**15, latency=0.5)
    prompt, output = [4, 8, 12, 5, 6, 7], [3, 2, 5, 4, 1, 6]
    tasks = table(np.arange(6) * 0.125, prompt, output)
    result = simulate_network(
        baselines.sarathi, tasks, [engine] * 4, router, record="entries", pools=pools, interpreted=True
    )
    entries, rows = result.batch_entries, result.requests
    at, start = result.batches.engine[entries.batch], result.batches.start[entries.batch]
    assert result.drained and set(at) == {0, 1, 2, 3}
    assert np.array_equal(at < 2, entries.is_prefill)
    assert rows.generated.tolist() == output
    moved = 0.5 + np.array(prompt) * 1024.0 / 2.0**15  # s, exact in binary
    first_decode = np.full(6, np.inf)
    np.minimum.at(first_decode, entries.request[at >= 2], start[at >= 2])
    assert np.isinf(first_decode[4])  # its only token comes with its prompt
    assert np.all(first_decode >= rows.first_token + moved)
    alone = simulate_network(
        baselines.sarathi, table([0.0], [8], [3]), [engine] * 4, router, pools=pools, interpreted=True
    )
    assert alone.requests.finish.tolist() == [0.25 + (0.5 + 8 / 32) + 0.25 * 2]


def test_pools_refuse_what_cannot_be():
    with pytest.raises(ValueError, match="prefill"):
        distserve_pools(0, 1)
    with pytest.raises(ValueError, match="bandwidth"):
        distserve_pools(1, 1, bandwidth=0.0)


@pytest.mark.parametrize("interpreted", [False, True])
def test_the_decode_engine_yields_the_first_token(interpreted):
    # 8 prompt tokens in one batch of 0.25 s; handed over in 0.125 + 0.5 + 8/32 + 0.0625 s; then a batch for each token.
    engine = ls.EngineConfig(ls.Staircase(c=0.25, a=0.0, b0=1), block_size=4)
    pools = ls.Pools(("prefill", "decode"), 0.5, 1 / 32, 0.125, 0.0625, first_token="decode")
    run = partial(
        simulate_network,
        baselines.sarathi,
        engines=[engine] * 2,
        router=join_shortest_queue,
        pools=pools,
        record="entries",
        interpreted=interpreted,
    )
    result = run(table([0.0], [8], [3]))
    there = 0.25 + 0.125 + 0.5 + 8 / 32 + 0.0625
    assert result.requests.first_token.tolist() == [there + 0.25]
    assert result.requests.finish.tolist() == [there + 0.75]
    assert result.batch_entries.is_prefill.tolist() == [1, 0, 0, 0]
    assert result.batch_entries.tokens.tolist() == [8, 1, 1, 1]
    assert sorted(map(tuple, result.token_gaps[:, 1:].tolist())) == [(0.25, 1.0)] * 2
    one = run(table([0.0], [8], [1])).requests  # its only token comes from the decode engine too
    assert one.finish.tolist() == one.first_token.tolist() == [there + 0.25] and one.engine.tolist() == [1]


@pytest.mark.parametrize("ahead", [0, 1])
def test_tokens_are_conserved_when_the_decode_engine_yields_the_first(ahead):
    rng = np.random.default_rng(3)
    engine = ls.EngineConfig(
        ls.Staircase(c=0.02, a=0.01, b0=8), token_budget=32, kv_blocks=30, block_size=4, schedule_ahead=ahead
    )
    prompt, output = rng.integers(1, 40, 60), rng.integers(1, 30, 60)
    tasks = table(np.cumsum(rng.exponential(0.02, 60)), prompt, output)
    pools = ls.Pools(("prefill", "prefill", "decode"), 0.01, 1e-4, 0.002, 0.003, first_token="decode")
    compiled, plain = (
        simulate_network(
            baselines.vllm_v1, tasks, [engine] * 3, join_shortest_queue, pools=pools, record="entries", interpreted=how
        )
        for how in (False, True)
    )
    rows, entries = compiled.requests, compiled.batch_entries
    assert compiled.drained and rows.preemptions.sum() > 0
    given = np.bincount(entries.request, weights=entries.tokens, minlength=60)
    assert np.array_equal(rows.generated, output) and np.array_equal(given, rows.computed + rows.recomputed)
    assert np.all(rows.recomputed >= 1) and np.all(rows.engine == 2)
    at_prefill = compiled.batches.engine[entries.batch] < 2
    assert np.array_equal(np.bincount(entries.request[at_prefill], weights=entries.tokens[at_prefill]), prompt)
    assert compiled.token_gaps[:, 2].sum() == (output - 1).sum()
    assert compiled.requests.tobytes() == plain.requests.tobytes()
    assert compiled.batches.tobytes() == plain.batches.tobytes()


def test_the_move_takes_the_kv_bytes_of_the_profile():
    pools = ls.Pools.for_gpu(("prefill", "decode"), "llama-3.1-8b_h100-80gb_tp1_aic", link_bandwidth=2.0**30)
    assert pools.transfer_per_token == 131072 / 2**30 and pools.first_token == "decode"
    with pytest.raises(ValueError, match="link_bandwidth"):
        ls.Pools.for_gpu(("prefill", "decode"), "llama-3.1-8b_h100-80gb_tp1_aic", link_bandwidth=0)
    with pytest.raises(ValueError, match=r"pools\.first_token"):
        ls.Pools(("prefill", "decode"), first_token="proxy")
    with pytest.raises(ValueError, match=r"pools\.decode_scheduling"):
        ls.Pools(("prefill", "decode"), decode_scheduling=-1.0)
