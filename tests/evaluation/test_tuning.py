"""Tuning: known optima, provenance, resuming and what is compared afterwards, on runs of a few requests."""

import json
from math import inf

import numpy as np
import pytest

import baselines
import llmsched_env as ls
from llmsched_env.evaluation import OBJECTIVES, compare, tune, tune_all
from llmsched_env.evaluation.cases import Cases
from llmsched_env.evaluation.tuning import tunable

ENGINE = ls.EngineConfig(ls.Hinge(c=1.0, a=0.0, b0=1000), name="a second a batch")
ONE = ls.Workload.from_arrays([0.0], [10], [1], slo=ls.SLO(ttft=1.5))
RANDOM = ls.Workload.poisson(rate=2.0, prompt_tokens=20, output_tokens=3, horizon=10.0, slo=ls.SLO(ttft=5, tpot=2))


def compose(view):
    """Sleeps for |x - 3| s, for ever if x is above 9, and then serves all there is."""
    start = abs(view.mem.params[0] - 3.0)
    if view.mem.params[0] > 9.0:
        return inf
    if view.clock < start:
        return start
    ls.decodes(view, view.running)
    ls.chunks(view, view.running, ls.ALL)
    ls.chunks(view, view.waiting, ls.ALL)
    return inf


def sleeper(default=0.0, tune=ls.Linear(0, 10)):  # noqa: B008
    return ls.Scheduler("sleeper", compose, params={"x": ls.Param(default, 0, 1e12, "", tune), "y": ls.Param(1, 0, 2)})


def quietly(scheduler=None, workload=ONE, objective="mean_e2el", **more):
    return tune(scheduler or sleeper(), workload, ENGINE, objective, progress=False, **more)


@pytest.fixture
def batches(monkeypatch):
    """How many settings each call to the simulator held; raises in place of the call number `interrupt_at`."""
    real, seen = Cases.map, []

    def counted(self, schedulers, measure):
        if len(seen) == counted.interrupt_at:
            raise KeyboardInterrupt
        seen.append(len(schedulers))
        return real(self, schedulers, measure)

    monkeypatch.setattr(Cases, "map", counted)
    counted.interrupt_at, counted.seen = None, seen
    return counted


def test_a_known_optimum_is_found():
    """One request at time 0, served |x - 3| s later in a batch of one second: latency 1 + |x - 3| s, 4 s at x = 0."""
    found = quietly(trials=60)
    assert found.default_value == 4000.0
    assert found.scheduler.values["x"] == pytest.approx(3.0, abs=0.1)
    for trial in found.trials[1:]:
        if trial.values["x"] <= 9:
            assert trial.value == pytest.approx(1000 + 1000 * abs(trial.values["x"] - 3))
    assert found.value == min(trial.value for trial in found.trials)
    assert "best of 60 settings by mean_e2el on arrays at load recorded, one trace" in found.note


def test_the_outcome_is_never_worse_than_the_scheduler_as_it_came():
    found = quietly(sleeper(default=3.0), trials=9)
    assert found.scheduler == sleeper(default=3.0)  # nothing beats a latency of one second
    assert found.value == found.default_value == 1000.0
    for objective in OBJECTIVES:
        found = quietly(baselines.sarathi, RANDOM, objective, trials=5, seeds=(1, 2))
        assert OBJECTIVES[objective].score(found.value) >= OBJECTIVES[objective].score(found.default_value)


def test_choices_are_tried_and_bound_parameters_stay():
    found = quietly(sleeper(tune=(0, 2, 3, 8)), trials=30)
    assert {trial.values.get("x") for trial in found.trials} == {None, 0, 2, 3, 8}
    assert found.scheduler.values == {"x": 3}
    assert list(tunable(baselines.sarathi(token_budget=100))) == ["max_num_seqs"]
    found = quietly(baselines.sarathi(token_budget=100), RANDOM, trials=5, seeds=(1,))
    assert all(set(trial.values) <= {"max_num_seqs"} for trial in found.trials)
    assert found.scheduler.values["token_budget"] == 100 and found.provenance["bound"] == {"token_budget": 100}


def test_equal_arguments_give_equal_outcomes_and_more_trials_go_on():
    a, b, longer = quietly(trials=10), quietly(trials=10), quietly(trials=15)
    assert a.trials == b.trials == longer.trials[:10]
    assert len(longer.trials) == 15


def test_runs_that_stall_or_never_end_count_with_the_longest_time():
    """A request a second for 29 s, of 10 tokens, with batches of 16384 in a second: ten times 29 + 30/1638.4 + 2 s.

    The 2 s are a request alone, a batch for its prompt and one for its output token.
    """
    arrivals = ls.Workload.from_arrays(np.arange(30.0), np.full(30, 10), np.full(30, 1), slo=ls.SLO(ttft=1.0))
    asleep = sleeper(default=20.0)  # returns inf: stalls
    found = quietly(asleep, arrivals, trials=1)
    longest = found.provenance["longest_run_s"]
    assert longest == pytest.approx(10 * (29 + 30 / 1638.4 + 2))
    assert found.value == pytest.approx(1e3 * longest)
    assert quietly(asleep, arrivals, "slo_attainment", trials=1).value == 0.0
    assert quietly(asleep, arrivals, "throughput", trials=1).value == 0.0
    late = ls.Scheduler("late", wakes_late, params={"x": ls.Param(0, 0, 1, "", (0, 1))})  # wakes after 1e9 s
    assert quietly(late, arrivals, trials=1).value == pytest.approx(1e3 * longest)


def wakes_late(view):
    if view.clock < 1e9:
        return 1e9
    ls.chunks(view, view.waiting, ls.ALL)
    return inf


def test_objectives_are_those_of_the_summary_where_all_finish():
    result = ls.simulate(baselines.sarathi, RANDOM, ENGINE, seed=1)
    assert result.drained
    summary = result.summary()
    for objective in OBJECTIVES.values():
        value, share = objective.of_run(result, None, 1e6)
        assert value == pytest.approx(summary[objective.metric])
        assert share == 1.0
    tight = OBJECTIVES["p99_ttft"].of_run(result, ls.SLO(tpot=0.5), 1e6)  # every batch takes a second
    assert tight == (pytest.approx(summary["p99_ttft_ms"]), 0.0)


def test_a_setting_that_breaks_the_tpot_bound_is_worse_than_any_that_keeps_it():
    bound = OBJECTIVES["p99_ttft"]
    assert bound.of_runs([(100.0, 1.0), (300.0, 0.98)], longest=50.0) == 200.0  # 0.99 on average: kept
    assert bound.of_runs([(100.0, 1.0), (300.0, 0.96)], longest=50.0) == pytest.approx(50e3 * 1.01)
    kept, barely, badly = (bound.of_runs([(value, share)], 50.0) for value, share in ((50e3, 1), (1, 0.98), (1, 0.1)))
    assert kept < barely < badly


def test_the_file_says_all_and_is_found_again(tmp_path, batches):
    first = quietly(workload=RANDOM, objective="slo_attainment", seeds=(5, 6), trials=9, folder=tmp_path, load=0.01)
    assert batches.seen == [1, 4, 4]
    record = json.loads(first.file.read_text())
    assert record == json.loads(json.dumps(first.provenance))
    assert record["seeds"] == [5, 6] and record["load"] == 0.01 and record["workload"] == "poisson"
    assert record["simulations"] == 2 * 9 and len(record["trials"]) == 9
    assert {"sources", "numpy", "optuna"} <= set(record["versions"])
    offered = RANDOM.at_load(0.01, ENGINE)
    runs = [ls.simulate(sleeper()(**record["values"]), offered, ENGINE, seed=seed) for seed in (5, 6)]
    assert record["value"] == pytest.approx(np.mean([run.summary()["slo_attainment"] for run in runs]))

    again = quietly(workload=RANDOM, objective="slo_attainment", seeds=(5, 6), trials=9, folder=tmp_path, load=0.01)
    assert batches.seen == [1, 4, 4]
    assert (again.scheduler, again.trials, again.provenance) == (first.scheduler, first.trials, first.provenance)
    for change in ({"seeds": (5, 7)}, {"load": 0.02}, {"objective": "goodput"}, {"slo": ls.SLO(ttft=1)}):
        same = {"objective": "slo_attainment", "seeds": (5, 6), "load": 0.01}
        quietly(workload=RANDOM, trials=1, folder=tmp_path, **(same | change))
    assert batches.seen == [1, 4, 4, 1, 1, 1, 1]


def test_an_interrupted_search_goes_on_where_it_stopped(tmp_path, batches):
    batches.interrupt_at = 3
    with pytest.raises(KeyboardInterrupt):
        quietly(trials=20, folder=tmp_path)
    batches.interrupt_at = None
    resumed = quietly(trials=20, folder=tmp_path)
    assert batches.seen == [1, 4, 4, 4, 4, 3]
    assert resumed.trials == quietly(trials=20).trials
    longer = quietly(trials=22, folder=tmp_path)
    assert longer.trials[:20] == resumed.trials and batches.seen[-2:] == [1, 1]  # the batch of three had room for one
    assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scheduler": sleeper(tune=None)}, "no parameter to tune"),
        ({"scheduler": sleeper()(x=1)}, "no parameter to tune"),
        ({"objective": "latency"}, "objective must be .*'latency'"),
        ({"trials": 0}, "trials must be"),
        ({"seeds": ()}, "seeds is empty"),
        ({"load": 0.0}, "load must be"),
        ({"workload": ls.Workload.from_arrays([0.0], [1], [1]), "objective": "slo_attainment"}, "needs targets"),
        ({"objective": "p99_ttft"}, "needs a TPOT target"),
        ({"objective": "p99_ttft", "slo": ls.SLO(ttft=1)}, "needs a TPOT target"),
    ],
)
def test_bad_input_is_refused(arguments, message, batches):
    with pytest.raises(ValueError, match=message):
        quietly(**arguments)
    assert not batches.seen


@pytest.mark.parametrize("bad", [ls.Log(0, 5), ls.Linear(3, 2), (), (1, 99), ls.Log(1, inf), ls.Linear(-1, 3)])
def test_ranges_to_tune_lie_within_the_allowed_ones(bad):
    with pytest.raises(ValueError, match="tune"):
        ls.Param(1, 0, 10, "", bad)


def test_a_scheduler_may_differ_from_cell_to_cell():
    half, full = RANDOM.at_load(0.5, ENGINE), {"r": RANDOM}
    found = tune_all({"s": sleeper(), "f": baselines.sarathi(token_budget=9, max_num_seqs=9)}, full, (0.01, 0.02),
                     ENGINE, trials=5, seeds=(1,), progress=False)  # fmt: skip
    assert list(found) == ["s"] and list(found["s"]) == [("r", 0.01), ("r", 0.02)] and half.load == 0.5
    chosen = {cell: sleeper()(x=x) for cell, x in zip(found["s"], (1.0, 2.0), strict=True)}
    both = compare({"s": sleeper(), "t": chosen}, full, (0.01, 0.02), (3,), ENGINE, progress=False)
    for (workload, load), scheduler in chosen.items():
        alone = compare({"t": scheduler}, full, (load,), (3,), ENGINE, progress=False)
        np.testing.assert_equal(both.cells["t", workload, load].metrics, alone.cells["t", workload, load].metrics)
    assert both.settings["t"] == "r, load 0.01: sleeper(x=1, y=1); r, load 0.02: sleeper(x=2, y=1)"
    with pytest.raises(ValueError, match=r"'t' .* there is none for \('r', 0.03\)"):
        compare({"t": chosen}, full, (0.01, 0.03), (3,), ENGINE, progress=False)
