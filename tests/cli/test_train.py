"""llmsched train: from options to a report, interrupted and gone on with, and what it refuses."""

import json
import os
from pathlib import Path

import pytest

from agents.run_folder import read_config
from agents.sb3.algorithms import BudgetedPPO
from llmsched_env.cli.train import TrainOptions
from llmsched_env.sb3.policy_file import read_description

SMALL = (
    *("--load", "0.5", "--num-envs", "4", "--horizon", "4", "--tuning-seeds", "1", "--seeds", "2", "--trials", "0"),
    *("--validations", "1", "--learner", "n_steps=16,batch_size=32,n_epochs=2,net_arch=8:8"),
)


def train(llmsched, *more):
    return llmsched("train", *SMALL, "--steps", 64, *more)


def test_a_policy_is_trained_and_compared(llmsched, tmp_path):
    status, printed, _ = train(llmsched, "--out", tmp_path / "run", "--slo", "ttft=1,tpot=0.05")
    assert status == 0
    assert "the agent misses" in " ".join(printed.split()) and "Report: " in printed and "best.zip" in printed
    assert max(len(line) for line in printed.splitlines() if not line.startswith(("Report", "Policy", "Tensor"))) <= 100
    kept = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"config.json", "run.toml", "best.zip", "last.zip", "report.html", "table.txt", "tensorboard"} <= kept
    assert read_config(tmp_path / "run").slo == (1.0, 0.05)
    status, again, _ = llmsched("train", "--config", tmp_path / "run/run.toml", "--no-report")
    assert status == 0 and "The training is over after 64 steps." in again
    status, table, _ = llmsched(
        "evaluate", "--scheduler", f"{tmp_path / 'run/best.zip'},sarathi", "--load", "0.5", "--horizon", "4",
        "--seeds", "1", "--out", tmp_path / "evaluated",
    )  # fmt: skip
    assert status == 0 and "run/best" in table


def test_several_seeds_are_trained_each_in_a_folder_of_its_own(llmsched, tmp_path):
    status, printed, _ = train(llmsched, "--train-seeds", 2, "--seed", 3, "--out", tmp_path, "--no-report", "--json")
    rows = json.loads(printed)["rows"]
    assert status == 0 and [row["seed"] for row in rows] == [3, 4]
    assert [read_config(Path(row["folder"])).seed for row in rows] == [3, 4]
    assert all(Path(row["policy"]).is_file() for row in rows)


def test_the_report_over_seeds_has_their_mean_and_a_verdict_on_each(llmsched, tmp_path):
    status, printed, _ = train(llmsched, "--train-seeds", 2, "--out", tmp_path, "--reward", "slo")
    assert status == 0 and "interquartile mean over 2 training seeds" in " ".join(printed.split())
    kept = (tmp_path / "table.txt").read_text()
    assert "Learning curves" in kept and "agent 0" in kept and "agent 1" in kept and "mean over seeds" in kept
    assert "Learning curves" in (tmp_path / "report.html").read_text()
    assert len(list((tmp_path / "tuned").iterdir())) == 1  # the constant action, searched once for both
    status, again, _ = llmsched("train", "--config", tmp_path / "run.toml", "--no-report")
    assert status == 0 and again.count("The training is over after 64 steps.") == 2


def test_hyper_parameters_are_searched_and_printed_as_a_command(llmsched, tmp_path):
    status, printed, _ = train(llmsched, "--search", 2, "--out", tmp_path)
    command = printed.splitlines()[-1]
    assert status == 0 and command.startswith("llmsched train --load 0.5") and "learning_rate=" in command
    status, again, _ = train(llmsched, "--search", 2, "--out", tmp_path, "--json")
    assert status == 0 and json.loads(again)["command"] == command and len(json.loads(again)["rows"]) == 2
    status, _, error = train(llmsched, "--search", 2, "--train-seeds", 2)
    assert status == 2 and "--search must be given without --train-seeds" in error


def test_hyper_parameters_come_from_a_file_too(llmsched, tmp_path):
    (tmp_path / "my.toml").write_text("steps = 64\n[learner]\nlearning_rate = 2e-4\nnet_arch = [8, 8]\nn_steps = 16\n")
    words = [word for word in SMALL if word not in ("--learner", SMALL[-1])]
    status, _, error = llmsched(
        "train", *words, "--config", tmp_path / "my.toml", "--no-report", "--out", tmp_path / "a"
    )
    assert status == 0, error
    settings = read_config(tmp_path / "a").settings
    assert (settings.learning_rate, settings.net_arch, settings.n_steps) == (2e-4, (8, 8), 16)


def test_headroom_is_a_table_of_an_environment(llmsched, tmp_path):
    words = ["--load", "0.5", "--horizon", "4", "--tuning-seeds", "1", "--trials", "0", "--seeds", "2"]
    status, printed, _ = llmsched("headroom", *words, "--workload", "azure-chat", "--out", tmp_path, "--csv")
    header, row = printed.splitlines()
    assert status == 0 and header.startswith("env,site,metric,random") and row.startswith("llmsched/BatchQueue-v1")
    status, _, error = llmsched("headroom", "--all", "--policy", tmp_path / "best.zip")
    assert status == 2 and "--policy must be left out with --all" in error


def test_an_interrupted_training_says_how_to_go_on(llmsched, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    real = BudgetedPPO.train

    def interrupted(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(BudgetedPPO, "train", interrupted)
    status, printed, _ = train(llmsched, "--no-report")
    [folder] = Path("runs").iterdir()
    assert status == 130 and f"Go on with: llmsched train --resume --out {folder}" in printed
    monkeypatch.setattr(BudgetedPPO, "train", real)
    status, printed, _ = llmsched("train", "--resume", "--steps", 128, "--no-report")
    assert status == 0 and "Going on from 64 steps." in printed
    assert read_description(folder / "last.zip").training["steps"] == 128
    assert read_config(folder).steps == 128


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--env", "BatchQueue-v7"], "version of BatchQueue must be"),
        (["--trials", "-1"], "trials must be"),
        (["--search", "0"], "--search must be"),
        (["--env", "Batch"], "did you mean 'BatchQueue'"),
        (["--algo", "sarsa"], "algo of BatchQueue must be"),
        (["--engine", "llama-3.1-8b_h10"], "did you mean 'llama-3.1-8b_h100-80gb_tp1_aic'"),
        (["--workload", "azure"], "azure-chat"),
        (["--workload", "nowhere.csv"], "nowhere.csv"),
        (["--workload", "azure-chat,sharegpt-chat"], "--workload must be one preset"),
        (["--learner", "n_step=4"], "did you mean 'n_steps'"),
        (["--learner", "n_steps"], "NAME=VALUE"),
        (["--reward", "lateness"], "reward must be"),
        (["--train-seeds", "0"], "--train-seeds must be"),
        (["--resume", "--out", "nowhere"], "no training in nowhere"),
        (["--resume"], "no training to resume"),
    ],
)
def test_bad_command_lines_are_told_in_a_line_before_any_work(llmsched, words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, printed, error = llmsched("train", *words)
    assert status == 2 and printed == "" and message in error and error.count("\n") == 1
    assert not os.listdir(tmp_path)


def test_options_say_what_a_training_is():
    options = TrainOptions(env="Cluster", engine=("a", "b"), train_load=(0.5, 0.9), learner={"n_steps": 8})
    config = options.training(5)
    assert (config.env, config.engine, config.train_load, config.seed) == ("Cluster", ("a", "b"), (0.5, 0.9), 5)
    assert config.algo == "ppo" and config.settings.n_steps == 8
