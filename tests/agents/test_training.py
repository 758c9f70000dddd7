"""Tiny trainings of PPO and DQN on one engine from start to report: saved, interrupted, resumed, logged."""

import math
import shutil
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from stable_baselines3 import DQN
from stable_baselines3.common.save_util import load_from_zip_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import llmsched_env as ls
from agents.config import Training
from agents.learning_curve import LearningCurve
from agents.problems.engine import EngineProblem
from agents.problems.rivals import PUBLISHED
from agents.problems.workload_split import Split
from agents.sb3.algorithms import BudgetedDQN, BudgetedPPO
from agents.sb3.learner import GradientLearner
from agents.settings import DQNSettings
from agents.training import open_problem, train
from llmsched_env.envs.as_scheduler import as_scheduler, features_of
from llmsched_env.sb3.policy_file import read_description, read_network

STEPS = 4 * 16  # of one update
TINY = Training(
    load=(0.5,), steps=2 * STEPS, num_envs=4, horizon=4.0, tuning_seeds=1, trials=0, seeds=3, validations=2,
    learner={"n_steps": 16, "batch_size": 32, "n_epochs": 2, "net_arch": (8, 8), "target_kl": 100.0},
    env_arguments={"actions": "knobs"}, reward="latency", workload="azure-chat",
)  # fmt: skip
TINY_DQN = replace(
    TINY, algo="dqn", steps=256,
    learner={"arms": 3, "learning_starts": 32, "batch_size": 32, "net_arch": (8, 8), "target_update_interval": 64},
)  # fmt: skip


def state(path):
    return read_description(path).training


def optimizer(path):
    return load_from_zip_file(path, device="cpu")[1]["policy.optimizer"]


def scalars(folder):
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A training of two updates, resumed for two more: its folder, its problem, and what its checkpoint was between."""
    folder = tmp_path_factory.mktemp("training") / "run"
    train(TINY, folder, lambda line: None)
    before = state(folder / "last.zip"), optimizer(folder / "last.zip")
    time.sleep(1.1)  # TensorBoard reads event files in the order of the second in their names
    problem = train(replace(TINY, steps=4 * STEPS), folder, lambda line: None)
    return folder, problem, *before


def test_the_first_policy_is_the_tuned_static_baseline(trained):
    folder, problem, *_ = trained
    workload = problem.tuning_cases.workloads[0]
    agent = ls.simulate(as_scheduler(folder / "first.zip"), workload, problem.engine, seed=7)
    static = ls.simulate(problem.static_best.scheduler, workload, problem.engine, seed=7)
    assert len(agent.requests) > 20
    assert agent.requests.tobytes() == static.requests.tobytes()


def test_resuming_goes_on_where_training_stopped(trained):
    folder, _, before, optimizer_before = trained
    after = state(folder / "last.zip")
    assert (before["steps"], after["steps"]) == (2 * STEPS, 4 * STEPS)
    assert (before["sittings"], after["sittings"]) == (1, 2)
    assert (before["updates"], after["updates"]) == (2 * 2, 4 * 2)
    assert after["seconds"] > before["seconds"] > 0
    assert after["reward_statistics"]["count"] == pytest.approx(2 * before["reward_statistics"]["count"], rel=1e-3)
    # Adam counts its steps: 2 updates of 2 epochs of 2 minibatches, then as many again.
    counts = [
        {float(s["step"]) for s in saved["state"].values()}
        for saved in (optimizer_before, optimizer(folder / "last.zip"))
    ]
    assert counts == [{8.0}, {16.0}]


def test_a_resumed_model_starts_as_it_was_saved(trained, tmp_path, monkeypatch, quiet):
    folder, seen = shutil.copytree(trained[0], tmp_path / "copy"), {}

    def learn(self, *args, **kwargs):
        seen.update(policy=self.policy.state_dict(), optimizer=self.policy.optimizer.state_dict(), env=self.env)
        raise KeyboardInterrupt

    monkeypatch.setattr(BudgetedPPO, "learn", learn)
    last = folder / "last.zip"
    saved, about = load_from_zip_file(last, device="cpu")[1], state(last)
    with pytest.raises(KeyboardInterrupt):
        train(replace(TINY, steps=10**6), folder, quiet)
    for name, weights in saved["policy"].items():
        assert torch.equal(seen["policy"][name], weights)
    for key, moments in saved["policy.optimizer"]["state"].items():
        assert torch.equal(seen["optimizer"]["state"][key]["exp_avg_sq"], moments["exp_avg_sq"])
    assert float(seen["env"].ret_rms.var) == about["reward_statistics"]["var"]


def test_an_interrupted_training_is_saved_and_resumed(tmp_path, monkeypatch, quiet):
    real, calls = BudgetedPPO.train, []

    def interrupted(self):
        calls.append(self.num_timesteps)
        if len(calls) == 2:
            raise KeyboardInterrupt
        real(self)

    monkeypatch.setattr(BudgetedPPO, "train", interrupted)
    config = replace(TINY, steps=3 * STEPS)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path, quiet)
    about = state(tmp_path / "last.zip")
    assert (about["steps"], about["updates"]) == (2 * STEPS, 2)
    train(config, tmp_path, quiet)
    about = state(tmp_path / "last.zip")
    assert (about["steps"], about["updates"], about["sittings"]) == (3 * STEPS, 4, 2)


def test_logs_hold_the_serving_numbers_and_reference_lines(trained):
    folder, *_ = trained
    agent = scalars(folder / "tensorboard/agent")
    expected = [
        "request_throughput", "output_throughput", "mean_ttft_ms", "p99_ttft_ms", "mean_tpot_ms", "mean_e2el_ms",
        "slo_attainment", "request_goodput", "mean_num_waiting", "mean_num_in_system", "batch_prefill_tokens",
        "batch_decode_tokens", "batch_num_seqs", "knob_token_budget", "knob_order_fcfs", "knob_order_shortest_prompt",
        "knob_hold_prefill", "reward_latency", "reward_slo",
    ]  # fmt: skip
    assert {f"serve/{name}" for name in expected} <= agent.keys()
    assert {"rollout/ep_rew_mean", "train/approx_kl", "train/entropy_loss"} <= agent.keys()
    steps = [step for step, _ in agent["serve/mean_e2el_ms"]]
    assert steps[0] == 0 and steps[-1] == 4 * STEPS and sorted(set(steps)) == sorted(steps)
    for name in ("sarathi_defaults", "static_best"):
        line = scalars(folder / f"tensorboard/baseline_{name}")["serve/mean_e2el_ms"]
        assert [step for step, _ in line] == steps
        assert len({value for _, value in line}) == 1
    assert agent["serve/mean_e2el_ms"][0][1] == pytest.approx(line[0][1])  # step 0 is static_best
    against = scalars(folder / "tensorboard/agent_against_static_best")["against/lower_mean_e2el_percent"]
    assert [step for step, _ in against] == steps
    assert [value for _, value in against] == pytest.approx(
        [
            100 * (1 - min(own, line[0][1]) / max(own, line[0][1])) * (1 if own <= line[0][1] else -1)
            for _, own in agent["serve/mean_e2el_ms"]
        ],
        abs=1e-4,
    )


def test_a_baseline_that_would_flatten_a_chart_is_left_out_of_it(trained):
    folder, *_ = trained
    assert not (folder / "tensorboard/baseline_fastertransformer_defaults").exists() or (
        "serve/mean_e2el_ms" not in scalars(folder / "tensorboard/baseline_fastertransformer_defaults")
    )
    curve = LearningCurve.of(folder)
    assert "fastertransformer (defaults)" in curve.references and "static_best" in curve.in_range()
    assert [point.step for point in curve.points][-1] == 4 * STEPS and curve.complete


def test_validation_numbers_are_those_of_simulate(trained):
    folder, problem, *_ = trained
    workload, seed = problem.tuning_cases.workloads[0], problem.tuning_cases.seeds[0]
    result = ls.simulate(as_scheduler(folder / "last.zip"), workload, problem.engine, seed=seed)
    logged = {tag: values[-1][1] for tag, values in scalars(folder / "tensorboard/agent").items()}
    assert logged["serve/mean_e2el_ms"] == pytest.approx(result.summary()["mean_e2el_ms"])
    assert logged["serve/batch_num_seqs"] == pytest.approx(result.batches.num_seqs.mean())
    spent = (result.requests.finish - result.requests.arrival).sum()
    assert logged["serve/reward_latency"] == pytest.approx(-spent)
    assert logged["serve/reward_slo"] == pytest.approx((result.summary()["slo_attainment"] - 1) * len(result.requests))
    times = np.linspace(0, result.end, 20001)[:-1]
    scheduled = np.searchsorted(np.sort(result.requests.first_scheduled), times, "right")
    waiting = np.searchsorted(result.requests.arrival, times, "right") - scheduled
    assert logged["serve/mean_num_waiting"] == pytest.approx(waiting.mean(), abs=0.02)


def test_the_best_checkpoint_is_the_one_with_the_best_validation(trained):
    folder, *_ = trained
    history = dict(scalars(folder / "tensorboard/agent")["serve/mean_e2el_ms"])
    best = state(folder / "best.zip")
    assert history[best["steps"]] == min(history.values())
    assert state(folder / "last.zip")["best"] == pytest.approx(min(history.values()))


def test_a_used_up_budget_trains_no_more(trained):
    folder, *_ = trained
    before, said = (folder / "last.zip").read_bytes(), []
    train(replace(TINY, steps=4 * STEPS), folder, said.append)
    assert (folder / "last.zip").read_bytes() == before
    assert said[-1] == "The training is over after 256 steps."


def test_the_report_compares_with_all_baselines(trained):
    folder, problem, *_ = trained
    printed = problem.report(folder / problem.best, folder, "llmsched train")
    for name in (*PUBLISHED, "static_best", "agent"):
        assert name in printed
    assert "the agent has a Mean E2E latency" in " ".join(printed.split()) and "Learning curve" in printed
    kept = (folder / "table.txt").read_text()
    assert kept.startswith(printed) and "SLO met: the agent is" in kept
    html = (folder / "report.html").read_text()
    assert html.index("Learning curve") < html.index("Results") and "data:image/svg+xml" in html


def test_a_trace_is_cut_into_training_tuning_and_test(tmp_path, quiet):
    rng = np.random.default_rng(0)
    path = tmp_path / "mine.csv"
    rows = zip(np.sort(rng.uniform(0, 100, 300)), rng.integers(1, 900, 300), rng.integers(1, 99, 300), strict=True)
    path.write_text("arrival,prompt_tokens,output_tokens\n" + "\n".join(f"{a},{p},{o}" for a, p, o in rows))
    problem = EngineProblem(replace(TINY, workload=str(path)), quiet)
    parts = [w.sample(0) for w in (problem.split.training, problem.split.tuning, problem.split.test)]
    whole = ls.load_trace(path).sample(0)
    assert sum(len(part) for part in parts) == 300
    np.testing.assert_array_equal(np.concatenate([part.prompt_tokens for part in parts]), whole.prompt_tokens)
    assert all((part.ttft_slo == 1.0).all() and (part.tpot_slo == 0.1).all() for part in parts)
    strict = EngineProblem(replace(TINY, workload=str(path), slo=(0.4, 0.02)), quiet)
    assert (strict.split.test.sample(0).ttft_slo == 0.4).all()
    assert len(problem.tuning_cases.seeds) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"engine": ("llama",)}, "llama"),
        ({"workload": "azure"}, "azure-chat"),
        ({"workload": "nowhere.csv"}, "nowhere.csv"),
        ({"reward": "speed"}, "reward must be .*'speed'"),
        ({"env_arguments": {"slots": 3}}, "slots"),
        ({"env_arguments": {"actions": "levers"}}, "actions must be .*levers"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_a_folder_is_made(change, message, tmp_path, quiet):
    with pytest.raises((ValueError, FileNotFoundError, TypeError), match=message):
        train(replace(TINY, **change), tmp_path / "run", quiet)
    assert not list(tmp_path.iterdir())


def test_attainment_of_requests_without_targets_is_refused(quiet):
    workload = ls.Workload.from_arrays([0.0, 1.0], [10, 10], [2, 2])
    config = replace(TINY, reward="slo", load=("recorded",), train_load=())
    with pytest.raises(ValueError, match="slo must be given for reward 'slo'"):
        EngineProblem(config, quiet, Split(workload, workload, workload, recorded=True))


@pytest.fixture(scope="module")
def trained_dqn(tmp_path_factory):
    """A training of DQN, resumed for as many steps again."""
    folder = tmp_path_factory.mktemp("training") / "run"
    train(TINY_DQN, folder, lambda line: None)
    before = state(folder / "last.zip")
    return folder, train(replace(TINY_DQN, steps=512), folder, lambda line: None), before


def test_dqn_starts_at_the_first_arm_which_is_the_tuned_static_baseline(trained_dqn):
    folder, problem, _ = trained_dqn
    workload = problem.tuning_cases.workloads[0]
    agent = ls.simulate(as_scheduler(folder / "first.zip"), workload, problem.engine, seed=7)
    static = ls.simulate(problem.static_best.scheduler, workload, problem.engine, seed=7)
    assert agent.requests.tobytes() == static.requests.tobytes()
    best, arms = problem.static_best, problem.arguments["arms"]
    assert arms[0] == tuple(best.action.tolist())
    assert len(set(arms)) == 3


def test_resumed_dqn_goes_on_where_it_stopped(trained_dqn):
    folder, _, before = trained_dqn
    after = state(folder / "last.zip")
    assert (before["steps"], after["steps"]) == (256, 512)
    assert (before["sittings"], after["sittings"]) == (1, 2)
    assert after["updates"] > before["updates"] > 0


def test_the_agent_decides_as_the_model_does(trained_dqn):
    folder, problem, _ = trained_dqn
    path = folder / "last.zip"
    network, model = read_network(path), DQN.load(path, device="cpu")
    observations = np.random.default_rng(0).random((50, len(features_of(TINY.env_id))), np.float32)
    expected, _ = model.predict(observations, deterministic=True)
    assert [int(network(obs)) for obs in observations] == expected.tolist()
    assert read_description(path).env_arguments["arms"] == problem.arguments["arms"]


def test_rates_follow_the_budget(trained_dqn):
    model, settings = BudgetedDQN.load(trained_dqn[0] / "last.zip", device="cpu"), TINY_DQN.settings
    assert isinstance(settings, DQNSettings)
    assert model.exploration_rate == pytest.approx(settings.exploration_final_eps)
    assert model.policy.optimizer.param_groups[0]["lr"] < 0.2 * settings.learning_rate


def test_a_training_can_start_at_the_policy_of_another(trained, tmp_path, quiet):
    start = str(trained[0] / "last.zip")
    learner = GradientLearner(open_problem(replace(TINY, start=start), quiet), tmp_path, quiet)
    learner.prepare()
    saved = load_from_zip_file(start, device="cpu")[1]["policy"]
    for name, weights in learner.model.policy.state_dict().items():
        assert torch.equal(saved[name], weights)
    learner.close()


@pytest.mark.parametrize("interval", [0.0, 0.5])
def test_index_numbers_start_at_their_defaults(interval, tmp_path, quiet):
    config = Training(
        env="IndexPolicy", load=(0.5,), steps=64, num_envs=4, horizon=4.0, tuning_seeds=1, trials=0, seeds=2,
        validations=1, interval=interval, learner={"n_steps": 16, "batch_size": 32, "net_arch": (8,)},
    )  # fmt: skip
    said = []
    problem = train(config, tmp_path, said.append)
    assert isinstance(problem, EngineProblem)
    own, index = (
        ls.simulate(s, problem.tuning_cases.workloads[0], problem.engine).summary()["mean_e2el_ms"]
        for s in (as_scheduler(tmp_path / "first.zip"), problem.known["neutral"])
    )
    assert own == pytest.approx(index, rel=0.05)
    assert math.isfinite(state(tmp_path / "best.zip")["best"])


def test_the_default_starts_at_the_neutral_action(tmp_path, quiet):
    problem = train(replace(TINY, env_arguments={}, steps=STEPS, validations=1, seeds=2), tmp_path, quiet)
    neutral, own = (
        ls.simulate(scheduler, problem.tuning_cases.workloads[0], problem.engine, seed=7)
        for scheduler in (problem.known["neutral"], as_scheduler(tmp_path / "first.zip"))
    )
    own_e2el, neutral_e2el = (result.summary()["mean_e2el_ms"] for result in (own, neutral))
    assert own_e2el == pytest.approx(neutral_e2el, rel=0.02)
