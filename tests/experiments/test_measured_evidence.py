"""The measured numbers that we quote: the page is made of their file, README agrees with it, and it can be renewed."""

import json
import re
from pathlib import Path

import pytest

import baselines
import llmsched_env as ls
from experiments import measured_page
from experiments.measured_evidence import update
from llmsched_env.files import read_object

ROOT = Path(__file__).resolve().parents[2]
EVIDENCE = read_object(ROOT / "docs/measured.json")
RTX = "llama-3.1-8b_rtx4090-24gb_tp1_lss"


def test_the_page_is_made_of_the_file():
    assert measured_page.page(EVIDENCE, "measured.json") == (ROOT / "docs/measured.md").read_text()


def test_every_entry_names_source_licence_and_commit():
    for entry in EVIDENCE["entries"]:
        source = EVIDENCE["sources"][entry["source"]]
        assert source["url"].startswith("https://") and source["licence"] and source["version"]
        assert re.fullmatch(r"[0-9a-f]{7,}", entry["found"]["commit"]), entry["title"]
        assert entry["profile"] is not None or entry["why_no_profile"]


def test_the_readme_quotes_what_the_file_has():
    [entry] = [each for each in EVIDENCE["entries"] if each["title"] == "Llama-3.1-8B, RTX 4090"]
    metrics = ("makespan", "mean_ttft", "p99_ttft", "mean_tpot", "mean_e2el")
    rows = dict(
        (cells[0].split(",")[0], cells[1:])
        for cells in (
            [cell.strip() for cell in line.strip().strip("|").split("|")]
            for line in (ROOT / "README.md").read_text().splitlines()
        )
        if len(cells) == 1 + len(metrics)
    )
    own = entry["found"]["seconds"]["measured"]
    assert rows["measured"] == [
        f"{1e3 * own[name]:.1f} ms" if "tpot" in name else f"{own[name]:.1f} s" for name in metrics
    ]
    for name in ("uncalibrated", "one factor", "calibrated"):
        assert rows[name] == [f"{measured_page.error_pct(entry, name, metric):+.1f} %" for metric in metrics]


@pytest.fixture
def evidence(tmp_path):
    """A file of one entry of each kind, and a folder with the measurements: those of simulated engines."""
    law = ls.gpu_profile(RTX).batch_time
    data = tmp_path / "data/toy"
    data.mkdir(parents=True)
    engine = ls.EngineConfig.for_gpu(RTX, token_budget=512, max_num_seqs=8, schedule_ahead=1)
    workload = ls.Workload.poisson(rate=2.0, prompt_tokens=300, output_tokens=20, horizon=8.0)
    rows = ls.simulate(baselines.vllm_v1(token_budget=512, max_num_seqs=8), workload, engine).requests
    (data / "requests.jsonl").write_text(
        "\n".join(
            json.dumps(
                {
                    "input_toks": int(row.prompt_tokens),
                    "output_toks": int(row.output_tokens),
                    "arrival_time_ns": int(1e9 * row.arrival),
                    "queued_ts": float(row.arrival),
                    "first_token_ts": float(row.first_token),
                    "last_token_ts": float(row.finish),
                }
            )
            for row in rows
        )
    )
    kwargs = {"max_num_batched_tokens": 512, "max_num_seqs": 8}
    (data / "meta.json").write_text(json.dumps({"engine_kwargs": kwargs}))
    milliseconds = 1e3 * float(law.seconds(400, 0, 4 * 100 * 101 / 2)), 1e3 * float(law.seconds(4, 400))
    table = f"hardware,batch_size,prompt_size,prompt_time_ms,token_time_ms\nrtx4090-24gb,4,100,{milliseconds[0]},"
    (data / "table.csv").write_text(f"{table}{2 * milliseconds[1]}\n")
    common = {"source": "own", "machine": "one GPU", "software": "this simulator", "about": "One.", "assumed": "all"}
    means = {"output_throughput": 1.0, "mean_ttft": 1.0, "mean_tpot": 1.0}
    entries = [
        {"kind": "run", "title": "run", "path": "toy", "profile": RTX},
        {"kind": "run", "title": "other", "path": "toy", "profile": None, "why_no_profile": "None fits."},
        {"kind": "means", "title": "means", "path": "toy/requests.jsonl", "profile": RTX, "engines": 2}
        | {"pools": {"roles": ["prefill", "decode"], "link_bandwidth": 1e9}, "host_overhead": 0.01, "measured": means}
        | kwargs,
        {"kind": "batches", "title": "table", "path": "toy/table.csv", "profile": "llama-3.1-8b_{hardware}_tp1_lss"},
    ]
    source = {"title": "Own", "licence": "MIT", "url": "https://example.org", "version": "1"}
    file = tmp_path / "evidence.json"
    file.write_text(json.dumps({"sources": {"own": source}, "entries": [common | entry for entry in entries]}))
    return file


def test_numbers_are_renewed_where_the_measurements_are_and_kept_where_not(evidence, tmp_path):
    page, lines, rows = update(evidence, [tmp_path / "data"])
    assert [line.split(": ")[1] for line in lines] == ["simulated", "no profile", "simulated", "simulated"]
    run, other, means, table = read_object(evidence)["entries"]
    assert measured_page.error_pct(run, "uncalibrated", "mean_tpot") == pytest.approx(0.0, abs=0.1)
    assert other["found"]["seconds"].keys() == {"measured"}
    own = means["found"]["means"]
    assert own["host overhead"]["mean_tpot"] == pytest.approx(own["uncalibrated"]["mean_tpot"] + 0.01, rel=0.02)
    [errors] = table["found"]["profiles"].values()
    assert errors["prompt_pct"] == pytest.approx(0.0, abs=0.01) and errors["token_pct"] == pytest.approx(-50.0)
    text = page.read_text()
    assert page.name == "evidence.md" and "None fits." in text and "| run | uncalibrated | +0.0 |" in text
    assert {row["entry"] for row in rows} == {"run", "other", "means", "table"}
    again, lines, _ = update(evidence, [])
    assert again.read_text() == text and all("as it was" in line for line in lines)


def test_an_unknown_kind_is_refused(evidence):
    content = read_object(evidence)
    content["entries"][0]["kind"] = "runs"
    evidence.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="kind must be one of the known names, got 'runs'"):
        update(evidence, [])
