"""llmsched plan, calibrate, measured, replay, profiles and warmup, each on a small input."""

import csv
import io
import json
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import baselines
import llmsched_env as ls
from llmsched_env.calibration import batches_of
from llmsched_env.envs import ENV_IDS
from tests.calibration.bench_result import write_bench_result

ENGINE = "llama-3.1-8b_h100-80gb_tp1_aic"
DATA = Path(__file__).resolve().parents[1] / "data/vllm"
NAMES = ("input_toks", "output_toks", "queued_ts", "first_token_ts", "last_token_ts")
META = {
    "model": "meta-llama/Llama-3.1-8B",
    "engine_kwargs": {"max_num_seqs": 8, "max_num_batched_tokens": 512, "tensor_parallel_size": 1},
    "kv_cache": {"num_gpu_blocks": 101, "block_size": 16, "enable_prefix_caching": False},
    "hardware": {"device_name": "NVIDIA GeForce RTX 4090"},
}


@pytest.fixture
def serving_run(tmp_path):
    rows = [(200 + 30 * k, 20, 0.1 * k, 0.1 * k + 0.1, 0.1 * k + 0.6) for k in range(6)]
    path = tmp_path / "toy.requests.jsonl"
    path.write_text("\n".join(json.dumps(dict(zip(NAMES, row, strict=True))) for row in rows))
    (tmp_path / "toy.meta.json").write_text(json.dumps(META))
    return path


def test_plan_finds_the_cheapest_fleet(llmsched, trace, tmp_path):
    words = [
        "plan",
        "--workload",
        trace,
        "--rate",
        20,
        "--slo",
        "ttft=1,tpot=0.05",
        "--seeds",
        1,
        "--router",
        "pretrained",
    ]
    engines = f"{ENGINE}=2.9,llama-3.1-8b_a100-80gb_tp1_aic=9"
    status, printed, _ = llmsched(*words, "--engine", engines, "--out", tmp_path / "out")
    assert status == 0 and "Replicas" in printed and max(map(len, printed.splitlines()[:-1])) <= 100
    answer = json.loads(llmsched("plan", "--config", tmp_path / "out/run.toml", "--json")[1])
    assert answer["cheapest"] == [ENGINE, "vllm_v1"]
    kept = json.loads((tmp_path / "out/plan.json").read_text())
    assert [row["replicas"] for row in answer["rows"]] == [row["replicas"] for row in kept["rows"]]


def test_plan_serves_users_in_a_closed_loop_and_finds_the_most_of_them(llmsched, trace, tmp_path):
    words = ["plan", "--workload", trace, "--horizon", 20, "--slo", "ttft=2,tpot=0.2", "--seeds", 2, "--out", tmp_path]
    status, out, _ = llmsched(*words, "--concurrency", 3, "--json")
    row = json.loads(out)["rows"][0]
    assert status == 0 and row["replicas"] == 1 and row["attainment"] == 1.0 and row["load"] is None
    status, out, _ = llmsched(*words, "--users", "p95_ttft=1", "--replicas", 2, "--json")
    found = json.loads(out)["rows"][0]
    assert status == 0 and 3 < found["users_at_least"] <= found["users"] <= found["users_at_most"]
    assert found["p95_ttft"] <= 1.0 and json.loads((tmp_path / "users.json").read_text())[0]["users"] == found["users"]
    assert "95 %" in llmsched(*words, "--users", "p95_ttft=1", "--replicas", 2)[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--engine", ENGINE], "NAME=PRICE"),
        (["--engine", f"{ENGINE}=free"], "NAME=PRICE"),
        (["--engine", f"{ENGINE}=0"], "price"),
        (["--engine", "a100=2"], "llama-3.1-8b_a100-80gb_tp1_aic"),
        (["--router", "round_robbin"], "did you mean 'round_robin'"),
        (["--workload", "azure-chat,azure-code"], "one workload"),
        (["--rate", "3", "--concurrency", "4"], "have no rate; leave it out"),
        (["--concurrency", "0"], "users must be an integer >= 1, got 0"),
        (["--replicas", "3"], "give it with --users"),
        (["--users", "p95_ttft"], "must be limits in seconds like p95_ttft=0.5"),
        (["--users", "p95_ttf=1"], "did you mean 'p95_ttft'"),
        (["--users", "p95_ttft=1", "--concurrency", "4"], "the number of users is sought"),
    ],
)
def test_plan_says_what_is_wrong(llmsched, arguments, message, tmp_path):
    status, _, error = llmsched("plan", *arguments, "--out", tmp_path)
    assert status == 2 and message in error and not list(tmp_path.iterdir())


def test_calibrate_fits_batches_and_engine_takes_the_profile(llmsched, tmp_path):
    rng, law, n = np.random.default_rng(0), ls.gpu_profile(ENGINE).batch_time, 300
    decodes, prefill = rng.integers(1, 200, n), rng.integers(0, 2000, n)
    batches = decodes + prefill, 500.0 * decodes, prefill * (prefill + 1) / 2, np.zeros(n)
    columns = *batches, 1e3 * law.seconds(*(column.astype(float) for column in batches))
    lines = [",".join(map(repr, row)) for row in zip(*(column.tolist() for column in columns), strict=True)]
    rows = tmp_path / "rows.csv"
    rows.write_text(
        "\n".join(["total_tokens,decode_kv_tokens,prefill_attn_pairs,prefill_context_tokens,iter_ms", *lines])
    )
    mine, plot = tmp_path / "mine.json", tmp_path / "residuals.svg"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="matplotlib|pyparsing", category=DeprecationWarning)
        status, printed, _ = llmsched("calibrate", rows, "--save", mine, "--plot", plot, "--kv-tokens", 160000)
    assert status == 0 and "<- chosen" in printed and plot.is_file()
    assert ls.gpu_profile(mine).batch_time.c == pytest.approx(law.c, rel=0.01)
    shown = json.loads(llmsched("profiles", mine, "--json")[1])["rows"][0]
    assert shown["name"] == "mine" and shown["kv_blocks"] == 10000
    words = ("evaluate", "--engine", mine, "--seeds", 1, "--horizon", 2, "--scheduler", "orca", "--load", 0.5)
    assert llmsched(*words, "--out", tmp_path / "out")[0] == 0


def test_calibrate_fits_the_speed_to_a_run(llmsched, tmp_path):
    law = ls.gpu_profile(ENGINE).batch_time
    engine = replace(ls.EngineConfig.for_gpu(ENGINE), batch_time=law.scaled(1.2))
    workload = ls.Workload.poisson(rate=0.5, prompt_tokens=800, output_tokens=200, horizon=50.0)
    rows = ls.simulate(baselines.sarathi(token_budget=2048), workload, engine).requests
    columns = rows.prompt_tokens, rows.output_tokens, rows.arrival, rows.first_token, rows.finish
    lines = [json.dumps(dict(zip(NAMES, row, strict=True))) for row in zip(*(c.tolist() for c in columns), strict=True)]
    path = tmp_path / "run.requests.jsonl"
    path.write_text("\n".join(lines))
    status, printed, _ = llmsched("calibrate", path, "--base", ENGINE, "--save", tmp_path / "mine.json")
    assert status == 0 and "batch times multiplied by 1." in printed
    assert ls.gpu_profile(tmp_path / "mine.json").batch_time.c == pytest.approx(1.2 * law.c, rel=0.02)


def test_calibrate_finds_host_time_and_noise_in_a_benchmark_and_in_rows(llmsched, tmp_path):
    law = ls.gpu_profile(ENGINE).batch_time
    engine = ls.EngineConfig(law.scaled(1.3), token_budget=2048, host_overhead=(0.004, 3e-5), step_noise=0.1)
    workload = ls.Workload.poisson(12.0, ls.dist.Geometric(800), ls.dist.Geometric(200), horizon=60.0)
    result = ls.simulate(baselines.sarathi(token_budget=2048), workload, engine, record="entries")
    bench = write_bench_result(result, tmp_path / "bench.json")
    (tmp_path / "meta.json").write_text(
        '{"engine_kwargs": {"max_num_batched_tokens": 2048, "async_scheduling": false}}'
    )
    batches = batches_of(result)
    names = "total_tokens,decode_kv_tokens,prefill_attn_pairs,prefill_context_tokens,num_seqs,iter_ms"
    table = zip(*(c.tolist() for c in (*batches.composition, 1e3 * batches.seconds)), strict=True)
    rows = tmp_path / "steps.csv"
    rows.write_text("\n".join([names, *(",".join(map(repr, row)) for row in table)]))
    mine = tmp_path / "mine.json"
    for arguments in ((bench, "--settings", tmp_path / "meta.json"), (rows,)):
        words = ("calibrate", *arguments, "--base", ENGINE, "--belief", "profile", "--save", mine)
        status, printed, error = llmsched(*words)
        assert status == 0 and "host ms a step" in printed and "measured/predicted" in printed
        facts = json.loads(llmsched(*words, "--json")[1])
        assert facts["factor"] == pytest.approx(1.3, rel=0.05) and facts["step_noise"] == pytest.approx(0.1, rel=0.05)
        own = ls.EngineConfig.for_gpu(str(mine))
        assert own.host_overhead == pytest.approx((0.004, 3e-5), rel=0.25) and own.believed_batch_time == law
    assert "--settings" in llmsched("calibrate", rows, "--base", ENGINE, "--settings", tmp_path / "meta.json")[2]
    assert "--rows-of" in llmsched("calibrate", bench, "--base", ENGINE, "--rows-of", "x")[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.csv"], "none.csv"),
        (["none.csv", "--base", ENGINE, "--plot", "x.png"], "--plot"),
        (["none.csv", "--settings", "x.json"], "--base"),
        (["none.csv", "--belief", "profile"], "--base"),
        (["none.csv", "--form", "cubic"], "form"),
    ],
)
def test_calibrate_says_what_is_wrong(llmsched, arguments, message):
    status, _, error = llmsched("calibrate", *arguments)
    assert status == 2 and message in error and error.count("\n") == 1


def test_measured_writes_a_report(llmsched, serving_run, tmp_path):
    status, printed, _ = llmsched("measured", serving_run, "--out", tmp_path / "out")
    out = tmp_path / "out/toy"
    numbers = json.loads((out / "comparison.json").read_text())
    assert status == 0 and numbers["requests"] == 6 and 0.3 < numbers["factors"]["one factor"] < 3
    assert set(numbers["seconds"]["mean_ttft"]) == {"measured", "uncalibrated", "one factor", "calibrated"}
    assert "<svg" in (out / "distributions.svg").read_text() and "mean_ttft" in printed
    assert "async_scheduling is on" in printed
    page = (out / "report.html").read_text()
    assert "Distributions over requests" in page and "async_scheduling is on" in page
    again = json.loads(llmsched("measured", "--config", out / "run.toml", "--json")[1])
    assert again["factors"] == numbers["factors"] and len(again["rows"]) == len(numbers["seconds"])


def test_measured_takes_repeats_and_profile_files(llmsched, serving_run, tmp_path):
    for suffix in (".requests.jsonl", ".meta.json"):
        source = serving_run.with_name(f"toy{suffix}")
        serving_run.with_name(f"again{suffix}").write_text(
            source.read_text().replace("NVIDIA GeForce RTX 4090", "Abacus")
        )
    mine = tmp_path / "mine.json"
    base = "llama-3.1-8b_rtx4090-24gb_tp1_lss"
    assert llmsched("calibrate", serving_run, "--base", base, "--save", mine)[0] == 0
    runs = f"{serving_run},{serving_run.with_name('again.requests.jsonl')}"
    status, printed, _ = llmsched("measured", runs, "--engine", mine, "--out", tmp_path / "out")
    assert status == 0 and printed.count("Report:") == 2 and "though the run is on Abacus" in printed
    assert "spread" not in printed  # another machine is no repeat
    other = serving_run.with_name("again.meta.json")
    other.write_text(serving_run.with_name("toy.meta.json").read_text())
    printed = llmsched("measured", runs, "--out", tmp_path / "out")[1]
    assert "spread of repeats" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "RUN must be given"),
        (["RUN", "--engine", "a,b"], "one profile"),
        (["RUN", "--data", "x"], "--evidence"),
        (["RUN", "--evidence", "x.json"], "--data alone"),
        (["none.requests.jsonl"], "none.requests.jsonl"),
    ],
)
def test_measured_says_what_is_wrong(llmsched, serving_run, arguments, message):
    status, _, error = llmsched("measured", *(serving_run if word == "RUN" else word for word in arguments))
    assert status == 2 and message in error and error.count("\n") == 1


def test_measured_names_what_the_settings_lack(llmsched, serving_run):
    meta = serving_run.with_name("toy.meta.json")
    for lacking, message in (("hardware", "has no hardware.device_name"), ("engine_kwargs", "max_num_batched_tokens")):
        meta.write_text(json.dumps({name: value for name, value in META.items() if name != lacking}))
        status, _, error = llmsched("measured", serving_run)
        assert status == 2 and message in error


def test_replay_tells_the_first_difference(llmsched, tmp_path):
    trace = DATA / "v0_v018.trace.jsonl.gz"
    assert llmsched("replay", DATA / "v0_v018.input.json", trace) == (0, "every step is the same\n", "")
    recording = json.loads((DATA / "v0_v018.input.json").read_text())
    recording["requests"][0]["output_len"] += 1
    changed = tmp_path / "changed.input.json"
    changed.write_text(json.dumps(recording))
    status, printed, _ = llmsched("replay", changed, trace)
    assert status == 1 and "recorded" in printed
    [row] = json.loads(llmsched("replay", changed, trace, "--json")[1])["rows"]
    assert row["same"] is False and row["first_difference"] in printed


def test_profiles_are_listed_searched_and_shown(llmsched):
    rows = list(csv.DictReader(io.StringIO(llmsched("profiles", "--csv")[1])))
    assert [row["name"] for row in rows] == ls.gpu_profiles()
    assert all(float(row["azure-chat requests/s"]) > 0 for row in rows)
    some = llmsched("profiles", "RTX4090")[1]
    assert "llama-3.1-8b_rtx4090-24gb_tp1_lss" in some and "batch_time" in some
    listed = llmsched("profiles", "h100")[1]
    assert ENGINE in listed and "a100" not in listed and max(map(len, listed.splitlines())) <= 100
    assert llmsched("profiles", "none.json")[0] == 2


@pytest.mark.slow
def test_warmup_runs_everything_once(llmsched):
    answer = json.loads(llmsched("warmup", "--json")[1])
    assert {*baselines.REGISTRY, *ENV_IDS, "round_robin"} <= {row["name"] for row in answer["rows"]}
    assert Path(answer["cache"]).is_dir()
