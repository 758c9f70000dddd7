"""The installed wheel, with its core dependencies and outside the clone, runs the commands and the trained policies."""

import json
import sys

import numpy as np
import pytest

from llmsched_env.machine.batch_time import Hinge
from tests.installed import ROOT, FreshEnvironment, build_wheel

POLICIES = """
import sys
from importlib.util import find_spec
from llmsched_env.policies import pretrained
names = [pretrained.load(name).name for name in (*pretrained.NAMES, pretrained.NETWORK)]
print(*names, pretrained.router().name)
print([name for name in ("torch", "stable_baselines3", "sb3_contrib", "tensorboard") if find_spec(name)])
"""
ONE_RUN = ("--horizon", "5", "--seeds", "1")


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    constraints = ("--constraint", str(ROOT / "constraints.txt"))
    return FreshEnvironment(folder / "user", sys.executable, str(build_wheel(folder)), *constraints)


def measured_batches() -> str:
    """CSV of batches that take exactly as long as a hinge says."""
    tokens = np.arange(8, 1024, 8)
    times = 1e3 * Hinge(0.008, 2e-5, 256).seconds(tokens)
    rows = [f"{n},0,0,0,{ms!r}" for n, ms in zip(tokens.tolist(), times.tolist(), strict=True)]
    header = "total_tokens,decode_kv_tokens,prefill_attn_pairs,prefill_context_tokens,iter_ms"
    return "\n".join([header, *rows])


@pytest.mark.slow
def test_trained_policies_load_without_torch(installed):
    policies, training = installed.run("python", "-c", POLICIES).splitlines()
    assert "pretrained_slo_pausing" in policies and "pretrained_router" in policies
    assert training == "[]"


@pytest.mark.slow
def test_evaluate(installed):
    table = installed.run("llmsched", "evaluate", "--scheduler", "slo_pausing,sarathi", "--load", "0.8", *ONE_RUN)
    assert "slo_pausing" in table and "sarathi" in table
    written = installed.folder / "runs/evaluation"
    assert "data:image/svg+xml" in (written / "report.html").read_text()
    assert (written / "table.txt").stat().st_size > 100


@pytest.mark.slow
def test_tune(installed):
    search = ("--load", "0.8", "--trials", "3", "--tuning-seeds", "1")
    assert "sarathi" in installed.run("llmsched", "tune", "--scheduler", "sarathi", *search, *ONE_RUN)
    [trials] = (installed.folder / "runs/tuning").rglob("tuned/*.json")
    assert len(json.loads(trials.read_text())["trials"]) == 3
    assert list((installed.folder / "runs/tuning").rglob("report.html"))


@pytest.mark.slow
def test_plan(installed):
    installed.run("llmsched", "plan", "--scheduler", "sarathi", "--rate", "5", *ONE_RUN)
    written = installed.folder / "runs/plan"
    assert json.loads((written / "plan.json").read_text())
    assert "llama-3.1-8b_h100-80gb_tp1_aic" in (written / "report.html").read_text()


@pytest.mark.slow
def test_calibrate(installed):
    (installed.folder / "rows.csv").write_text(measured_batches())
    installed.run("llmsched", "calibrate", "rows.csv", "--save", "mine.json", "--plot", "residuals.png")
    assert (installed.folder / "residuals.png").read_bytes().startswith(b"\x89PNG")
    assert "mine" in installed.run("llmsched", "profiles", "mine.json")
