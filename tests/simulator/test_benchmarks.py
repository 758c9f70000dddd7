"""The benchmark scripts of the simulator run and print one line each; times are not judged here."""

import re
import runpy
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def run(monkeypatch, capsys, name, *arguments):
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    runpy.run_path(str(BENCHMARKS / name), run_name="__main__")
    return capsys.readouterr().out


def test_engine_speed(monkeypatch, capsys):
    out = run(monkeypatch, capsys, "engine_speed.py")
    assert re.fullmatch(r"engine: [\d,]+ requests/s, [\d,]+ batches/s, [\d,]+ simulated s/s\n", out)


def test_clone_speed(monkeypatch, capsys):
    out = run(monkeypatch, capsys, "clone_speed.py")
    assert re.fullmatch(
        r"state: \d+ us to clone, \d+ us to restore, [\d.]+ MB, at 60 s of .*, [1-9]\d* requests .*\n", out
    )


def test_trace_speed(monkeypatch, capsys, tmp_path):
    trace = tmp_path / "two.csv"
    trace.write_text("arrival,prompt_tokens,output_tokens\n0,600,2\n1.5,3,1")
    out = run(monkeypatch, capsys, "trace_speed.py", trace)
    # The first prompt takes two batches of at most 512 tokens, then a decode; the second one batch.
    assert re.fullmatch(r"trace: 0\.\d{3} s for 2 requests, 4 batches and 2 simulated s of two\n", out)
    out = run(monkeypatch, capsys, "trace_speed.py")
    assert re.fullmatch(
        r"trace: [\d.]+ s for 10,000 requests, [\d,]+ batches and [\d,]+ simulated s of azure-chat\n", out
    )


def test_trace_speed_on_a_missing_file(monkeypatch, capsys, tmp_path):
    missing = tmp_path / "missing.csv"
    with pytest.raises(SystemExit) as stop:
        run(monkeypatch, capsys, "trace_speed.py", missing)
    assert stop.value.code == 2
    assert f"No such file or directory: '{missing}'" in capsys.readouterr().err


def test_bounds(monkeypatch, capsys):
    out = run(monkeypatch, capsys, "bounds.py", "--requests", 3, "--instances", 4)
    assert out.startswith("3 requests: 4 of 4 proven")
    ranges = {
        name: (float(least), float(most))
        for name, least, most in re.findall(r"(\w+) +mean .*least (.*), most (.*)", out)
    }
    assert ranges["volume"][1] <= 1 and ranges["LP"][1] <= 1
    assert ranges["first"][0] >= 1 and ranges["come"][0] >= 1
