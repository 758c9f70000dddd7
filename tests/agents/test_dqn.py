"""A tiny training of DQN over arms, from the tuned static baseline to a scheduler."""

import json
from dataclasses import replace

import numpy as np
import pytest
from stable_baselines3 import DQN

import llmsched_env as ls
from agents import load_agent, read_meta
from agents.problems.knobs import KnobsProblem, KnobsTraining
from agents.run import CONFIG
from agents.sb3.checkpoint import AgentMeta
from agents.sb3.dqn import BudgetedDQN, DQNSettings
from llmsched_env.envs.batch_queue import NUM_FEATURES, Knobs

TINY = KnobsTraining(
    algo="dqn",
    eval_loads=(0.5,),
    steps=256,
    minutes=None,
    num_envs=4,
    horizon=4.0,
    tuning_seeds=1,
    test_seeds=2,
    validations=2,
    dqn=DQNSettings(arms=3, learning_starts=32, batch_size=32, net_arch=(8, 8), target_update_interval=64),
)


def quiet(_: str) -> None:
    pass


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A training, resumed for as many steps again."""
    folder = tmp_path_factory.mktemp("training") / "run"
    KnobsProblem.create(TINY, folder, quiet).train()
    before = read_meta(folder / "checkpoints/last.zip").training
    training = KnobsProblem.reopen(folder, steps=512, minutes=None, say=quiet)
    training.train()
    return training, before


def test_the_first_policy_is_the_tuned_static_baseline_and_the_first_arm(trained):
    training, _ = trained
    workload = training.tuning_cases.workloads[0]
    agent = ls.simulate(load_agent(training.checkpoints / "step_0.zip"), workload, training.engine, seed=7)
    static = ls.simulate(training.static_best.scheduler, workload, training.engine, seed=7)
    assert len(agent.requests) > 20
    assert agent.requests.tobytes() == static.requests.tobytes()
    best = training.static_best
    assert training.arms[0] == tuple(training.knobs.encode(best.token_budget, order=best.order))
    assert len(set(training.arms)) == 3


def test_resuming_goes_on_where_training_stopped(trained):
    training, before = trained
    after = read_meta(training.checkpoints / "last.zip").training
    assert (before["steps"], after["steps"]) == (256, 512)
    assert (before["sittings"], after["sittings"]) == (1, 2)
    assert after["updates"] > before["updates"] > 0


def test_the_agent_decides_as_the_model_does(trained):
    training, _ = trained
    path = training.checkpoints / "last.zip"
    agent, model = load_agent(path), DQN.load(path, device="cpu")
    rng = np.random.default_rng(0)
    observations = rng.random((50, NUM_FEATURES), np.float32)
    expected, _ = model.predict(observations, deterministic=True)
    chosen = [agent.controller.network(obs)[0] for obs in observations]
    assert chosen == expected.tolist()
    assert read_meta(path).arms == training.arms
    params = agent.controller.knobs.params(np.array(chosen))
    np.testing.assert_array_equal(params, training.knobs.params(np.array(training.arms)[chosen]))


def test_rates_follow_the_budget(trained):
    training, _ = trained
    model = BudgetedDQN.load(training.checkpoints / "last.zip", device="cpu")
    assert model.exploration_rate == pytest.approx(TINY.dqn.exploration_final_eps)
    assert model.policy.optimizer.param_groups[0]["lr"] < 0.2 * TINY.dqn.learning_rate


def test_the_comparison_names_the_algorithm(trained):
    training, _ = trained
    comparison = training.evaluate()
    assert comparison.notes["agent"].startswith("DQN for mean_e2el")


def test_a_config_of_another_version_is_refused(tmp_path):
    training = KnobsProblem.create(replace(TINY, algo="ppo"), tmp_path / "run", quiet)
    assert training.arms is None
    path = tmp_path / "run" / CONFIG
    record = json.loads(path.read_text())
    for changed in ({"dqn": None}, {"speed": 1}):
        other = {name: value for name, value in (record | changed).items() if value is not None or name != "dqn"}
        path.write_text(json.dumps(other))
        with pytest.raises(ValueError, match=r"config\.json must be that of a training by this version: .*(dqn|speed)"):
            KnobsProblem.reopen(tmp_path / "run", None, None, quiet)


def test_bad_choices_are_refused():
    with pytest.raises(ValueError, match="algo must be .*'sarsa'"):
        replace(TINY, algo="sarsa")
    meta = AgentMeta("toy", Knobs((64,), (4,)), 0.1, arms=((0, 0, 1, 0),))
    assert AgentMeta.from_json(meta.to_json()) == meta
    with pytest.raises(ValueError, match="arms must hold actions"):
        AgentMeta.from_json(meta.to_json().replace("[\n   0,\n   0,\n   1,", "[\n   9,\n   0,\n   1,"))
