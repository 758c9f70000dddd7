"""Comparisons: shared workloads, resuming, tables and the report, on runs of a second."""

import base64
import dataclasses
import math
import re
import sys

import numpy as np
import pytest

import baselines
from llmsched_env.evaluation import compare as compare_function
from llmsched_env.evaluation import seed_range, text_table, write_report
from llmsched_env.evaluation.cases import TEST_SEEDS, TRAINING_SEEDS, TUNING_SEEDS
from llmsched_env.evaluation.table import COLUMNS, comparison_tables, format_interval
from llmsched_env.intervals import mean_interval
from llmsched_env.machine.batch_time import Staircase
from llmsched_env.machine.config import EngineConfig
from llmsched_env.simulator.simulate import simulate
from llmsched_env.slo import SLO
from llmsched_env.theory import mean_latency_bound
from llmsched_env.workloads import Workload

ENGINE = EngineConfig(Staircase(c=0.01128, a=0.03547, b0=128), token_budget=128, name="small")
SEEDS = (1, 2, 3)
RANDOM = Workload.poisson(rate=10.0, prompt_tokens=129, output_tokens=20, horizon=10.0)
TRACE = Workload.from_arrays(np.arange(40) / 8, np.full(40, 100), np.tile([1, 30], 20))
SCHEDULERS = {"sarathi": baselines.sarathi, "orca": baselines.orca}
LIMITS = SLO(ttft=0.5, tpot=0.06)


def compare(schedulers=SCHEDULERS, workloads=None, loads=(0.6,), seeds=SEEDS, slo=LIMITS, **more):
    return compare_function(
        schedulers, workloads or {"random": RANDOM}, loads, seeds, ENGINE, slo=slo, progress=False, **more
    )


@pytest.fixture(scope="module")
def comparison():
    frozen = baselines.vllm_prefill_first(token_budget=64)  # no prompt fits
    return compare(SCHEDULERS | {"<frozen>": frozen}, {"random": RANDOM, "trace": TRACE}, (0.5, "recorded"))


@pytest.fixture(scope="module")
def html(comparison, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "deeper" / "report.html"
    return write_report(comparison, path, reference="sarathi", command="llmsched evaluate").read_text("utf-8")


@pytest.fixture
def runs(monkeypatch):
    """Names of the schedulers that are really simulated, in order."""
    module = sys.modules["llmsched_env.evaluation.comparison"]
    real, seen = module.simulate_many, []

    def counted(scheduler, *args, **more):
        if getattr(counted, "interrupt_at", None) == len(seen):
            raise KeyboardInterrupt
        seen.append(repr(scheduler))
        return real(scheduler, *args, **more)

    monkeypatch.setattr(module, "simulate_many", counted)
    counted.seen = seen
    return counted


def test_every_scheduler_gets_the_same_requests(comparison):
    for _, _, cells in comparison.by_workload_and_load():
        for cell in cells[1:]:
            for column in ("arrival", "prompt_tokens", "output_tokens"):
                np.testing.assert_array_equal(cell.requests[column], cells[0].requests[column])


def test_cells_hold_the_summary_of_each_seed(comparison):
    offered = RANDOM.at_load(0.5, ENGINE)
    cell = comparison.cells["orca", "random", 0.5]
    assert cell.rate == offered.rate == pytest.approx(0.5 * cell.capacity)
    for i, seed in enumerate(SEEDS):
        summary = simulate(baselines.orca, offered, ENGINE, seed=seed).summary(LIMITS)
        assert {name: cell.metrics[name][i] for name in summary} == pytest.approx(summary, nan_ok=True)
    assert cell.interval("mean_ttft_ms") == mean_interval(cell.metrics["mean_ttft_ms"])


def test_the_distance_to_the_bound_is_shown_where_all_finished(comparison):
    offered = RANDOM.at_load(0.5, ENGINE)
    bounds = [1e3 * mean_latency_bound(offered.sample(seed), ENGINE) for seed in SEEDS]
    cell = comparison.cells["orca", "random", 0.5]
    assert cell.metrics["mean_e2el_bound_ms"] == pytest.approx(bounds)
    assert cell.metrics["e2el_over_bound"] == pytest.approx(np.divide(cell.metrics["mean_e2el_ms"], bounds))
    assert min(cell.metrics["e2el_over_bound"]) >= 1
    frozen = comparison.cells["<frozen>", "random", 0.5]
    assert np.isnan(frozen.metrics["e2el_over_bound"]).all()
    block = comparison_tables(comparison)[0]
    column = [column.metric for column in block.columns].index("e2el_over_bound")
    assert [row.numbers[column].value == "–" for row in block.rows] == [False, False, True]
    assert f"mean E2E at least {np.mean(bounds) / 1e3:.4g} s" in block.caption


def test_no_distance_to_the_bound_when_the_clock_stops_before_all_finished():
    cell = compare(horizon=2.0, seeds=(1,)).cells["sarathi", "random", 0.6]
    assert math.isnan(cell.metrics["e2el_over_bound"][0])


def test_recorded_means_the_workloads_own_rate(comparison):
    assert comparison.cells["orca", "random", "recorded"].rate == 10.0
    np.testing.assert_array_equal(comparison.cells["orca", "trace", "recorded"].requests.arrival, np.arange(40) / 8)


def test_a_trace_runs_once_and_has_no_intervals(comparison):
    cell = comparison.cells["sarathi", "trace", 0.5]
    assert cell.seeds == (SEEDS[0],)
    assert math.isnan(cell.interval("mean_ttft_ms")[1])
    tables = comparison_tables(comparison, "sarathi")
    of_trace = [table for table in tables if table.title.startswith("trace")]
    assert len(of_trace) == 4
    assert all("one trace, so no intervals" in table.caption for table in of_trace)
    assert not any(number.half_width or number.verdict for t in of_trace for row in t.rows for number in row.numbers)


def test_a_stalled_scheduler_is_unstable_and_misses_every_slo(comparison):
    cell = comparison.cells["<frozen>", "random", 0.5]
    assert cell.stalls == len(SEEDS)
    assert cell.stability.verdict == "unstable"
    assert set(cell.metrics["slo_attainment"]) == {0.0}
    assert "3 of 3 stalled" in comparison_tables(comparison)[0].rows[2].growth


def test_interrupted_comparison_goes_on_with_identical_numbers(tmp_path, runs):
    runs.interrupt_at = 3
    with pytest.raises(KeyboardInterrupt):
        compare(loads=(0.5, 0.7), folder=tmp_path)
    runs.interrupt_at = None
    resumed = compare(loads=(0.5, 0.7), folder=tmp_path)
    assert len(runs.seen) == 4  # three before the interruption, one after it
    at_once = compare(loads=(0.5, 0.7))
    for key, cell in at_once.cells.items():
        kept = resumed.cells[key]
        assert kept.requests.tobytes() == cell.requests.tobytes()
        for field in dataclasses.fields(cell):
            if field.name != "requests":
                np.testing.assert_equal(getattr(kept, field.name), getattr(cell, field.name))
    assert text_table(resumed, "orca") == text_table(at_once, "orca")


def test_kept_cells_are_used_only_for_exactly_the_same_run(tmp_path, runs):
    def simulated(**change) -> int:
        before = len(runs.seen)
        compare(**{"schedulers": {"s": baselines.sarathi}, "folder": tmp_path, **change})
        return len(runs.seen) - before

    assert simulated() == 1
    assert simulated() == 0
    assert simulated(schedulers={"s": baselines.sarathi, "other": baselines.orca}) == 1
    assert simulated(schedulers={"s": baselines.sarathi(token_budget=256)}) == 1
    assert simulated(schedulers={"s": baselines.orca}) == 1
    assert simulated(seeds=(1, 2)) == 1
    assert simulated(slo=None) == 1
    assert simulated(horizon=5.0) == 1
    assert simulated(workloads={"random": Workload.poisson(10.0, 129, 21, 10.0)}) == 1
    assert simulated() == 0


class FixedBudget:
    """A controller that never changes its mind."""

    interval = None

    def fresh(self, engine):
        return self

    def decide(self, view):
        return baselines.sarathi.param_values()


def test_controllers_are_told_apart_by_their_digest(tmp_path, runs):
    controller = FixedBudget()
    schedulers = {"learned": dataclasses.replace(baselines.sarathi, controller=controller)}
    with pytest.raises(ValueError, match="digest"):
        compare(schedulers, folder=tmp_path)
    assert not runs.seen
    assert compare(schedulers).settings["learned"].endswith("set before every batch by FixedBudget")
    for weights in ("a", "b", "a"):
        controller.digest = weights
        compare(schedulers, folder=tmp_path)
    assert len(runs.seen) == 3  # without a folder, "a" and "b"


def test_stop_at_a_horizon_leaves_requests_in_the_system():
    cell = compare(horizon=2.0, seeds=(1,)).cells["sarathi", "random", 0.6]
    assert cell.end == 2.0
    assert cell.metrics["num_requests"][0] > cell.metrics["completed"][0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"schedulers": {}}, "schedulers is empty"),
        ({"loads": ()}, "loads is empty"),
        ({"seeds": ()}, "seeds is empty"),
        ({"loads": (0.0,)}, "load must be"),
        ({"loads": (-1.0,)}, "load must be"),
        ({"notes": {"unknown": "tuned"}}, "unknown"),
    ],
)
def test_bad_input_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        compare(**arguments)


def test_text_table_has_capacity_intervals_and_paired_differences(comparison):
    text = text_table(comparison, "sarathi")
    cell = comparison.cells["sarathi", "random", 0.5]
    assert f"offered {cell.rate:.4g} requests/s, reference capacity {cell.capacity:.4g} requests/s (0.5 of it)" in text
    for words in ("sarathi", "orca", "<frozen>", "over 3 seeds", "one trace", "unstable", "Goodput", "SLO", "±"):
        assert words in text
    assert max(map(len, text.splitlines())) <= 100
    assert "…" not in text  # no title is cut off

    difference = next(table for table in comparison_tables(comparison, "sarathi") if "difference to" in table.title)
    column = [column.metric for column in COLUMNS].index("mean_ttft_ms")
    other = comparison.cells["orca", "random", 0.5]
    mean, half_width = mean_interval(np.subtract(other.metrics["mean_ttft_ms"], cell.metrics["mean_ttft_ms"]))
    number = difference.rows[0].numbers[column]
    assert float(number.value) == pytest.approx(mean / 1e3, abs=0.06 * half_width / 1e3)
    assert float(number.half_width) == pytest.approx(half_width / 1e3, rel=0.1)
    assert mean != 0
    assert number.mark == ("" if abs(mean) < half_width else "✓" if mean < 0 else "✗")


def test_unknown_reference_is_refused(comparison):
    with pytest.raises(ValueError, match="sarathy"):
        text_table(comparison, "sarathy")


@pytest.mark.parametrize(
    ("value", "half_width", "expected"),
    [
        (12.3456, 0.219, ("12.35", "0.22")),
        (12345.6, 789.0, ("12346", "789")),
        (0.5, 1.13, ("0.5", "1.1")),
        (-0.001, 0.12, ("0.00", "0.12")),
        (1.0, 0.0, ("1.000", "0.000")),
        (12.3456, math.nan, ("12.35", "")),
        (math.nan, math.nan, ("–", "")),
    ],
)
def test_numbers_are_rounded_to_their_uncertainty(value, half_width, expected):
    assert format_interval(value, half_width) == expected


def test_report_is_one_file_without_references_to_elsewhere(html):
    pictures = [base64.b64decode(data).decode() for data in re.findall(r'base64,([^"]+)"', html)]
    assert len(pictures) == 6
    assert all("<svg" in picture for picture in pictures)
    assert "http://" not in html and "https://" not in html
    assert not re.findall(r"<(?:script|link|iframe)|@import|url\(", html)
    assert not any(re.findall(r'href="(?!#)', picture) for picture in pictures)
    assert len(html) < 3e6


def test_report_has_all_sections_and_what_was_run(html, comparison):
    assert re.findall(r'<section id="(\w+)"', html) == ["results", "queue", "latency", "load", "setup", "terms"]
    for words in (
        *("small", "128 tokens and any number of requests", "ttft ≤ 0.5 s, tpot ≤ 0.06 s", "until drained"),
        *("sarathi(token_budget=512", "published defaults", "set for this comparison", "llmsched evaluate"),
        *("1 to 3", "one trace", comparison.versions["numpy"], "&lt;frozen&gt;"),
    ):
        assert words in html
    assert "<frozen>" not in html


def test_own_limits_of_requests_are_named_in_the_report(tmp_path):
    workload = Workload.from_arrays(np.arange(5.0), np.full(5, 10), np.full(5, 3), slo=SLO(ttft=0.25))
    own = compare(workloads={"w": workload}, loads=("recorded",), slo=None)
    assert "ttft ≤ 0.25 s" in write_report(own, tmp_path / "report.html").read_text("utf-8")


def test_a_workload_without_a_rate_is_reported_too(tmp_path):
    burst = Workload.from_arrays(np.zeros(5), np.full(5, 10), np.full(5, 3))
    html = write_report(compare(workloads={"b": burst}, loads=("recorded",)), tmp_path / "b.html").read_text("utf-8")
    assert html.count("base64,") == 2  # nothing to draw against load


def test_seed_ranges_do_not_meet():
    ranges = [set(seed_range(first, 10_000)) for first in (TRAINING_SEEDS, TUNING_SEEDS, TEST_SEEDS)]
    assert len(set.union(*ranges)) == 30_000
    assert list(seed_range(TEST_SEEDS, 2)) == [30_000, 30_001]
    for count in (0, 10_001):
        with pytest.raises(ValueError, match="number of seeds"):
            seed_range(TEST_SEEDS, count)


def test_limited_memory_has_a_table_of_its_own():
    tight = dataclasses.replace(ENGINE, kv_blocks=40, prefix_caching=True)
    one = compare_function(SCHEDULERS, {"random": RANDOM}, (0.9,), SEEDS, tight, slo=LIMITS, progress=False)
    memory = [table for table in comparison_tables(one) if "KV memory" in table.title]
    titles = [column.metric for column in memory[0].columns]
    assert len(memory) == 1 and [row.scheduler for row in memory[0].rows] == list(SCHEDULERS)
    for row in memory[0].rows:
        cell = one.cells[row.scheduler, "random", 0.9]
        for name in ("mean_kv_usage", "max_kv_usage", "preemption_rate", "recomputed_tokens", "prefix_hit_rate"):
            assert row.numbers[titles.index(name)].value != "–"
            assert np.isfinite(cell.metrics[name]).all()
        assert max(cell.metrics["max_kv_usage"]) <= 1
    assert "KV memory" in text_table(one)
    assert not any("KV memory" in table.title for table in comparison_tables(compare()))
