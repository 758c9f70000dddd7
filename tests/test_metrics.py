"""Metrics against rows whose numbers are worked out by hand."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import baselines
from llmsched_env.intervals import mean_interval, paired_interval
from llmsched_env.machine.batch_time import Staircase
from llmsched_env.machine.config import EngineConfig
from llmsched_env.results import metrics
from llmsched_env.results.records import BATCH_DTYPE, ENTRY_DTYPE, REQUEST_DTYPE, STATUSES, Result
from llmsched_env.results.stability import backlog_slope, stability
from llmsched_env.simulator.simulate import simulate
from llmsched_env.slo import SLO
from llmsched_env.workloads import Workload

NAN = math.nan

STATISTICS = ("mean", "median", "std", "p90", "p95", "p99")
NAMES = {
    *("completed", "duration", "total_input_tokens", "total_output_tokens"),
    *("request_throughput", "output_throughput", "total_token_throughput", "request_goodput", "slo_attainment"),
    *("num_requests", "rejected", "abandoned", "preemptions", "preemption_rate", "recomputed_tokens"),
    *("mean_num_in_system", "prefix_hit_rate", "mean_kv_usage", "max_kv_usage"),
    *(f"{statistic}_{name}_ms" for statistic in STATISTICS for name in ("ttft", "tpot", "itl", "e2el")),
}


def request_rows(*rows: dict) -> np.recarray:
    defaults = dict.fromkeys(REQUEST_DTYPE.names, 0) | {
        "first_scheduled": NAN,
        "first_token": NAN,
        "finish": NAN,
        "predicted_output": NAN,
        "status": "active",
        "session": -1,
        "task": -1,
        "ttft_slo": math.inf,
        "tpot_slo": math.inf,
    }
    table = np.empty(len(rows), dtype=REQUEST_DTYPE)
    for i, row in enumerate(rows):
        given = defaults | row
        left = given["arrival"] if given["status"] == "rejected" else given["finish"]
        table[i] = tuple(({"left": left} | row if name == "left" else given)[name] for name in REQUEST_DTYPE.names)
    return table.view(np.recarray)


def batch_rows(*rows: dict) -> np.recarray:
    table = np.zeros(len(rows), dtype=BATCH_DTYPE)
    for i, row in enumerate(rows):
        for name, value in row.items():
            table[i][name] = value
    return table.view(np.recarray)


def run(
    requests, batches=None, gaps=(), end=10.0, stalled_since=NAN, first_token="with_prefill", kv_blocks=None
) -> Result:
    return Result(
        requests=requests,
        batches=batches,
        batch_entries=None,
        token_gaps=np.array(gaps, dtype=float).reshape(-1, 3),
        end=end,
        stalled_since=stalled_since,
        scheduler="by hand",
        workload="rows",
        seed=0,
        engine=SimpleNamespace(first_token=first_token, kv_blocks=kv_blocks),
    )


def finished(arrival, first_token, finish, prompt=1, output=1, **more) -> dict:
    return {
        "arrival": arrival,
        "first_scheduled": arrival,
        "first_token": first_token,
        "finish": finish,
        "prompt_tokens": prompt,
        "output_tokens": output,
        "computed": prompt + output - 1,
        "generated": output,
        "status": "finished",
    } | more


def three() -> Result:
    """Three finished requests in 10 s; the second has one output token."""
    rows = request_rows(
        finished(0.0, 1.0, 3.0, prompt=10, output=5),  # ttft 1, tpot 0.5, e2el 3
        finished(1.0, 3.0, 3.0, prompt=20, output=1),  # ttft 2, e2el 2
        finished(4.0, 7.0, 10.0, prompt=30, output=4, preemptions=2, recomputed=9),  # ttft 3, tpot 1, e2el 6
    )
    return run(rows, gaps=[(1.5, 0.5, 1), (2.0, 0.5, 1), (2.5, 0.5, 2), (10.0, 1.0, 3)])


def test_every_metric_of_a_run_by_hand():
    numbers = three().summary(SLO(ttft=2.0, tpot=0.5))
    itl = [0.5] * 4 + [1.0] * 3
    expected = {
        "num_requests": 3,
        "completed": 3,
        "duration": 10,
        "total_input_tokens": 60,
        "total_output_tokens": 10,
        "request_throughput": 0.3,
        "output_throughput": 1.0,
        "total_token_throughput": 7.0,
        "mean_ttft_ms": 2000,
        "median_ttft_ms": 2000,
        "std_ttft_ms": 1000 * math.sqrt(2 / 3),
        "p90_ttft_ms": 2800,
        "p95_ttft_ms": 2900,
        "p99_ttft_ms": 2980,
        "mean_tpot_ms": 750,
        "median_tpot_ms": 750,
        "std_tpot_ms": 250,
        "p90_tpot_ms": 950,
        "p95_tpot_ms": 975,
        "p99_tpot_ms": 995,
        "mean_itl_ms": 1000 * 5 / 7,
        "median_itl_ms": 500,
        "std_itl_ms": 1000 * np.std(itl),
        "p90_itl_ms": 1000 * np.percentile(itl, 90),
        "p95_itl_ms": 1000 * np.percentile(itl, 95),
        "p99_itl_ms": 1000 * np.percentile(itl, 99),
        "mean_e2el_ms": 1000 * 11 / 3,
        "median_e2el_ms": 3000,
        "std_e2el_ms": 1000 * np.std([3, 2, 6]),
        "p90_e2el_ms": 5400,
        "p95_e2el_ms": 5700,
        "p99_e2el_ms": 5940,
        "request_goodput": 0.2,
        "slo_attainment": 2 / 3,
        "rejected": 0,
        "abandoned": 0,
        "preemptions": 2,
        "preemption_rate": 2 / 3,
        "recomputed_tokens": 9,
        "mean_num_in_system": 1.1,
        "prefix_hit_rate": NAN,
        "mean_kv_usage": NAN,
        "max_kv_usage": NAN,
    }
    assert set(expected) == NAMES
    assert set(numbers) == NAMES
    assert all(type(value) is float for value in numbers.values())
    assert numbers == pytest.approx(expected, nan_ok=True)


def test_window_takes_latencies_by_arrival_and_throughput_by_completion():
    numbers = three().summary(SLO(ttft=2.0), window=(1.0, 5.0))
    assert numbers["num_requests"] == 2  # the second and the third
    assert numbers["completed"] == 2  # the first and the second, at 3
    assert numbers["duration"] == 4
    assert numbers["request_throughput"] == pytest.approx(0.5)
    assert numbers["output_throughput"] == pytest.approx(6 / 4)
    assert numbers["mean_ttft_ms"] == pytest.approx(2500)
    assert numbers["mean_tpot_ms"] == pytest.approx(1000)
    assert numbers["mean_itl_ms"] == pytest.approx(500)  # gaps that ended by 5
    assert numbers["request_goodput"] == pytest.approx(0.5)  # both that finished were good
    assert numbers["slo_attainment"] == pytest.approx(0.5)  # of those that arrived, the second
    assert numbers["mean_num_in_system"] == pytest.approx((2 + 2 + 1) / 4)


def test_window_is_closed_at_the_left_for_arrivals_and_at_the_right_for_completions():
    numbers = three().summary(window=(3.0, 4.0))
    assert numbers["num_requests"] == 0
    assert numbers["completed"] == 0
    assert math.isnan(numbers["mean_ttft_ms"])
    assert three().summary(window=(2.0, 3.0))["completed"] == 2


@pytest.mark.parametrize("window", [(1.0, 1.0), (2.0, 1.0), (-1.0, 1.0), (0.0, math.inf), (NAN, 1.0)])
def test_bad_window_is_refused(window):
    with pytest.raises(ValueError, match="window"):
        three().summary(window=window)


def test_window_past_the_end_is_refused_only_if_something_was_still_to_happen():
    unfinished = request_rows({"arrival": 0.0, "prompt_tokens": 1, "output_tokens": 1})
    with pytest.raises(ValueError, match=r"must end by 10\.0 s"):
        run(unfinished).summary(window=(0.0, 11.0))
    assert run(unfinished, stalled_since=1.0).summary(window=(0.0, 20.0))["mean_num_in_system"] == 1.0
    assert three().summary(window=(0.0, 20.0))["mean_num_in_system"] == pytest.approx(11 / 20)


def test_a_run_without_requests_has_no_latency():
    numbers = run(request_rows(), end=0.0).summary()
    assert numbers["completed"] == 0
    assert math.isnan(numbers["request_throughput"])
    assert math.isnan(numbers["mean_e2el_ms"])


def test_mean_e2el_of_an_unfinished_run_is_littles_estimate():
    rows = request_rows(
        finished(0.0, 1.0, 2.0),
        {"arrival": 4.0, "prompt_tokens": 1, "output_tokens": 9, "first_token": 5.0},
        {"arrival": 5.0, "prompt_tokens": 1, "output_tokens": 9, "status": "rejected"},
    )
    numbers = run(rows).summary()
    assert numbers["mean_e2el_ms"] == pytest.approx(1000 * (2 + 6) / 2)
    assert numbers["median_e2el_ms"] == pytest.approx(2000)
    assert numbers["mean_ttft_ms"] == pytest.approx(1000)  # the unfinished one has its first token too


def test_attainment_counts_unfinished_rejected_and_abandoned_as_missed():
    other = {"arrival": 0.0, "prompt_tokens": 1, "output_tokens": 2}
    rows = request_rows(
        finished(0.0, 1.0, 2.0),
        other | {"first_token": 0.5},
        other | {"status": "rejected"},
        other | {"status": "abandoned", "first_token": 0.5, "finish": 0.9},
    )
    numbers = run(rows).summary(SLO(ttft=1.0))
    assert numbers["slo_attainment"] == pytest.approx(0.25)
    assert numbers["request_goodput"] == pytest.approx(0.1)


def test_a_limit_is_met_when_equal_and_one_token_has_no_tpot():
    rows = request_rows(finished(0.0, 1.0, 3.0, output=5), finished(0.0, 9.0, 9.0, output=1))
    assert run(rows).summary(SLO(tpot=0.5))["slo_attainment"] == 1.0
    assert run(rows).summary(SLO(tpot=0.49))["slo_attainment"] == 0.5
    assert run(rows).summary(SLO(ttft=1.0))["slo_attainment"] == 0.5
    assert run(rows).summary(SLO(e2el=3.0))["slo_attainment"] == 0.5


def test_without_slo_each_request_has_its_own_limits():
    rows = request_rows(
        finished(0.0, 1.0, 3.0, output=5, ttft_slo=0.9),
        finished(0.0, 1.0, 3.0, output=5, tpot_slo=0.5),
        finished(0.0, 1.0, 3.0, output=5),
    )
    assert run(rows).summary()["slo_attainment"] == pytest.approx(2 / 3)
    assert run(rows).summary(SLO(ttft=0.9))["slo_attainment"] == 0.0


def test_no_finite_limit_means_no_goodput():
    numbers = three().summary()
    assert math.isnan(numbers["slo_attainment"])
    assert math.isnan(numbers["request_goodput"])
    assert math.isnan(three().summary(SLO())["request_goodput"])


@given(
    st.lists(st.tuples(st.floats(0, 1e3), st.integers(0, 40)), min_size=1, max_size=20),
    st.sampled_from([0, 1, 25, 50, 90, 99, 99.9, 100]),
)
def test_weighted_percentile_is_that_of_the_expanded_list(pairs, percentile):
    values, counts = np.array(pairs).T
    expanded = np.repeat(values, counts.astype(int))
    got = metrics.weighted_percentile(values, counts, percentile)
    if len(expanded):
        assert got == np.percentile(expanded, percentile)
    else:
        assert math.isnan(got)


@given(st.lists(st.tuples(st.floats(0.001, 10), st.integers(1, 40)), min_size=1, max_size=20))
def test_itl_statistics_are_those_of_the_expanded_gaps(pairs):
    gaps, counts = np.array(pairs).T
    numbers = run(request_rows(), gaps=[(1.0, gap, count) for gap, count in pairs]).summary()
    expanded = 1e3 * np.repeat(gaps, counts.astype(int))
    assert numbers["mean_itl_ms"] == pytest.approx(expanded.mean())
    assert numbers["std_itl_ms"] == pytest.approx(expanded.std(), abs=1e-6)
    assert numbers["median_itl_ms"] == pytest.approx(np.median(expanded))
    assert numbers["p99_itl_ms"] == pytest.approx(np.percentile(expanded, 99))


def test_number_in_system_counts_from_arrival_until_just_before_finish():
    result = three()
    assert [result.number_in_system(t) for t in (-0.1, 0.0, 1.0, 2.9, 3.0, 4.0, 10.0)] == [0, 1, 2, 2, 0, 1, 0]
    assert type(result.number_in_system(1.0)) is int
    np.testing.assert_array_equal(result.number_in_system(np.array([[0.5, 1.0], [3.5, 9.0]])), [[1, 2], [0, 1]])


def test_number_in_system_keeps_the_unfinished_and_never_counts_the_rejected():
    rows = request_rows({"arrival": 1.0}, {"arrival": 1.0, "status": "rejected", "finish": 5.0})
    np.testing.assert_array_equal(run(rows).number_in_system(np.array([0.9, 1.0, 100.0])), [0, 1, 1])


@given(
    st.lists(st.tuples(st.floats(0, 10), st.floats(0, 10), st.sampled_from(STATUSES)), max_size=8),
    st.floats(0, 10),
    st.floats(0, 10),
)
def test_integral_is_that_of_the_step_function(entries, t0, t1):
    t0, t1 = sorted((t0, t1))
    rows = request_rows(
        *({"arrival": a, "finish": a + s if status != "active" else NAN, "status": status} for a, s, status in entries)
    )
    times = np.unique(np.clip(np.concatenate((rows.arrival, rows.finish[~np.isnan(rows.finish)], [t0, t1])), t0, t1))
    steps = metrics.number_in_system(rows, times[:-1]) @ np.diff(times)
    assert metrics.integral_in_system(rows, t0, t1) == pytest.approx(steps, abs=1e-9)


def test_deterministic_service_queue_by_hand():
    """Constant service of 0.5 s (M/D/1 given its arrivals): Lindley's recursion by hand."""
    arrivals, departures = [0.0, 0.25, 0.5, 2.0], [0.5, 1.0, 1.5, 2.5]  # sojourns 0.5, 0.75, 1.0, 0.5
    rows = request_rows(*(finished(a, d, d) for a, d in zip(arrivals, departures, strict=True)))
    numbers = run(rows, end=2.5).summary()
    assert numbers["mean_e2el_ms"] == pytest.approx(687.5)
    assert numbers["mean_num_in_system"] == pytest.approx(2.75 / 2.5)
    assert numbers["mean_num_in_system"] == pytest.approx(numbers["request_throughput"] * 0.6875)  # Little's law


def worked() -> tuple[np.recarray, np.recarray]:
    """(s, o) = (4, 3) at 0 and (2, 1) at 1; the second batch starts by preempting the first request's 4 tokens."""
    requests = request_rows(
        finished(0.0, 1.0, 5.0, prompt=4, output=3, preemptions=1, recomputed=4),
        finished(1.0, 2.0, 2.0, prompt=2, output=1),
    )
    batches = batch_rows(
        {"start": 0.0, "duration": 1.0, "prefill_tokens": 4, "num_seqs": 1, "backlog": 6},
        {"start": 1.0, "duration": 1.0, "prefill_tokens": 2, "num_seqs": 1, "preemptions": 1, "recomputed": 4},
        {"start": 2.0, "duration": 2.0, "prefill_tokens": 5, "num_seqs": 1},
        {"start": 4.0, "duration": 1.0, "decode_tokens": 1, "num_seqs": 1},
    )
    return requests, batches


def test_backlog_by_hand_with_a_preemption():
    result = run(*worked(), end=5.0)
    times = np.array([-1.0, 0.0, 0.99, 1.0, 1.99, 2.0, 3.99, 4.0, 5.0])
    np.testing.assert_array_equal(result.backlog(times), [0, 6, 6, 2 + 4 + 2, 8, 6, 6, 1, 0])
    assert type(result.backlog(0.5)) is int


def test_backlog_counts_one_token_more_when_the_first_token_is_separate():
    requests = request_rows(finished(0.0, 2.0, 3.0, prompt=4, output=2, computed=6))
    batches = batch_rows(
        {"start": 0.0, "duration": 1.0, "prefill_tokens": 4},
        {"start": 1.0, "duration": 1.0, "decode_tokens": 1},
        {"start": 2.0, "duration": 1.0, "decode_tokens": 1},
    )
    result = run(requests, batches, end=3.0, first_token="separate")
    np.testing.assert_array_equal(result.backlog(np.arange(4.0)), [6, 2, 1, 0])


def test_backlog_ignores_the_rejected():
    rows = request_rows({"arrival": 0.0, "prompt_tokens": 9, "output_tokens": 9, "status": "rejected"})
    assert run(rows, batch_rows()).backlog(1.0) == 0


def test_backlog_of_who_gave_up_hits_the_cache_or_finished_while_it_waited():
    requests = request_rows(
        # 5 + 4 tokens of work: the prompt in the first batch; gone at 1.5 s with 4 left, of which one is under way
        {"arrival": 0.0, "left": 1.5, "status": "abandoned", "prompt_tokens": 5, "output_tokens": 5, "computed": 6},
        # 8 + 0 tokens of work, 6 of them cached as the second batch admits it
        finished(0.5, 2.0, 2.0, prompt=8, output=1, prefix_hit=6),
        # 3 + 1 tokens of work, all lost to the decision about the fourth batch while the third computed the last one
        finished(0.5, 2.0, 3.0, prompt=3, output=2, preemptions=1, recomputed=4, computed=0),
    )
    batches = batch_rows(
        {"start": 0.0, "duration": 1.0, "prefill_tokens": 5},
        {"start": 1.0, "duration": 1.0, "prefill_tokens": 5, "decode_tokens": 1, "prefix_hit": 6},
        {"start": 2.0, "duration": 1.0, "decode_tokens": 1},
        {"start": 3.0, "duration": 1.0, "recomputed": 4},
    )
    result = run(requests, batches, end=5.0)
    times = np.array([0.0, 0.5, 1.0, 1.5, 2.0, 2.9, 3.0, 5.0])
    np.testing.assert_array_equal(result.backlog(times), [9, 21, 21 - 5 - 6, 10 - 3, 7 - 6, 1, 0, 0])


def test_numbers_of_the_kv_cache_by_hand():
    rows = request_rows(
        finished(0.0, 1.0, 3.0, preemptions=3, recomputed=7),
        {"arrival": 1.0, "status": "abandoned", "left": 2.0, "recomputed": 5},
        {"arrival": 1.0, "status": "rejected"},
        {"arrival": 3.0, "status": "rejected"},
    )
    batches = batch_rows(
        {"start": 0.0, "duration": 1.0, "prefill_tokens": 30, "kv_blocks_used": 4},
        {"start": 1.0, "duration": 3.0, "prefill_tokens": 10, "prefix_hit": 60, "kv_blocks_used": 8},
        {"start": 4.0, "duration": 1.0, "decode_tokens": 9, "kv_blocks_used": 10},
    )
    names = ("rejected", "abandoned", "preemption_rate", "recomputed_tokens")
    names += ("prefix_hit_rate", "mean_kv_usage", "max_kv_usage")

    def numbers(window=None, kv_blocks=16):
        summary = run(rows, batches, kv_blocks=kv_blocks).summary(window=window)
        return [summary[name] for name in names]

    assert numbers() == [2, 1, 0.75, 12, 0.6, (4 + 24 + 10) / (5 * 16), 10 / 16]
    assert numbers((1.0, 4.0)) == [2, 1, 0, 5, 60 / 70, 0.5, 0.5]
    assert numbers((5.0, 6.0))[:2] == [0, 0] and np.isnan(numbers((5.0, 6.0))[4:]).all()
    assert numbers(kv_blocks=None)[:5] == numbers()[:5] and np.isnan(numbers(kv_blocks=None)[5:]).all()


def test_backlog_needs_batches():
    with pytest.raises(ValueError, match='record="batches"'):
        three().backlog(1.0)


def growing(rate: float, served: float, seed: int = 0, horizon: int = 200, stalled_since: float = NAN) -> Result:
    """About `rate` requests of 1 + 1 tokens each second ("separate"), of which `served` tokens/s are worked off."""
    arrivals = np.sort(np.random.default_rng(seed).uniform(0, horizon, round(rate * horizon)))
    requests = request_rows(*({"arrival": t, "prompt_tokens": 1, "output_tokens": 1} for t in arrivals))
    done, batches = 0.0, []
    for second in range(horizon):
        tokens = min(served, 2 * np.count_nonzero(arrivals <= second) - done)
        done += tokens
        batches.append({"start": second, "duration": 1.0, "prefill_tokens": tokens})
    return run(requests, batch_rows(*batches), end=horizon, stalled_since=stalled_since, first_token="separate")


def test_backlog_slope_of_evenly_growing_work():
    arrivals = np.arange(0, 100, 0.1)
    rows = request_rows(*({"arrival": t, "prompt_tokens": 3, "output_tokens": 1} for t in arrivals))
    slope = backlog_slope(run(rows, batch_rows(), end=100.0), 20.0, 80.0)
    assert slope == pytest.approx(30.0, rel=1e-3)
    with pytest.raises(ValueError, match="start"):
        backlog_slope(run(rows, batch_rows()), 5.0, 5.0)


def test_stability_of_over_and_underloaded_systems():
    verdict, slope, half_width = stability([growing(10, 12, seed) for seed in range(4)])
    assert verdict == "unstable"  # 20 tokens/s offered, 12 served: two fifths pile up
    assert abs(slope - 0.4) < 0.1
    assert half_width < 0.1
    verdict, slope, _ = stability([growing(10, 40, seed) for seed in range(4)])
    assert verdict == "stable"
    assert abs(slope) < 0.01


def test_stability_of_one_trace_uses_blocks_of_it():
    assert stability([growing(10, 12)]).verdict == "unstable"
    stable = stability([growing(10, 40)])
    assert stable.verdict == "stable"
    assert stable.half_width > 0


def test_stability_is_undecided_without_evidence_and_a_stall_is_unstable():
    critical = [growing(10, served, seed) for seed, served in enumerate((40, 16))]
    assert stability(critical).verdict == "undecided"
    assert stability([growing(10, 40, stalled_since=150.0)]).verdict == "unstable"
    assert stability([run(request_rows(), batch_rows())]).verdict == "undecided"
    with pytest.raises(ValueError, match="results"):
        stability([])


def test_t_interval_by_hand():
    # mean 2, sd 1, n 3; the 97.5 % quantile of Student's t with 2 degrees of freedom is 4.30265
    mean, half_width = mean_interval([1.0, 2.0, 3.0])
    assert mean == pytest.approx(2.0)
    assert half_width == pytest.approx(4.30265 / math.sqrt(3), rel=1e-5)


def test_interval_of_one_value_is_unknown_and_of_none_too():
    assert mean_interval([4.0])[0] == 4.0
    assert math.isnan(mean_interval([4.0])[1])
    assert all(math.isnan(value) for value in mean_interval([]))


def test_paired_interval_removes_what_both_share():
    shared = np.array([0.0, 100.0, -50.0])
    mean, half_width = paired_interval(shared + [1.0, 2.0, 3.0], shared)
    assert (mean, half_width) == pytest.approx(mean_interval([1.0, 2.0, 3.0]))
    with pytest.raises(ValueError, match="2 and 3"):
        paired_interval([1, 2], [1, 2, 3])


def test_result_describes_itself():
    assert repr(three()) == "Result(by hand on rows, seed 0: 3 of 3 requests finished, 10 s)"
    frozen = run(request_rows({"arrival": 0.0}), batch_rows(), stalled_since=2.0)
    assert repr(frozen).endswith("0 of 1 requests finished, 0 batches, 10 s, STALLED since 2 s)")
    assert frozen.stalled and not frozen.drained
    assert three().drained and not three().stalled


def test_to_pandas_gives_the_recorded_tables():
    pandas = pytest.importorskip("pandas")
    frame = run(*worked()).to_pandas("batches")
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame.columns) == list(BATCH_DTYPE.names)
    assert three().to_pandas()["status"].tolist() == ["finished"] * 3
    with pytest.raises(ValueError, match="record='entries'"):
        three().to_pandas("batch_entries")
    with pytest.raises(ValueError, match="table='rows'"):
        three().to_pandas("rows")


def test_columns_are_those_promised():
    assert REQUEST_DTYPE.names == (
        *("arrival", "first_scheduled", "first_token", "finish", "prompt_tokens", "output_tokens", "predicted_output"),
        *("computed", "generated", "preemptions", "recomputed", "prefix_hit", "status", "client", "klass", "priority"),
        *("session", "task", "engine", "ttft_slo", "tpot_slo", "left"),
    )
    assert BATCH_DTYPE.names == (
        *("start", "duration", "prefill_tokens", "decode_tokens", "num_seqs", "num_waiting", "kv_blocks_used"),
        *("preemptions", "backlog", "num_in_system", "engine", "recomputed", "prefix_hit", "swapped", "num_running"),
        "decided",
    )
    assert ENTRY_DTYPE.names == ("batch", "request", "tokens", "is_prefill")


@pytest.mark.parametrize("first_token", ["with_prefill", "separate"])
@pytest.mark.parametrize("kv_blocks", [None, 40])
def test_rows_of_a_run_agree_with_what_the_engine_counted(first_token, kv_blocks):
    """Backlog and number in system from request rows equal the engine's own at every batch, preemptions included."""
    engine = EngineConfig(Staircase(0.01128, 0.03547, 128), 512, kv_blocks=kv_blocks, first_token=first_token)
    result = simulate(baselines.sarathi, Workload.poisson(9.0, 129, 50, 20.0), engine, seed=3)
    batches = result.batches
    assert (batches.preemptions.sum() > 0) == (kv_blocks is not None)
    np.testing.assert_array_equal(result.backlog(batches.start), batches.backlog)
    np.testing.assert_array_equal(result.number_in_system(batches.start), batches.num_in_system)
    assert result.backlog(result.end) == 0
    numbers = result.summary()
    assert numbers["completed"] == len(result.requests)
    assert result.token_gaps[:, 2].sum() == numbers["total_output_tokens"] - numbers["completed"]
    assert numbers["mean_itl_ms"] == pytest.approx(numbers["mean_tpot_ms"])  # equal outputs: equal weights
