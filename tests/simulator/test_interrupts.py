"""Ctrl-C ends what runs, compiled or compiling, long before it would end by itself."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PREPARE = """
import signal
import sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in processes that are started in the background
import baselines
import llmsched_env as ls

engine = ls.EngineConfig(ls.Staircase(c=0.01, a=0.03, b0=128))
short = ls.Workload.from_arrays([0.0], [4], [2])
hours = ls.Workload.from_arrays([0.0], [10**9], [2])  # a token a batch
if "compile" not in sys.argv:
    ls.simulate(baselines.sarathi, short, engine)
print("ready", flush=True)
"""
ALONE = "ls.simulate(baselines.sarathi(token_budget=1), hours, engine, record='requests')"
MANY = "ls.simulate_many(baselines.sarathi(token_budget=1), hours, engine, range(4), record='requests')"
THEIRS = """
from math import inf
def compose(view):
    ls.chunks(view, view.running, 1)
    ls.chunks(view, view.waiting, 1)
    return inf
ls.simulate(ls.Scheduler('theirs', compose), hours, engine, record='requests')
"""


def interrupted(code, *arguments, wait_for="ready", **environment):
    """Run, send Ctrl-C two seconds after a line appears; returns the exit status and what was written."""
    with subprocess.Popen(
        [sys.executable, "-u", "-c", PREPARE + code, *arguments],
        cwd=ROOT, env=os.environ | environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        for line in process.stdout:
            if wait_for in line:
                break
        time.sleep(2.0)
        process.send_signal(signal.SIGINT)
        told, _ = process.communicate(timeout=60)
        return process.returncode, told


@pytest.mark.parametrize("code", [ALONE, MANY, THEIRS], ids=["alone", "many", "theirs"])
def test_a_run_of_hours_ends(code):
    status, told = interrupted(code)
    assert status in (-signal.SIGINT, 130) and "KeyboardInterrupt" in told


@pytest.mark.slow
def test_a_compilation_ends(tmp_path):
    status, told = interrupted(
        "ls.simulate(baselines.sarathi, short, engine)", "compile", wait_for="compiling", XDG_CACHE_HOME=str(tmp_path)
    )
    assert status in (-signal.SIGINT, 130) and "KeyboardInterrupt" in told
