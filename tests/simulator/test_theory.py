"""Runs against theory: queueing formulas, stability limits, published numbers; intervals from standard errors."""

import numpy as np
import pytest

import baselines
import llmsched_env as ls
from llmsched_env.results import metrics
from llmsched_env.results.stability import backlog_slope

# arXiv 2504.07347: CodeLlama-34B on one A100-80GB; 46.75 ms up to 128 tokens, 153.16 ms at 512.
PAPER = ls.Staircase(c=0.01128, a=0.03547, b0=128)
T_128, T_512 = 0.04675, 0.15316
FOUR = ("fastertransformer", "vllm_prefill_first", "orca", "sarathi")


def paper_engine(token_budget: int, **limits) -> ls.EngineConfig:
    return ls.EngineConfig(PAPER, token_budget=token_budget, first_token="separate", **limits)


def run_seeds(scheduler, workload, engine, seeds, **options):
    return ls.simulate_many(scheduler, workload, engine, range(seeds), progress=False, **options)


def mean_and_error(values) -> tuple[float, float]:
    return float(np.mean(values)), float(np.std(values, ddof=1) / len(values) ** 0.5)


@pytest.mark.parametrize("name", FOUR)
def test_one_token_requests_and_budget_one_are_an_m_d_1_queue(name):
    # s = 0.5 s, lambda = 1.2/s: rho = 0.6, L = rho + rho^2 / (2 (1 - rho)) = 1.05 (Pollaczek and Khinchine).
    engine = ls.EngineConfig(ls.Staircase(c=0.25, a=0.25, b0=1), token_budget=1)
    workload = ls.Workload.poisson(rate=1.2, prompt_tokens=1, output_tokens=1, horizon=6000.0)
    results = run_seeds(baselines.get(name), workload, engine, 40, horizon=6000.0, record="requests")
    mean, error = mean_and_error([metrics.integral_in_system(r.requests, 200.0, 6000.0) / 5800.0 for r in results])
    assert error < 0.02
    assert abs(mean - 1.05) < 4 * error


C_TOK = 512 / T_512  # tokens/s: what full batches get done
CRITICAL = C_TOK / 200  # requests/s of (100, 100)


@pytest.mark.parametrize("name", ["sarathi", "orca"])
@pytest.mark.parametrize("load", [0.9, 1.1, 1.2])
def test_backlog_grows_by_what_exceeds_the_stability_limit(name, load):
    """Theorem 2: slope max(0, lambda (m_p + m_d) - b_max / t_{b_max}) for every work-conserving scheduler."""
    workload = ls.Workload.poisson(rate=load * CRITICAL, prompt_tokens=100, output_tokens=100, horizon=600.0)
    results = run_seeds(baselines.get(name)(token_budget=512), workload, paper_engine(512), 20, horizon=600.0)
    slope, error = mean_and_error([backlog_slope(result, 300.0, 600.0) for result in results])
    assert error < 20.0  # tokens/s
    assert abs(slope - max(0.0, (load - 1) * C_TOK)) < 4 * error

    # Pathwise: while all batches are full, the backlog changes by what arrived less C_tok times the elapsed time.
    for result in results:
        batches = result.batches
        full = batches.prefill_tokens + batches.decode_tokens == 512
        first, last = longest_run(full)
        assert last - first > (5 if load < 1 else 1500)
        assert batches.duration[first:last] == pytest.approx(T_512)
        t1, t2 = batches.start[first], batches.start[last]
        rows = result.requests
        arrived = 200 * np.count_nonzero((rows.arrival > t1) & (rows.arrival <= t2))
        grown = batches.backlog[last] - batches.backlog[first]
        assert grown == arrived - 512 * (last - first)
        assert grown == pytest.approx(arrived - C_TOK * (t2 - t1), abs=1e-3)
        between = np.linspace(t1, t2, 37)
        arrived = 200 * (np.searchsorted(rows.arrival, between, "right") - np.searchsorted(rows.arrival, t1, "right"))
        drift = result.backlog(between) - batches.backlog[first] - (arrived - C_TOK * (between - t1))
        assert np.abs(drift).max() <= 512 + 1e-6


def longest_run(flags: np.ndarray) -> tuple[int, int]:
    """Ends [first, last) of the longest run of True that is followed by something."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags[:-1], [False]])))
    starts, stops = edges[::2], edges[1::2]
    k = int(np.argmax(stops - starts))
    return int(starts[k]), int(stops[k])


def test_backlog_stays_bounded_at_critical_load_with_even_gaps():
    # With equal gaps at capacity the backlog never exceeds (b_max + 1)(v_p + v_d) tokens.
    arrival = np.arange(5000) / CRITICAL
    workload = ls.Workload.from_arrays(arrival, np.full(5000, 100), np.full(5000, 100))
    for scheduler in (baselines.sarathi, baselines.orca):
        result = ls.simulate(scheduler(token_budget=512), workload, paper_engine(512))
        assert result.drained
        assert result.batches.backlog.max() <= 513 * 200


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [("sarathi", 75, 105), ("orca", 80, 115), ("vllm_prefill_first", 400, 560), ("fastertransformer", 860, 920)],
)
def test_number_in_system_of_figure_1(name, low, high):
    """The workload of Fig. 1 (129 + 112 tokens) under the fitted law, at 0.75 of capacity, after 90 s."""
    workload = ls.Workload.poisson(rate=10.403, prompt_tokens=129, output_tokens=112, horizon=90.0)
    scheduler = baselines.get(name)(token_budget=512)
    results = run_seeds(scheduler, workload, paper_engine(512), 20, horizon=90.0, record="requests")
    assert low <= np.mean([result.number_in_system(90.0) for result in results]) <= high


def test_fastertransformer_in_saturation_works_in_equal_cycles():
    # floor(512 / 129) = 3 prompts a cycle: one batch of 387 tokens (4 stairs), 112 decode batches of 3 (1 stair).
    workload = ls.Workload.from_arrays(np.zeros(30), np.full(30, 129), np.full(30, 112))
    result = ls.simulate(baselines.fastertransformer(token_budget=512), workload, paper_engine(512))
    cycle = T_512 + 112 * T_128
    assert 3 / cycle == pytest.approx(0.5567, abs=5e-5)
    assert result.requests.finish == pytest.approx(np.repeat(np.arange(1, 11), 3) * cycle)


VERTEX_C = ls.Workload.from_arrays(0.4675 * np.arange(1, 301), np.full(300, 290), np.full(300, 990))


@pytest.mark.parametrize(
    ("name", "budget"),
    [("sarathi", 128), ("orca", 128), ("sarathi", 1024), ("fastertransformer", 128), ("vllm_prefill_first", 128)],
)
def test_only_one_of_five_survives_vertex_c(name, budget):
    """Section 6.2: (290, 990) every 467.5 ms with 100 seats needs 29 prefill and 99 decode tokens in every batch."""
    engine = paper_engine(1024, max_num_seqs=100)
    result = ls.simulate(baselines.get(name)(token_budget=budget), VERTEX_C, engine, horizon=140.0)
    assert len(result.requests) == 299
    batches, growth = result.batches, result.backlog(140.0) - result.backlog(70.0)
    if name in ("fastertransformer", "vllm_prefill_first"):
        assert len(batches) == 0
        assert result.backlog(140.0) == 299 * 1280 == 382_720
    elif (name, budget) == ("sarathi", 128):
        last = batches[-100:]
        assert set(last.prefill_tokens) == {29} and set(last.decode_tokens) == {99}
        assert last.duration == pytest.approx(T_128)
        assert growth < 1280
    else:
        assert growth > 15_000


@pytest.mark.parametrize("name", FOUR)
def test_latency_at_light_load(name):
    # One request at a time: 129 tokens of prompt in one batch of two stairs, then one decode token a batch.
    arrival = 20.0 * np.arange(4)
    workload = ls.Workload.from_arrays(arrival, np.full(4, 129), np.full(4, 112))
    scheduler = baselines.get(name)(token_budget=512)
    prefill = 0.01128 + 2 * 0.03547
    rows = ls.simulate(scheduler, workload, paper_engine(512)).requests
    assert rows.first_token - arrival == pytest.approx([prefill + T_128] * 4)
    assert rows.finish - arrival == pytest.approx([prefill + 112 * T_128] * 4)
    rows = ls.simulate(scheduler, workload, ls.EngineConfig(PAPER, token_budget=512)).requests
    assert rows.first_token - arrival == pytest.approx([prefill] * 4)
    assert rows.finish - arrival == pytest.approx([prefill + 111 * T_128] * 4)


@pytest.mark.parametrize("name", ["sarathi", "orca"])
def test_a_chunked_prompt_pays_for_every_chunk(name):
    # 300 tokens under a budget of 128: chunks of 128, 128 and 44, all of one stair.
    workload = ls.Workload.from_arrays([3.0], [300], [5])
    row = ls.simulate(baselines.get(name)(token_budget=128), workload, paper_engine(512)).requests[0]
    assert row.first_token == pytest.approx(3.0 + 4 * T_128)
    assert row.finish == pytest.approx(3.0 + 8 * T_128)
