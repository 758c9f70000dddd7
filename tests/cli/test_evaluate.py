"""llmsched evaluate and tune: what they print and write, and what they refuse."""

import csv
import io
import json

import numpy as np
import pytest

import llmsched_env as ls
from llmsched_env.evaluation import TEST_SEEDS, TUNING_SEEDS, seed_range

SCHEDULERS = "orca,sarathi(token_budget=256)"


def evaluate(llmsched, trace, out, *more):
    return llmsched(
        "evaluate", "--scheduler", SCHEDULERS, "--workload", trace, "--load", "recorded", "--out", out, *more
    )


def test_a_trace_is_compared_and_its_report_written(llmsched, trace, tmp_path):
    status, printed, _ = evaluate(llmsched, trace, tmp_path / "out", "--slo", "ttft=1", "--reference", "orca")
    assert status == 0
    assert "mine, load recorded: difference to orca" in printed and "report.html" in printed
    assert max(map(len, printed.splitlines()[:-1])) <= 100
    html = (tmp_path / "out/report.html").read_text("utf-8")
    assert "sarathi(token_budget=256" in html and "ttft ≤ 1 s" in html and "llmsched evaluate --workload" in html
    assert (tmp_path / "out/table.txt").read_text("utf-8").strip() in printed


def test_a_run_is_repeated_from_the_options_that_it_keeps(llmsched, trace, tmp_path):
    _, first, _ = evaluate(llmsched, trace, tmp_path / "out", "--slo", "ttft=1,tpot=0.05", "--kv-blocks", 100)
    kept = tmp_path / "out/run.toml"
    assert 'scheduler = "orca,sarathi(token_budget=256)"' in kept.read_text() and "kv-blocks = 100" in kept.read_text()
    before = kept.read_text()
    status, again, told = llmsched("evaluate", "--config", kept)
    assert (status, again) == (0, first) and "plain CSV, seconds" in told
    assert kept.read_text() == before
    _, changed, _ = llmsched("evaluate", "--config", kept, "--scheduler", "orca", "--csv")
    assert [row["scheduler"] for row in csv.DictReader(io.StringIO(changed))] == ["orca"]


def test_rows_as_json_and_as_csv_are_the_same_numbers(llmsched, trace, tmp_path):
    _, as_json, _ = evaluate(llmsched, trace, tmp_path / "out", "--json")
    _, as_csv, _ = evaluate(llmsched, trace, tmp_path / "out", "--csv")
    answer = json.loads(as_json)
    rows = list(csv.DictReader(io.StringIO(as_csv)))
    assert answer["reports"][0].endswith("out/report.html")
    assert [row["scheduler"] for row in rows] == ["orca", "sarathi(token_budget=256)"]
    for one, other in zip(answer["rows"], rows, strict=True):
        assert one["load"] == "recorded" and float(other["mean_e2el_ms"]) == one["mean_e2el_ms"] > 0
        assert one["mean_e2el_ms_half_width"] is None  # nan: one trace has no interval


def test_steps_may_scatter_and_schedulers_believe_another_machine(llmsched, trace, tmp_path):
    _, exact, _ = evaluate(llmsched, trace, tmp_path / "exact", "--csv")
    doubt = ("--step-noise", 0.4, "--believed", 0.8)
    _, doubted, _ = evaluate(llmsched, trace, tmp_path / "doubted", *doubt, "--csv")
    seeds = [[row["seeds"] for row in csv.DictReader(io.StringIO(text))] for text in (exact, doubted)]
    assert seeds[0] == ["1", "1"] and seeds[1] == ["10", "10"]  # a trace gives one run, unless steps scatter
    html = (tmp_path / "doubted/report.html").read_text("utf-8")
    assert "log step times scatter by 0.4" in html and "Schedulers believe" in html
    assert "Schedulers believe" not in (tmp_path / "exact/report.html").read_text("utf-8")
    status, _, error = evaluate(llmsched, trace, tmp_path / "none", "--believed", -1)
    assert status != 0 and "believed must be a finite number > 0, got -1" in error
    assert not (tmp_path / "none").exists()


def test_several_engines_have_a_report_each(llmsched, trace, tmp_path):
    engines = ("llama-3.1-8b_h100-80gb_tp1_aic", "llama-3.1-8b_a100-80gb_tp1_aic")
    _, printed, _ = evaluate(llmsched, trace, tmp_path / "out", "--engine", ",".join(engines), "--csv")
    assert {row["engine"] for row in csv.DictReader(io.StringIO(printed))} == set(engines)
    assert all((tmp_path / "out" / name / "report.html").is_file() for name in engines)


def test_pretrained_policies_are_schedulers_by_name_and_by_file(llmsched, trace, tmp_path):
    from llmsched_env.policies import pretrained

    file = pretrained.file_of("slo")
    names = f"slo_pausing,index,{file}"
    _, printed, _ = llmsched(
        *("evaluate", "--scheduler", names, "--workload", trace, "--load", "recorded", "--out", tmp_path, "--csv")
    )
    rows = {row["scheduler"]: row for row in csv.DictReader(io.StringIO(printed))}
    assert list(rows) == ["slo_pausing", "index", "pretrained/slo"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--scheduler", "sarathy"], "did you mean 'sarathi'"),
        (["--scheduler", "slo_pasing"], "did you mean 'slo_pausing'"),
        (["--scheduler", "sarathi(token_budget=0)"], "token_budget"),
        (["--scheduler", "sarathi(token_bugdet=9)"], "did you mean 'token_budget'"),
        (["--scheduler", "sarathi(256)"], "must be like"),
        (["--scheduler", "sarathi("], "must be names"),
        (["--scheduler", "missing.zip"], "missing.zip"),
        (["--scheduler", "notes.txt"], "notes.txt"),
        (["--workload", "azure-chatt"], "azure-chat"),
        (["--workload", "missing.csv"], "missing.csv"),
        (["--load", "high"], "--load: 'high'"),
        (["--load", "-1"], "load"),
        (["--slo", "latency=1"], "--slo"),
        (["--slo", "ttft"], "ttft"),
        (["--slo", "ttft=-1"], "ttft"),
        (["--predict", "tau=0.5"], "--predict"),
        (["--predict", "kendall=2"], "kendall"),
        (["--seeds", "0"], "seeds"),
        (["--engine", "h100"], "'llama-3.1-8b_h100-80gb_tp1_aic' or 'llama-3.1-70b_h100-80gb_tp4_aic'"),
        (["--engine", "missing.json"], "missing.json"),
        (["--reference", "orcha"], "orca"),
        (["--schedulers", "orca"], "Did you mean --scheduler?"),
        (["--json", "--csv"], "exclude each other"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(llmsched, arguments, message, tmp_path):
    status, printed, error = llmsched("evaluate", *arguments, "--out", tmp_path)
    assert (status, printed) == (2, "")
    assert error.startswith("error: ") and message in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_default_and_tuned_parameters_are_compared_on_other_seeds(llmsched, tmp_path):
    words = ["tune", "--trials", 3, "--tuning-seeds", 2, "--scheduler", "sarathi", "--load", 0.5, "--horizon", 3]
    status, printed, _ = llmsched(*words, "--seeds", 2, "--out", tmp_path)
    assert status == 0 and "sarathi (tuned)" in printed
    [file] = (tmp_path / "tuned").glob("*.json")
    seeds = json.loads(file.read_text())["seeds"]
    assert seeds == list(seed_range(TUNING_SEEDS, 2)) and not set(seeds) & set(seed_range(TEST_SEEDS, 2))
    report = (tmp_path / "report.html").read_text("utf-8")
    assert "best of 3 settings by slo_attainment on azure-chat at load 0.5" in report and file.name in report


def test_a_trace_is_tuned_on_its_first_half_and_compared_on_its_second(llmsched, trace, tmp_path):
    words = ["tune", "--objective", "mean_e2el,p99_ttft", "--trials", 2, "--scheduler", "sarathi", "--workload", trace]
    _, printed, _ = llmsched(*words, "--load", "recorded", "--out", tmp_path, "--csv")
    names = [row["scheduler"] for row in csv.DictReader(io.StringIO(printed))]
    assert names == ["sarathi", "sarathi (tuned, mean_e2el)", "sarathi (tuned, p99_ttft)"]
    assert [len(json.loads(file.read_text())["seeds"]) for file in (tmp_path / "tuned").glob("*.json")] == [1, 1]
    with np.load(next((tmp_path / "cells").glob("sarathi_mine*.npz"))) as cell:
        assert cell["requests"]["prompt_tokens"].tolist() == list(range(110, 120))


def test_an_unknown_objective_is_refused(llmsched, tmp_path):
    status, _, error = llmsched("tune", "--objective", "fairness", "--out", tmp_path)
    assert status == 2 and "slo_attainment" in error and not list(tmp_path.iterdir())


def test_users_in_a_closed_loop_are_evaluated_and_tuned(llmsched, trace, tmp_path):
    words = ["--workload", trace, "--concurrency", 3, "--scheduler", "sarathi", "--out", tmp_path]
    status, out, _ = llmsched("evaluate", *words, "--json")
    (row,) = json.loads(out)["rows"]
    table = ls.load_trace(trace).sample(0)
    assert status == 0 and row["load"] == "recorded" and row["rate"] is None
    assert row["num_requests"] == row["completed"] == len(table) and 2.0 < row["mean_num_in_system"] <= 3.0
    assert "users in a closed loop" in (tmp_path / "table.txt").read_text() + llmsched("evaluate", *words)[1]
    status, out, _ = llmsched("tune", *words, "--trials", 2, "--json")
    rows = json.loads(out)["rows"]
    assert status == 0 and [row["scheduler"] for row in rows] == ["sarathi", "sarathi (tuned)"]
    status, _, error = llmsched("evaluate", *words, "--load", "0.5")
    assert status == 2 and "users in a closed loop (--concurrency) have no load" in error
