"""The empirical capacity against closed forms, and that it says when it could not decide."""

import numpy as np
import pytest

import baselines
import llmsched_env as ls
from llmsched_env import theory
from llmsched_env.evaluation.capacity_search import LoadedStart, empirical_capacity
from llmsched_env.results.stability import service_slope, stability

PAPER = ls.Staircase(c=0.01128, a=0.03547, b0=128)  # arXiv 2504.07347, CodeLlama-34B on one A100
ENGINE = ls.EngineConfig(PAPER, token_budget=512, first_token="separate")
FIGURE_1 = ls.Workload.poisson(rate=1.0, prompt_tokens=129, output_tokens=112, horizon=90.0)


def check_bracket(estimate):
    """The verdicts on both ends of the bracket are among the rates tried, and nothing tried contradicts them."""
    verdicts = {evaluation.rate: evaluation.verdict for evaluation in estimate.evaluations}
    assert verdicts[estimate.low] == "stable" and verdicts[estimate.high] == "unstable"
    assert all(rate <= estimate.low for rate, verdict in verdicts.items() if verdict == "stable")
    assert all(rate >= estimate.high for rate, verdict in verdicts.items() if verdict == "unstable")
    for evaluation in estimate.evaluations:
        assert (evaluation.verdict == "undecided") or evaluation.half_width < abs(evaluation.slope)


def test_fastertransformer_has_its_closed_form():
    # n = floor(512 / 129) = 3 requests in t_387 + 112 t_3: 0.5567 requests/s.
    closed = 3 / (PAPER.seconds(387) + 112 * PAPER.seconds(3))
    estimate = empirical_capacity(baselines.fastertransformer(token_budget=512), FIGURE_1, ENGINE)
    assert estimate.decided
    assert estimate.low <= closed <= estimate.high
    assert estimate.rate == pytest.approx(closed, rel=0.03)
    check_bracket(estimate)


@pytest.mark.parametrize("name", ["sarathi", "orca"])
@pytest.mark.parametrize("tolerance", [0.01, 0.002])
def test_work_conserving_schedulers_reach_the_critical_rate(name, tolerance):
    estimate = empirical_capacity(baselines.get(name)(token_budget=512), FIGURE_1, ENGINE, tolerance=tolerance)
    assert estimate.decided
    assert estimate.low < theory.critical_rate(ENGINE, FIGURE_1) < estimate.high
    assert estimate.high - estimate.low <= 2 * tolerance * estimate.high
    check_bracket(estimate)


def test_prefill_first_loses_a_quarter():
    estimate = empirical_capacity(baselines.vllm_prefill_first(token_budget=512), FIGURE_1, ENGINE)
    assert estimate.decided
    assert estimate.rate / theory.critical_rate(ENGINE, FIGURE_1) == pytest.approx(0.76, abs=0.02)
    check_bracket(estimate)


@pytest.mark.parametrize("name", ["fastertransformer", "vllm_prefill_first", "orca", "sarathi"])
def test_a_single_server_serves_two_a_second(name):
    engine = ls.EngineConfig(ls.Staircase(c=0.25, a=0.25, b0=1), token_budget=1)
    estimate = empirical_capacity(baselines.get(name), ls.Workload.poisson(1.0, 1, 1, 10.0), engine)
    assert estimate.decided and estimate.low < 2.0 < estimate.high


def test_arrivals_in_bursts_do_not_change_it():
    bursts = ls.Workload.generated(
        ls.MMPP([1.0, 5.0], mean_dwell=[3.0, 1.0]), 1.0, ls.dist.Geometric(60), ls.dist.Uniform(1, 90), 10.0
    )
    estimate = empirical_capacity(baselines.sarathi(token_budget=512), bursts, ENGINE)
    assert estimate.decided
    assert estimate.rate == pytest.approx(theory.critical_rate(ENGINE, bursts), rel=0.015)


def test_a_lull_is_not_stability():
    # Runs of 5 s, arrivals that change every 20 s: in a lull the queue empties well above capacity.
    engine = ls.EngineConfig(ls.Hinge(0.008, 4.6e-5, 128), token_budget=346)
    arrivals = ls.MMPP([1.0, 3.0], mean_dwell=[20.0, 10.0])
    workload = ls.Workload.generated(arrivals, 1.0, ls.dist.LogNormal(3.1, 1.0), 14, 10.0)
    estimate = empirical_capacity(baselines.sarathi(token_budget=346), workload, engine)
    assert estimate.decided
    assert estimate.rate == pytest.approx(theory.critical_rate(engine, workload), rel=0.02)
    assert all(
        (evaluation.rate < theory.critical_rate(engine, workload)) == (evaluation.verdict == "stable")
        for evaluation in estimate.evaluations
    )


def test_a_trace_is_repeated():
    rng = np.random.default_rng(0)
    trace = ls.Workload.from_arrays(
        np.sort(rng.uniform(0, 50, 300)), rng.integers(1, 300, 300), rng.integers(1, 200, 300)
    )
    estimate = empirical_capacity(baselines.sarathi(token_budget=512), trace, ENGINE)
    assert estimate.decided
    assert estimate.rate == pytest.approx(theory.critical_rate(ENGINE, trace), rel=0.015)


def test_prompts_that_never_fit_leave_no_capacity():
    workload = ls.Workload.poisson(1.0, 513, 5, 10.0)
    estimate = empirical_capacity(baselines.fastertransformer(token_budget=512), workload, ENGINE)
    assert (estimate.rate, estimate.low, estimate.decided) == (0.0, 0.0, True)
    assert all(evaluation.verdict == "unstable" for evaluation in estimate.evaluations)


def test_undecided_is_reported():
    workload = ls.Workload.poisson(1.0, ls.dist.LogNormal(4.0, 2.0), ls.dist.LogNormal(4.0, 2.0), 10.0)
    scheduler = baselines.fastertransformer(token_budget=8192)
    engine = ls.EngineConfig(PAPER)
    short = empirical_capacity(scheduler, workload, engine, horizon=30.0, growth=1, seeds=range(2), tolerance=1e-4)
    assert not short.decided
    assert [evaluation.verdict for evaluation in short.evaluations].count("undecided") == 2
    few = empirical_capacity(baselines.sarathi(token_budget=512), FIGURE_1, ENGINE, max_evaluations=2)
    assert not few.decided and len(few.evaluations) == 2
    assert few.rate == pytest.approx(13.871, rel=0.01)  # the guess that the next verdicts would have confirmed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": [1]}, "seeds must hold at least two different ones"),
        ({"seeds": [1, 1]}, "seeds must hold at least two different ones"),
        ({"tolerance": 0.0}, "tolerance must be"),
        ({"horizon": -1.0}, "horizon must be"),
        ({"growth": 0}, "growth must be"),
        ({"max_evaluations": 0}, "max_evaluations must be"),
    ],
)
def test_bad_input(options, message):
    with pytest.raises(ValueError, match=message):
        empirical_capacity(baselines.sarathi, FIGURE_1, ENGINE, **options)


TRACE = ls.Workload.from_arrays([1.0, 2.0, 4.0], [10, 20, 30], [1, 2, 3])


@pytest.mark.parametrize("workload", [FIGURE_1, TRACE], ids=["random", "trace"])
def test_a_loaded_start(workload):
    start = LoadedStart(workload, rate=5.0, waiting=40, horizon=100.0)
    table = start.sample(3)
    assert (table.arrival[:40] == 0).all() and table.arrival[41] > 0
    assert table.arrival[-1] <= 100.0 == table.horizon
    assert len(table) - 40 == pytest.approx(500, abs=4 * 500**0.5)
    assert np.array_equal(table.arrival, start.sample(3).arrival)
    assert set(table.prompt_tokens) == set(workload.length_sample()[0])
    if workload is TRACE:
        order = [10, 20, 30]
        first = order.index(table.prompt_tokens[0])
        assert table.prompt_tokens.tolist() == [order[(first + k) % 3] for k in range(len(table))]


def test_service_slope_is_the_token_rate_while_there_is_work():
    result = ls.simulate(baselines.sarathi(token_budget=512), FIGURE_1.scaled(20.0), ENGINE, horizon=90.0)
    slope = service_slope(result, 20.0, 80.0)
    assert slope == pytest.approx(theory.token_rate(ENGINE), rel=1e-3)
    with pytest.raises(ValueError, match="service_slope: start=5.0 must be before stop=5.0"):
        service_slope(result, 5.0, 5.0)


def random_pair(rng):
    """A workload and an engine whose b/t_b peaks at the token budget."""
    b0 = int(rng.integers(16, 200))
    if rng.random() < 0.5:
        law = ls.Staircase(*rng.uniform(0.005, 0.05, 2), b0)
        budget = b0 * int(rng.integers(1, 7))
    else:
        slope = rng.uniform(1e-5, 2e-4)
        law = ls.Hinge(slope * b0 * rng.uniform(1, 3), slope, b0)
        budget = int(rng.integers(b0, 1000))
    kinds = [
        lambda mean: int(mean),
        lambda mean: ls.dist.Geometric(mean),
        lambda mean: ls.dist.Uniform(1, int(2 * mean)),
        lambda mean: ls.dist.LogNormal(np.log(mean), 1.0),
    ]
    prompt, output = (kinds[rng.integers(4)](mean) for mean in np.exp(rng.uniform(np.log(5), np.log(400), 2)))
    arrivals = [ls.Poisson(), ls.MMPP([1.0, 3.0], mean_dwell=[20.0, 10.0])][rng.integers(2)]
    engine = ls.EngineConfig(law, token_budget=budget, first_token=["with_prefill", "separate"][rng.integers(2)])
    return ls.Workload.generated(arrivals, 1.0, prompt, output, 10.0), engine


REACH_IT = ("sarathi", "orca")


@pytest.mark.slow
@pytest.mark.parametrize("number", range(20))
def test_random_pairs(number):
    """Sarathi and Orca reach the critical rate within 2 %, and no scheduler does better than the bound."""
    workload, engine = random_pair(np.random.default_rng(number))
    critical = theory.critical_rate(engine, workload)
    bound = theory.best_token_rate(engine) / theory.mean_work(workload, engine).tokens
    assert bound == pytest.approx(critical)
    # Those that turn requests away have less to serve than the bound counts.
    others = [name for name in baselines.REGISTRY if name not in ("vllm_v0", "mooncake_early_rejection", *REACH_IT)]
    for name in (*REACH_IT, *others[number::20]):  # each of the others on one pair
        scheduler = baselines.get(name)
        own = {"token_budget": engine.token_budget} if "token_budget" in scheduler.params else {}
        full = name in REACH_IT
        effort = {} if full else {"growth": 2, "max_evaluations": 8, "tolerance": 0.03}
        estimate = empirical_capacity(scheduler(**own), workload, engine, **effort)
        assert estimate.low <= bound, name
        if full:
            assert estimate.decided, name
            assert estimate.rate == pytest.approx(critical, rel=0.02), name


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fastertransformer", "vllm_prefill_first", "orca", "sarathi"])
def test_runs_from_an_empty_system_agree(name):
    """The backlog of runs that start empty grows above the bracket, and does not below it."""
    scheduler = baselines.get(name)(token_budget=512)
    estimate = empirical_capacity(scheduler, FIGURE_1, ENGINE)
    for rate, verdict in ((0.95 * estimate.low, "stable"), (1.05 * estimate.high, "unstable")):
        horizon = 30_000 / rate
        workload = ls.Workload.poisson(rate, 129, 112, horizon)
        results = ls.simulate_many(scheduler, workload, ENGINE, range(6), horizon=horizon, progress=False)
        assert stability(results, threshold=0.02).verdict == verdict


def test_a_trace_of_sessions_is_repeated_with_its_parents():
    place = np.arange(40)
    parent = np.where(place % 4 == 0, -1, place - 1)
    sizes = np.full(40, 20), np.full(40, 5)
    trace = ls.Workload.from_arrays(0.5 * place, *sizes, parent=parent, shared_tokens=np.where(parent < 0, 0, 5))
    for seed in range(8):
        table = LoadedStart(trace, rate=2.0, waiting=10, horizon=60.0).sample(seed)
        child = np.flatnonzero(table.parent >= 0)
        assert len(child) > len(table) / 2 and (table.parent[child] == child - 1).all()
        assert (table.shared_tokens == np.where(table.parent < 0, 0, 5)).all()
