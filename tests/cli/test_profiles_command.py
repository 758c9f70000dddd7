"""llmsched profiles with profiles that were made: refusals, and the way from a made one to an evaluation."""

import json

import pytest

from llmsched_env.machine import aiconfigurator
from llmsched_env.machine.kept_profiles import kept_path
from llmsched_env.machine.profile_files import write_profile
from llmsched_env.machine.profiles import gpu_profiles

NAME = "moe-8b_h9-sxm_tp2_ep1_vllm"
PROFILE = {
    "model": "Acme/Moe-8B",
    "gpu": "h9_sxm",
    "tensor_parallel": 2,
    "source": "a test",
    "form": "tabulated",
    "tabulated": {
        "decode": [[1, 4.0], [64, 14.0], [512, 18.0]],
        "mixed": [[1, 5.0], [8192, 90.0]],
        **dict.fromkeys(("a_seq", "a_kv_decode", "a_kv", "a_attn", "a_ctx"), 1e-6),
    },
    "mape_pct": 1.25,
    "p95_ape_pct": 3.5,
    "gpu_memory_bytes": 80 * 10**9,
    "weight_bytes_per_gpu": 8 * 10**9,
    "kv_bytes_per_token": 10**5,
    "reserve_bytes_per_gpu": 10**9,
    "max_model_len": 20000,
    "range": {"decodes": [1, 512], "tokens": [1, 32636]},
    "made_with": {"aiconfigurator-core": "9.9", "vllm": "1.0"},
    "warnings": ["steps look " + "very " * 20 + "slow", "time falls"],
}


@pytest.fixture(autouse=True)
def kept(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    write_profile(kept_path(NAME), PROFILE)


def test_kept_profiles_are_listed_and_marked(llmsched):
    rows = json.loads(llmsched("profiles", "--json")[1])["rows"]
    origins = {row["name"]: row["origin"] for row in rows}
    assert origins == dict.fromkeys(gpu_profiles(), "shipped") | {NAME: "kept"}


def test_a_kept_profile_is_shown_with_its_doubts(llmsched):
    text = llmsched("profiles", "moe-8b")[1]
    assert max(map(len, text.splitlines())) <= 100
    for words in ("max_model_len           20,000", "1.25", "3.5", "decodes 1 to 512", "none was fitted", "time falls"):
        assert words in text
    [row] = json.loads(llmsched("profiles", NAME, "--json")[1])["rows"]
    assert row["warnings"] == PROFILE["warnings"]
    [shipped] = json.loads(llmsched("profiles", gpu_profiles()[0], "--json")[1])["rows"]
    assert shipped["max_model_len"] == 4096 and shipped["warnings"] == "none"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--make", "Acme/Moe-8B"), "--make needs --system NAME"),
        (("--system", "h9_sxm"), "--make is missing"),
        (("--tp", "2"), "--make is missing"),
        (("h100", "--make", "x", "--system", "y"), "--make MODEL makes one profile"),
        (("--make", "x", "--system", "y", "--can-make"), "--make MODEL makes one profile"),
        (("--make", "x", "--system", "y", "--backend", "vlm"), "did you mean 'vllm'"),
        (("moe-9b",), "profiles --can-make"),
    ],
    ids=str,
)
def test_bad_wishes_are_refused(llmsched, words, message):
    status, printed, error = llmsched("profiles", *words)
    assert (status, printed) == (2, "") and message in error


@pytest.mark.parametrize("words", [("--can-make",), ("--make", "Acme/Moe-8B", "--system", "l9")], ids=str)
def test_without_the_package_it_is_said_how_to_get_it(llmsched, monkeypatch, words):
    monkeypatch.setattr(aiconfigurator, "find_spec", lambda name: None)
    status, _, error = llmsched("profiles", *words)
    assert status == 2 and "pip install 'llmsched_env[profiles]'" in error and len(error.splitlines()) == 1


def test_what_can_be_made_is_listed_by_model_or_system(llmsched, monkeypatch):
    listed = {"h9_sxm": ["Acme/Moe-8B", "Acme/Dense-7B"], "l9": ["Acme/Dense-7B"]}
    monkeypatch.setattr(aiconfigurator, "find_spec", lambda name: True)
    monkeypatch.setattr(aiconfigurator, "_supported", lambda backend: listed)

    def rows(*words):
        return [
            (row["model"], row["systems"])
            for row in json.loads(llmsched("profiles", *words, "--can-make", "--json")[1])["rows"]
        ]

    assert rows() == [("Acme/Dense-7B", ["h9_sxm", "l9"]), ("Acme/Moe-8B", ["h9_sxm"])]
    assert rows("L9") == [("Acme/Dense-7B", ["l9"])]
    assert rows("moe") == [("Acme/Moe-8B", ["h9_sxm"])]
    assert "Dense-7B" in llmsched("profiles", "--can-make")[1]
    assert "no model and no system has 'b200'" in llmsched("profiles", "B200", "--can-make")[2]


def test_an_engine_may_be_a_kept_profile(llmsched):
    words = (
        "evaluate",
        "--engine",
        NAME,
        "--workload",
        "azure-chat",
        "--horizon",
        5,
        "--scheduler",
        "sarathi",
        "--seeds",
        1,
    )
    status, printed, error = llmsched(*words, "--json")
    assert status == 0, error
    assert "sarathi" in printed
