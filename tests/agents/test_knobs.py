"""A tiny training from start to report: saved, interrupted, resumed, logged."""

import json
import math
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from stable_baselines3.common.save_util import load_from_zip_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import llmsched_env as ls
import train
from agents import load_agent, read_meta
from agents.problems import network
from agents.problems.knobs import PUBLISHED, KnobsProblem, KnobsTraining
from agents.run import keep_config
from agents.sb3.dqn import DQNSettings
from agents.sb3.ppo import BudgetedPPO, PPOSettings
from agents.training_budget import TrainingBudget

STEPS = 4 * 16  # of one update
TINY = KnobsTraining(
    eval_loads=(0.5,),
    steps=2 * STEPS,
    minutes=None,
    num_envs=4,
    horizon=4.0,
    tuning_seeds=1,
    test_seeds=3,
    validations=2,
    ppo=PPOSettings(n_steps=16, batch_size=32, n_epochs=2, net_arch=(8, 8), target_kl=100.0),
)


def quiet(_: str) -> None:
    pass


def optimizer(path: Path) -> dict:
    return load_from_zip_file(path, device="cpu")[1]["policy.optimizer"]


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A training of two updates, resumed for two more."""
    folder = tmp_path_factory.mktemp("training") / "run"
    KnobsProblem.create(TINY, folder, quiet).train()
    first = read_meta(folder / "checkpoints/last.zip").training, optimizer(folder / "checkpoints/last.zip")
    time.sleep(1.1)  # TensorBoard reads event files in the order of the second in their names
    training = KnobsProblem.reopen(folder, steps=4 * STEPS, minutes=None, say=quiet)
    training.train()
    return training, *first


def test_the_first_policy_is_the_tuned_static_baseline(trained):
    training, _, _ = trained
    workload = training.tuning_cases.workloads[0]
    agent = ls.simulate(load_agent(training.checkpoints / "step_0.zip"), workload, training.engine, seed=7)
    static = ls.simulate(training.static_best.scheduler, workload, training.engine, seed=7)
    assert len(agent.requests) > 20
    assert agent.requests.tobytes() == static.requests.tobytes()


def test_resuming_goes_on_where_training_stopped(trained):
    training, before, optimizer_before = trained
    after = read_meta(training.checkpoints / "last.zip").training
    assert (before["steps"], after["steps"]) == (2 * STEPS, 4 * STEPS)
    assert (before["sittings"], after["sittings"]) == (1, 2)
    assert (before["updates"], after["updates"]) == (2 * 2, 4 * 2)
    assert after["seconds"] > before["seconds"] > 0
    assert after["reward_statistics"]["count"] == pytest.approx(2 * before["reward_statistics"]["count"], rel=1e-3)
    # Adam counts its steps: 2 updates of 2 epochs of 2 minibatches, then as many again.
    counts = [
        {float(s["step"]) for s in state["state"].values()}
        for state in (optimizer_before, optimizer(training.checkpoints / "last.zip"))
    ]
    assert counts == [{8.0}, {16.0}]


def test_a_resumed_model_starts_as_it_was_saved(trained, tmp_path, monkeypatch):
    training, _, _ = trained
    folder, seen = shutil.copytree(training.folder, tmp_path / "copy"), {}

    def learn(self, *args, **kwargs):
        seen.update(policy=self.policy.state_dict(), optimizer=self.policy.optimizer.state_dict(), env=self.env)
        raise KeyboardInterrupt

    monkeypatch.setattr(BudgetedPPO, "learn", learn)
    last = training.checkpoints / "last.zip"
    saved, meta = load_from_zip_file(last, device="cpu")[1], read_meta(last).training
    with pytest.raises(KeyboardInterrupt):
        KnobsProblem.reopen(folder, 10**6, None, quiet).train()
    for name, weights in saved["policy"].items():
        assert torch.equal(seen["policy"][name], weights)
    for key, state in saved["policy.optimizer"]["state"].items():
        assert torch.equal(seen["optimizer"]["state"][key]["exp_avg_sq"], state["exp_avg_sq"])
    assert float(seen["env"].ret_rms.var) == meta["reward_statistics"]["var"]


def test_an_interrupted_training_is_saved_and_resumed(tmp_path, monkeypatch, capsys):
    real, calls = BudgetedPPO.train, []

    def interrupted(self):
        calls.append(self.num_timesteps)
        if len(calls) == 2:
            raise KeyboardInterrupt
        real(self)

    monkeypatch.setattr(BudgetedPPO, "train", interrupted)
    KnobsProblem.create(replace(TINY, steps=3 * STEPS), tmp_path / "run", quiet)
    with pytest.raises(SystemExit, match=r"train\.py --resume .*run"):
        train.main(["--resume", str(tmp_path / "run"), "--no-report"])
    meta = read_meta(tmp_path / "run/checkpoints/last.zip").training
    assert (meta["steps"], meta["updates"]) == (2 * STEPS, 2)
    train.main(["--resume", str(tmp_path / "run"), "--no-report"])
    meta = read_meta(tmp_path / "run/checkpoints/last.zip").training
    assert (meta["steps"], meta["updates"], meta["sittings"]) == (3 * STEPS, 4, 2)
    assert "tensorboard --logdir" in capsys.readouterr().out


def test_logs_hold_the_serving_numbers_and_reference_lines(trained):
    training, before, _ = trained
    agent = scalars(training.folder / "tensorboard/agent")
    expected = [
        "request_throughput",
        "output_throughput",
        "mean_ttft_ms",
        "p99_ttft_ms",
        "mean_tpot_ms",
        "mean_e2el_ms",
        "slo_attainment",
        "request_goodput",
        "mean_num_waiting",
        "mean_num_in_system",
        "batch_prefill_tokens",
        "batch_decode_tokens",
        "batch_num_seqs",
        "knob_token_budget",
        "knob_order_fcfs",
        "knob_order_shortest_prompt",
        "knob_hold_prefill",
        "reward_latency",
        "reward_goodput",
    ]
    assert {f"serve/{name}" for name in expected} <= agent.keys()
    assert {"rollout/ep_rew_mean", "train/approx_kl", "train/entropy_loss"} <= agent.keys()
    steps = [step for step, _ in agent["serve/mean_e2el_ms"]]
    assert steps[0] == 0 and steps[-1] == 4 * STEPS and sorted(set(steps)) == sorted(steps)
    for name in (*PUBLISHED, "static_best"):
        line = scalars(training.folder / f"tensorboard/baseline_{name}")["serve/mean_e2el_ms"]
        assert [step for step, _ in line] == steps
        assert len({value for _, value in line}) == 1
    assert agent["serve/mean_e2el_ms"][0][1] == pytest.approx(line[0][1])  # step 0 is static_best


def test_validation_numbers_are_those_of_simulate(trained):
    training, _, _ = trained
    workload, seed = training.tuning_cases.workloads[0], training.tuning_cases.seeds[0]
    result = ls.simulate(
        load_agent(training.checkpoints / f"step_{4 * STEPS}.zip"), workload, training.engine, seed=seed
    )
    logged = {tag: values[-1][1] for tag, values in scalars(training.folder / "tensorboard/agent").items()}
    assert logged["serve/mean_e2el_ms"] == pytest.approx(result.summary()["mean_e2el_ms"])
    assert logged["serve/batch_num_seqs"] == pytest.approx(result.batches.num_seqs.mean())
    spent = (result.requests.finish - result.requests.arrival).sum()
    assert logged["serve/reward_latency"] == pytest.approx(-spent)
    assert logged["serve/reward_goodput"] == pytest.approx(result.summary()["slo_attainment"] * len(result.requests))
    times = np.linspace(0, result.end, 20001)[:-1]
    scheduled = np.searchsorted(np.sort(result.requests.first_scheduled), times, "right")
    waiting = np.searchsorted(result.requests.arrival, times, "right") - scheduled
    assert logged["serve/mean_num_waiting"] == pytest.approx(waiting.mean(), abs=0.02)


def test_the_best_checkpoint_is_the_one_with_the_best_validation(trained):
    training, _, _ = trained
    history = dict(scalars(training.folder / "tensorboard/agent")["serve/mean_e2el_ms"])
    best = read_meta(training.checkpoints / "best.zip").training
    assert history[best["steps"]] == min(history.values())
    assert read_meta(training.checkpoints / "last.zip").training["best"] == pytest.approx(min(history.values()))


def test_a_used_up_budget_trains_no_more(trained):
    training, _, _ = trained
    before = (training.checkpoints / "last.zip").read_bytes()
    said = []
    KnobsProblem.reopen(training.folder, None, None, said.append).train()
    assert (training.checkpoints / "last.zip").read_bytes() == before
    assert "used up" in said[-1]


def test_the_report_compares_with_all_baselines(trained, capsys):
    training, _, _ = trained
    train.main(["--resume", str(training.folder)])
    printed = capsys.readouterr().out
    for name in (*PUBLISHED, "static_best", "agent"):
        assert name in printed
    assert "Mean E2E latency: the agent is" in printed and "SLO met: the agent is" in printed
    assert (training.folder / "report.html").stat().st_size > 10_000
    assert "Mean E2E latency: the agent is" in (training.folder / "table.txt").read_text()


def test_a_trace_is_cut_into_training_tuning_and_test(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "mine.csv"
    rows = zip(np.sort(rng.uniform(0, 100, 300)), rng.integers(1, 900, 300), rng.integers(1, 99, 300), strict=True)
    path.write_text("arrival,prompt_tokens,output_tokens\n" + "\n".join(f"{a},{p},{o}" for a, p, o in rows))
    training = KnobsProblem(replace(TINY, trace=str(path)), tmp_path / "run", quiet)
    parts = [w.sample(0) for w in (training.train_workload, training.tuning_workload, training.test_workload)]
    whole = ls.load_trace(path).sample(0)
    assert sum(len(part) for part in parts) == 300
    np.testing.assert_array_equal(np.concatenate([part.prompt_tokens for part in parts]), whole.prompt_tokens)
    assert all((part.ttft_slo == 1.0).all() and (part.tpot_slo == 0.1).all() for part in parts)
    strict = KnobsProblem(replace(TINY, trace=str(path), slo=(0.4, 0.02)), tmp_path / "run", quiet)
    assert (strict.test_workload.sample(0).ttft_slo == 0.4).all()
    assert len(training.tuning_cases.seeds) == 1


def test_a_config_comes_back_from_its_file(tmp_path):
    config = replace(TINY, slo=(0.3, 0.02), load=(0.5, 0.6))
    KnobsProblem.create(config, tmp_path / "run", quiet)
    assert KnobsProblem.reopen(tmp_path / "run", None, None, quiet).config == config
    with pytest.raises(ValueError, match="there is a training in"):
        KnobsProblem.create(config, tmp_path / "run", quiet)
    json.loads((tmp_path / "run/config.json").read_text())


def test_trainings_of_another_kind_are_not_resumed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    keep_config(tmp_path / "runs/other", {"seed": 0})
    with pytest.raises(SystemExit, match="2"):
        train.main(["--resume"])
    assert "no training to resume" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        train.main(["--resume", "runs/other"])
    assert "runs/other must hold a training of an agent by PPO or DQN" in capsys.readouterr().err
    KnobsProblem.create(TINY, tmp_path / "runs/mine", quiet)
    os.utime(tmp_path / "runs/mine/config.json", (0, 0))
    assert train.latest_run() == Path("runs/mine")


@pytest.mark.parametrize(("seed", "folder"), [(0, "pretrained-network"), (3, "pretrained-network-seed3")])
def test_policies_are_trained_once_more_in_a_folder_of_their_seed(seed, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    seen = []

    def interrupted(config, folder, *_):
        seen.append((config.seed, folder))
        raise KeyboardInterrupt

    monkeypatch.setattr(network, "train", interrupted)
    with pytest.raises(SystemExit, match=f"the same command goes on .*runs/{folder}"):
        train.main(["--pretrained", "network", "--seed", str(seed)])
    assert seen == [(seed, Path("runs", folder))]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"objective": "speed"}, "objective"),
        ({"load": (0.0, 1.0)}, "load"),
        ({"load": (1.0, 0.5)}, "load"),
        ({"eval_loads": (0.5, -1.0)}, "eval_loads"),
        ({"eval_loads": ()}, "number of eval_loads must be .* got 0"),
        ({"num_envs": 0}, "num_envs"),
        ({"interval": 0.0}, "interval"),
        ({"steps": None}, "steps or minutes"),
        ({"steps": 0}, "steps"),
        ({"minutes": math.nan}, "minutes"),
        ({"slo": (0.1, 0.0)}, "SLO tpot"),
        ({"seed": -1}, "seed"),
    ],
)
def test_bad_configurations_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(TINY, **change)


@pytest.mark.parametrize(
    ("settings", "change"),
    [
        (PPOSettings, {"n_steps": 0}),
        (PPOSettings, {"batch_size": 1}),
        (PPOSettings, {"n_epochs": 0}),
        (PPOSettings, {"learning_rate": 0.0}),
        (PPOSettings, {"ent_coef": -0.1}),
        (PPOSettings, {"time_constant": 0.0}),
        (PPOSettings, {"gae_lambda": 2.0}),
        (PPOSettings, {"target_kl": 0.0}),
        (PPOSettings, {"net_arch": (64, 0)}),
        (PPOSettings, {"start_logit": math.nan}),
        (DQNSettings, {"arms": 0}),
        (DQNSettings, {"buffer_size": 0}),
        (DQNSettings, {"learning_starts": -1}),
        (DQNSettings, {"train_freq": 0}),
        (DQNSettings, {"target_update_interval": 0.5}),
        (DQNSettings, {"exploration_fraction": 0.0}),
        (DQNSettings, {"exploration_final_eps": 1.5}),
        (DQNSettings, {"net_arch": (0,)}),
    ],
)
def test_bad_hyper_parameters_are_refused(settings, change):
    with pytest.raises(ValueError, match=f"^{next(iter(change))} must be .* got "):
        settings(**change)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--resume", "nowhere"], "no training to resume in nowhere"),
        (["--trace", "nowhere.csv"], "nowhere.csv"),
        (["--engine", "llama"], "llama"),
        (["--workload", "azure"], "azure-chat"),
        (["--steps", "0"], "steps must be"),
        (["--minutes", "-1"], "minutes must be"),
    ],
)
def test_bad_command_lines_say_what_is_wrong(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit:
        train.main(arguments)
    assert exit.value.code == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_budget_ends_with_what_is_used_up_first(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("agents.training_budget.time.monotonic", lambda: now[0])
    budget = TrainingBudget(steps=1000, minutes=1.0, seconds_before=6.0)
    budget.start()
    now[0] += 9.0
    assert budget.elapsed() == 15.0
    assert budget.spent(100) == 0.25 and budget.spent(500) == 0.5 and budget.spent(2000) == 1.0
    assert budget.seconds_left(100) == pytest.approx(45.0)
    now[0] += 100.0
    assert budget.spent(0) == 1.0
