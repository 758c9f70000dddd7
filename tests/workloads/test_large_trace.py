"""The benchmark of large traces: it runs at any size, and its windows lose and repeat no request."""

import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

import llmsched_env as ls

SCRIPT = str(Path(__file__).resolve().parents[2] / "benchmarks/large_trace.py")


@pytest.mark.parametrize("kind", ["azure", "plain"])
def test_the_benchmark_prints_two_lines(monkeypatch, capsys, kind):
    arguments = ["--rows", "3000", "--window", "1000", "--format", kind]
    monkeypatch.setattr(sys, "argv", ["large_trace.py", *arguments])
    runpy.run_path(SCRIPT, run_name="__main__")
    load, simulate = capsys.readouterr().out.splitlines()
    assert re.match(
        rf"load: [\d,]+ rows/s \([\d.]+ s for 3,000 rows, 0 MB of {kind} CSV\), peak memory [\d,]+ MiB", load
    )
    assert re.match(r"simulate: [\d,]+ requests/s \([\d.]+ s for 3,000 requests, mean TTFT [\d.]+ ms\), peak", simulate)


def test_windows_change_nothing_where_the_engine_falls_idle():
    bench = runpy.run_path(SCRIPT)
    arrival = np.sort(np.random.default_rng(0).uniform(0, 6000.0, 600))
    workload = ls.Workload.from_arrays(arrival, np.full(600, 800), np.full(600, 50))
    whole = ls.simulate(bench["SCHEDULER"], workload, bench["ENGINE"], record="requests").requests
    requests, ttft = bench["simulate_in_windows"](workload, 100)
    assert requests == 600
    assert ttft == pytest.approx(np.mean(whole.first_token - whole.arrival), rel=1e-9)
