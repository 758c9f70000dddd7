"""The fewest replicas, where they are known."""

import math

import numpy as np
import pytest

import baselines
import llmsched_env as ls
from baselines.routers import join_shortest_queue, round_robin
from llmsched_env.planning import Option, plan, size
from llmsched_env.planning.report import table_rows, text_table, write_plan
from llmsched_env.workloads.closed_requests import ClosedRequests

SECOND = ls.EngineConfig(ls.Staircase(c=0.5, a=0.5, b0=10**6), token_budget=1)  # one request of one token in a second


def every(gap: float, n: int = 60, ttft: float = 1.05) -> ls.Workload:
    """One-token requests at equal distances, each to be served within `ttft` s; 1 s if none waits."""
    return ls.Workload.from_arrays(gap * np.arange(n), np.ones(n, int), np.ones(n, int), slo=ls.SLO(ttft=ttft))


@pytest.mark.parametrize(("gap", "replicas"), [(1.0, 1), (0.5, 2), (0.4, 3), (0.2, 5), (0.15, 7)])
def test_deterministic_arrivals_need_as_many_servers_as_fit_into_a_service_time(gap, replicas):
    # In turn, each of n engines gets a request every n * gap seconds and takes one second: none waits if n * gap >= 1.
    sizing = size(Option("toy", SECOND, price=2.0), baselines.sarathi, every(gap), round_robin, target=1.0)
    assert sizing.replicas == sizing.at_least == replicas == math.ceil(1 / gap)
    assert sizing.points[replicas].attainment == (1.0,)
    assert replicas == 1 or sizing.points[replicas - 1].attainment[0] < 1
    assert sizing.points[replicas].replicas == replicas


def test_costs_and_the_value_of_one_more():
    sizing = size(Option("toy", SECOND, price=7.2), baselines.sarathi, every(0.5), round_robin, target=1.0)
    point = sizing.points[2]
    # 60 requests of 2 tokens in 30 s of arrivals; two engines, of which one is busy until 30 s and one from 0.5 s on.
    assert point.tokens[0] == pytest.approx(120 / 30)
    assert point.goodput[0] == pytest.approx(60 / 30)
    assert point.utilisation[0] == pytest.approx(59.5 / 60)
    assert sizing.cost_per_million_tokens(2) == pytest.approx(7.2 * 2 / 3600 * 30 / 120 * 1e6)
    assert sizing.marginal_goodput(2) == pytest.approx(0.0)
    assert sizing.marginal_goodput(1) > 0.5


def test_what_the_last_requests_take_does_not_make_a_fleet_dearer():
    # A prompt and 40 decodes, 40 s a request: the run ends 40 s after the last arrival.
    slow = ls.EngineConfig(ls.Staircase(c=1.0, a=0.0, b0=10**6), token_budget=512)
    workload = ls.Workload.from_arrays(10.0 * np.arange(200), np.full(200, 61), np.full(200, 40), slo=ls.SLO(ttft=9.0))
    sizing = size(Option("toy", slow, price=3.6), baselines.sarathi, workload, round_robin, target=1.0)
    assert sizing.replicas == 1
    assert sizing.points[1].tokens[0] == pytest.approx(101 / 10)
    assert sizing.cost_per_million_tokens(1) == pytest.approx(3.6 / 3600 / 10.1 * 1e6)
    assert not sizing.warnings


def test_requests_that_fit_on_no_replica_are_said_to(tmp_path):
    small = ls.EngineConfig(ls.Staircase(c=0.1, a=0.1, b0=512), kv_blocks=8, max_model_len=120)  # 128 tokens
    prompt = np.array([100, 117, 118, 200] * 10)  # with three output tokens
    workload = ls.Workload.from_arrays(np.arange(40.0), prompt, np.full(40, 3), slo=ls.SLO(ttft=5.0))
    sizing = size(Option("toy", small, 1.0), baselines.sarathi, workload, round_robin, target=0.95)
    assert sizing.replicas is None and not sizing.points
    answer = plan([Option("toy", small, 1.0)], {"sarathi": baselines.sarathi}, workload, round_robin, 0.95)
    assert "never: 20 of 40" in table_rows(answer)[0][2] and "20 of 40 requests do not fit" in text_table(answer)
    page = write_plan(answer, tmp_path / "page.html", "llmsched plan").read_text()
    assert "never: 20 of 40 requests do not fit" in page and "Against replicas" not in page
    with pytest.warns(UserWarning, match="turned away as they arrive"):
        some = size(Option("toy", small, 1.0), baselines.sarathi, workload, round_robin, target=0.5)
    assert some.replicas == 1 and some.points[1].attainment == (0.5,)
    assert any("20 of 40 requests do not fit" in warning for warning in some.warnings)


def test_short_arrivals_are_repeated_and_a_fleet_of_a_load_above_one_is_not_taken_for_enough():
    # Two requests a second, each a second on the engine: with a target of 3 s, ten of them pass on one engine.
    short = every(0.5, n=8, ttft=3.0)
    sizing = size(Option("toy", SECOND, 1.0), baselines.sarathi, short, round_robin, target=1.0)
    assert sizing.replicas == 2 and sizing.demand.seconds == 32.0 and sizing.demand.requests == 8
    assert "4 s of arrivals are too short" in sizing.warnings[0] and "over and over" in sizing.warnings[0]
    patient = size(Option("toy", SECOND, 1.0), baselines.sarathi, every(0.5, ttft=100.0), round_robin, target=1.0)
    assert patient.replicas == 1 and "load 2.00 with 1: more arrives than they can serve" in patient.warnings[0]
    assert "Warning: toy, sarathi: load 2.00" in text_table(
        plan([Option("toy", SECOND, 1.0)], {"sarathi": baselines.sarathi}, every(0.5, ttft=100.0), round_robin, 1.0)
    )
    random = ls.Workload.poisson(1.0, 1, 1, horizon=2.0, slo=ls.SLO(ttft=9.0))
    assert size(Option("toy", SECOND, 1.0), baselines.sarathi, random, round_robin).demand.seconds == 30.0


def test_users_in_a_closed_loop_are_a_workload_too():
    users = ls.ClosedLoop(lengths=every(1.0), users=6, duration=60.0)
    sizing = size(Option("toy", SECOND, 1.0), baselines.sarathi, users, round_robin, target=0.9)
    assert sizing.replicas == 6  # each waits for nobody
    assert sizing.points[6].tokens[0] == pytest.approx(12.0, rel=0.05)
    two = size(Option("toy", SECOND, 1.0), baselines.sarathi, users.with_users(2), round_robin, target=0.9)
    assert two.replicas == 2


def test_requests_without_times_are_refused_with_what_to_give():
    at_once = ls.Workload.from_arrays(np.zeros(5), np.ones(5, int), np.ones(5, int), slo=ls.SLO(ttft=1.0))
    for workload in (at_once, ls.Workload(ClosedRequests(at_once.sample(0), 2), "closed")):
        with pytest.raises(ValueError, match="rate must be known, got .*--rate.* or the number of users"):
            size(Option("toy", SECOND, 1.0), baselines.sarathi, workload, round_robin)
    with pytest.raises(ValueError, match="duration must be a number of seconds for users in a closed loop, got None"):
        size(Option("toy", SECOND, 1.0), baselines.sarathi, ls.ClosedLoop(lengths=at_once, users=2), round_robin)


def test_a_target_out_of_reach_is_said_to_be():
    slow = every(0.5, ttft=0.9)  # an idle engine takes a second
    sizing = size(Option("toy", SECOND, 1.0), baselines.sarathi, slow, round_robin)
    assert sizing.replicas is None and not sizing.points
    assert sizing.demand.never == "60 of 60 requests miss their targets even alone"
    few = size(Option("toy", SECOND, 1.0), baselines.sarathi, every(0.1), round_robin, target=1.0, most_replicas=4)
    assert few.replicas is None and max(few.points) == 4


def test_decodes_that_are_too_slow_even_alone_are_said_to_be():
    engine = ls.EngineConfig(ls.Staircase(c=0.1, a=0.0, b0=10**6))  # a token in 0.1 s
    workload = ls.Workload.from_arrays(
        np.arange(60.0), np.ones(60), np.tile([1, 9], 30), slo=ls.SLO(ttft=5.0, tpot=0.09)
    )
    sizing = size(Option("toy", engine, 1.0), baselines.sarathi, workload, round_robin, target=0.9)
    assert sizing.replicas is None and (sizing.demand.unfit, sizing.demand.late) == (0, 30)


def test_random_arrivals_are_decided_by_intervals():
    workload = ls.Workload.poisson(rate=2.0, prompt_tokens=1, output_tokens=1, horizon=40.0, slo=ls.SLO(ttft=3.0))
    sizing = size(Option("toy", SECOND, 1.0), baselines.sarathi, workload, join_shortest_queue, 0.9, most_seeds=10)
    mean, half = sizing.points[sizing.replicas].interval("attainment")
    assert mean - half >= 0.9 or half == 0
    assert sizing.replicas >= 2 == sizing.first_guess


def test_the_cheapest_machine_wins():
    fast = ls.EngineConfig(ls.Staircase(c=0.25, a=0.25, b0=10**6), token_budget=1)
    options = [Option("slow", SECOND, 1.0), Option("fast", fast, 1.5)]
    answer = plan(options, {"sarathi": baselines.sarathi}, every(0.25), round_robin, target=1.0)
    assert {key: s.replicas for key, s in answer.sizings.items()} == {("slow", "sarathi"): 4, ("fast", "sarathi"): 2}
    assert answer.cheapest == ("fast", "sarathi")


def test_bad_input():
    with pytest.raises(ValueError, match=r"price must be .* > 0 .*got 0"):
        Option("toy", SECOND, 0.0)
    with pytest.raises(ValueError, match="target must be .* got 1.5"):
        size(Option("toy", SECOND, 1.0), baselines.sarathi, every(1.0), round_robin, target=1.5)


def test_limits_are_said_as_options_of_vllm_with_what_others_would_change():
    # A prompt of 8 tokens takes a batch a token below the budget: with a budget of 4, two batches and 2 s.
    engine = ls.EngineConfig(ls.Staircase(c=1.0, a=0.0, b0=10**6), token_budget=16)
    n = 40
    workload = ls.Workload.from_arrays(3.0 * np.arange(n), np.full(n, 8), np.ones(n), slo=ls.SLO(ttft=1.5))
    limited = baselines.vllm_v1(token_budget=8, max_num_seqs=2)
    sizing = size(Option("toy", engine, 1.0), limited, workload, round_robin, target=1.0)
    tokens, seqs = sizing.flags
    assert (str(tokens), str(seqs)) == ("--max-num-batched-tokens 8", "--max-num-seqs 2")
    assert tokens.changes["half"][0] == -1.0 and tokens.changes["double"][0] == 0.0
    assert seqs.changes["half"][0] == seqs.changes["double"][0] == 0.0
    answer = plan([Option("toy", engine, 1.0)], {"vllm": limited}, workload, round_robin, 1.0)
    assert "toy, vllm: vllm serve --max-num-batched-tokens 8 --max-num-seqs 2\n" in text_table(answer)
    assert "--max-num-batched-tokens: half -100.0, double +0.0" in text_table(answer)
    whole = size(Option("toy", engine, 1.0), baselines.vllm_v1(token_budget=64), workload, round_robin, target=1.0)
    assert str(whole.flags[0]) == "--max-num-batched-tokens 16" and set(whole.flags[0].changes) == {"half"}
