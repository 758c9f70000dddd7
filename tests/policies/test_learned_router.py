"""The index router by hand: every batch takes as long as its engine is slow."""

import numpy as np
import pytest

import baselines
import llmsched_env as ls
from baselines.routers import least_outstanding_tokens
from llmsched_env.policies.learned_router import CHUNK, PERCEPTRON, TERMS, learned_router, with_weights
from llmsched_env.simulator.simulate import simulate_network
from tests.network.cases import run, seeded_case, table


def constant(factors):
    """The router whose terms always count by these factors, the others as at the start."""
    weights, terms = np.zeros(PERCEPTRON.size), {term.name: term for term in TERMS}
    for name, factor in factors.items():
        bias = (factor - terms[name].start) / terms[name].spread
        PERCEPTRON.output_layer(weights)[PERCEPTRON.output_place(name), -1] = bias
    return with_weights(weights)


def restless(seed):
    return with_weights(np.random.default_rng(seed).normal(0, 1, PERCEPTRON.size))


def engine(seconds, **options):
    """An engine whose batches all take so long."""
    return ls.EngineConfig(ls.Staircase(c=seconds, a=0.0, b0=1), block_size=4, **options)


def engines_of(router, tasks, engines, **options):
    result = simulate_network(baselines.sarathi, tasks, engines, router, interpreted=True, **options)
    return result.requests.engine.tolist()


@pytest.mark.parametrize("seed", range(12))
def test_compiled_and_interpreted_routers_agree_and_rest_at_the_fewest_tokens(seed):
    case = seeded_case(seed)
    moving, rests = restless(seed), run(case, baselines.sarathi, learned_router)
    one, other = (run(case, baselines.sarathi, moving, interpreted=interpreted) for interpreted in (False, True))
    assert one.requests.tobytes() == other.requests.tobytes()
    assert rests.requests.tobytes() == run(case, baselines.sarathi, least_outstanding_tokens).requests.tobytes()


def test_speed_is_in_the_batch_times():
    # 10 tokens wait for the slow engine, 20 for one that is four times as fast.
    tasks = table([0.0, 0.0, 0.5], [10, 20, 5], [9] * 3, engine=[0, 1, -1], predicted_output=[1.0] * 3)
    engines = [engine(4.0), engine(1.0)]
    assert engines_of(learned_router, tasks, engines)[2] == 0
    assert engines_of(constant({"speed": 1.0}), tasks, engines)[2] == 1


def test_calls_go_where_their_prompt_is_cached_if_it_counts():
    # Engine 0 has cached 16 of the 20 tokens that two calls begin with, and is given one of them by hand.
    tasks = table(
        [0.0, 10.0, 10.0], [16, 20, 20], [1, 9, 9], parent=[-1, 0, 0], shared_tokens=[0, 16, 16], engine=[0, 0, -1],
        predicted_output=[1.0] * 3,
    )  # fmt: skip
    engines = [engine(1.0, prefix_caching=True, kv_blocks=100)] * 2
    assert engines_of(learned_router, tasks, engines)[2] == 1
    assert engines_of(constant({"tokens": 1.0, "own_prompt": 2.0}), tasks, engines)[2] == 0  # 21 + 8 below 0 + 40


def test_true_lengths_are_never_seen():
    rng = np.random.default_rng(3)
    n = 60
    arrival, prompt = np.sort(rng.uniform(0, 20, n)), rng.integers(1, 2 * CHUNK, n)
    engines, router = [engine(1.0, token_budget=64), engine(0.5, token_budget=64)], restless(1)

    def chosen(output):
        tasks = table(arrival, prompt, output, predicted_output=np.full(n, 40.0))
        return engines_of(router, tasks, engines, horizon=20.0)

    first = chosen(np.full(n, 200))  # nothing has finished by then
    assert len(set(first)) == 2 and first == chosen(np.full(n, 300))
