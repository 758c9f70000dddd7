"""The network index policy by hand: every batch takes a second."""

import numpy as np
import pytest

import llmsched_env as ls
from baselines.routers import ROUTERS, random_router, round_robin
from llmsched_env.policies.learned_network import (
    OUTPUTS,
    PERCEPTRON,
    REQUEST_MEMORY,
    learned_network,
    with_weights,
)
from llmsched_env.simulator.network import NetworkSimulator
from llmsched_env.simulator.simulate import simulate_network
from tests.network.cases import check_rows, run, seeded_case, table

LAW = ls.Staircase(c=1.0, a=0.0, b0=1)
TABLES = ("requests", "tasks", "batches", "batch_entries", "token_gaps")


def constant(numbers):
    """The policy whose numbers are the same for all classes at all times."""
    weights, outputs = np.zeros(PERCEPTRON.size), {output.name: output for output in OUTPUTS}
    for name, value in numbers.items():
        PERCEPTRON.output_layer(weights)[PERCEPTRON.output_place(name), -1] = outputs[name].inverse(value)
    return with_weights(weights)


def by_feature(feature, output):
    """The policy with number `output` of a class as large as one of its features."""
    weights, place = np.zeros(PERCEPTRON.size), PERCEPTRON.output_place(output)
    PERCEPTRON.hidden_layer(weights)[0, PERCEPTRON.input_place(feature)] = 1e-3  # small, so that the unit is linear
    PERCEPTRON.output_layer(weights)[place, 0] = 1e3 / OUTPUTS[place].spread
    return with_weights(weights)


def restless(seed=1):
    return with_weights(np.random.default_rng(seed).normal(0, 1, PERCEPTRON.size))


def finish(scheduler, tasks, engines=1, **limits):
    machine = ls.EngineConfig(LAW, **limits)
    result = simulate_network(scheduler, tasks, [machine] * engines, round_robin, interpreted=True)
    return result.requests.finish.tolist()


def test_at_rest_prompts_go_in_order_of_number_and_by_length_the_shortest_first():
    tasks = table([0.0] * 3, [8, 4, 6], [1] * 3)
    assert finish(learned_network, tasks, token_budget=10) == [1.0, 2.0, 2.0]
    assert finish(constant({"by_length": 1.0}), tasks, token_budget=10) == [2.0, 1.0, 1.0]


def test_with_a_negative_slope_of_age_the_oldest_call_goes_first():
    # At 1 s call 0 releases call 1; call 2 has waited since 0.5 s.
    tasks = table([0.0, 0.0, 0.5], [5] * 3, [1] * 3, task=[0, 0, 1], edges=[(0, 1)])
    assert finish(learned_network, tasks, token_budget=5) == [1.0, 2.0, 3.0]
    assert finish(constant({"by_age": -1.0}), tasks, token_budget=5) == [1.0, 3.0, 2.0]


def test_decodes_go_first_unless_their_number_says_otherwise():
    # Two tokens a batch: the decodes of call 0 take one of them, or wait for the prompt of call 1.
    tasks = table([0.0, 0.5], [2, 4], [3, 1])
    assert finish(learned_network, tasks, token_budget=2) == [3.0, 4.0]
    assert finish(constant({"decode": 9.0}), tasks, token_budget=2) == [5.0, 3.0]


def test_a_class_is_weighed_by_what_waits_where_it_goes():
    # Engine 0 is busy until 1 s. 40 prompt tokens of class 1, which follows class 0, wait at engine 1: class 2, which
    # leaves, goes before class 0 though its number is larger.
    arrival, prompt, klass = [0.0, 0.0, 0.5, 0.5, 0.5], [4, 40, 4, 4, 4], [3, 1, 0, 1, 2]
    engine, task, edges = [0, 1, 0, 1, 0], [0, 1, 2, 2, 3], [(2, 3)]
    tasks = table(arrival, prompt, [1] * 5, klass=klass, engine=engine, task=task, edges=edges)
    indifferent, held = (
        finish(s, tasks, engines=2, token_budget=4) for s in (learned_network, by_feature("queued_next", "prompt"))
    )
    assert (indifferent[2], held[2]) == (2.0, 3.0)


def test_engines_tell_each_other_the_prompt_tokens_that_wait():
    tasks = table([0.0] * 4, [9, 5, 7, 3], [2] * 4, klass=[0, 1, 1, 0], engine=[0, 0, 1, 1])
    machine = ls.EngineConfig(LAW, token_budget=4)
    simulator = NetworkSimulator([machine] * 2, learned_network, round_robin, interpreted=True)
    simulator.load(tasks)
    told = []
    for until in (0.5, 1.5, 2.5):
        simulator.advance(until)
        told.append(simulator.world.request_memory[:2, REQUEST_MEMORY.index("queued")].tolist())
    assert told[0] == [9 + 3, 5 + 7]  # as the batches of second 0 were composed
    assert told[1] == [5 + 3, 5 + 3]
    assert told[2] == [1 + 2, 5 + 0]  # a token of the batch before was left for the call of class 0 at engine 1


def test_every_task_is_finished_and_every_token_counted():
    for seed in range(40):
        case = seeded_case(seed)
        scheduler = restless(seed)(token_budget=1 + seed % 28)
        result = run(case, scheduler, list(ROUTERS.values())[seed % len(ROUTERS)], interpreted=True)
        check_rows(result, case.tasks)
        rejected = np.unique(result.requests.task[result.requests.status == "rejected"])
        assert set(np.flatnonzero(np.isnan(result.tasks.finish))) == set(rejected), "stuck"


def test_compiled_and_interpreted_rows_are_equal():
    for seed in range(12):
        case = seeded_case(seed)
        a, b = (run(case, restless(), random_router, interpreted=mode) for mode in (False, True))
        for part in TABLES:
            assert getattr(a, part).tobytes() == getattr(b, part).tobytes(), (seed, part)


@pytest.mark.parametrize("klass", [0, 5])
def test_it_serves_a_single_engine_too(klass):
    n = 30
    workload = ls.Workload.from_arrays(np.arange(n) * 0.1, [40] * n, [5] * n, klass=[klass] * n)
    result = ls.simulate(restless(), workload, ls.EngineConfig(LAW, token_budget=64), interpreted=True)
    assert (result.requests.status == "finished").all()
