"""What a training is: defaults of each environment and learner, and what is refused before any work."""

import json
import math
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from agents.config import ENVIRONMENTS, H100, VERSIONS, Training, environment_name
from agents.run_folder import CONFIG, keep_config, latest, read_config
from agents.settings import AIDS, TUNED, DQNSettings, ESSettings, IndexSettings, LearningAids, PPOSettings, learners
from agents.training_budget import TrainingBudget

ROOT = Path(__file__).resolve().parents[2]
NONE_IS_A_CHOICE = ("slo", "step_noise", "believed", "steps", "minutes")


def test_engines_scatter_and_are_believed_as_the_training_says():
    first, second = Training(env="Cluster", engine=(H100, H100), step_noise=0.2, believed="0.5").engines()
    assert first == second and first.step_noise == 0.2
    assert first.believed_batch_time == first.batch_time.scaled(0.5)
    (plain,) = Training().engines()
    assert plain.step_noise == 0.0 and plain.believed_batch_time is None


@pytest.mark.parametrize(("env", "algo"), TUNED)
def test_every_environment_has_defaults_for_each_of_its_learners(env, algo):
    config = Training(env=env, algo=algo)
    assert config.settings == TUNED[env, algo] and config.learning_aids == AIDS.get((env, algo), LearningAids())
    assert config.searches == (algo == "es")
    assert config.searches or (config.steps is None) != (config.minutes is None)
    assert all(value is not None for name, value in asdict(config).items() if name not in NONE_IS_A_CHOICE)
    assert Training(env=config.env_id, algo=algo) == config


def test_the_usual_learner_is_the_default():
    assert [Training(env=env).algo for env in ENVIRONMENTS] == ["ppo", "ppo", "maskable_ppo", "ppo", "ppo"]
    assert learners("BatchQueue") == ("ppo", "dqn", "es")


def test_hyper_parameters_are_changed_by_name():
    config = Training(learner={"ent_coef": 0.5, "n_steps": 8.0, "net_arch": 32}, aids={"reference": 1, "anchor": 0.2})
    assert config.settings == replace(Training().settings, ent_coef=0.5, n_steps=8, net_arch=(32,))
    assert config.learning_aids == replace(Training().learning_aids, reference=True, anchor=0.2)
    index = Training(env="IndexPolicy", algo="es", learner={"generations": (3, 4)})
    assert index.settings == IndexSettings(generations=(3, 4))


def test_a_workload_of_ones_own_has_an_engine_where_the_suite_has_many():
    assert Training(env="Cluster", algo="es").engine == ()
    assert len(Training(env="Cluster", algo="es", workload="azure-chat").engine) == 4
    assert len(Training(env="IndexPolicy", algo="es", workload="azure-chat").engine) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"env": "Batch"}, "env must be .*did you mean 'BatchQueue'"),
        ({"algo": "sarsa"}, "algo of BatchQueue must be .*'sarsa'"),
        ({"algo": "maskable_ppo"}, "algo of BatchQueue must be .*'maskable_ppo'"),
        ({"train_load": (0.0, 1.0)}, "train_load"),
        ({"train_load": (1.0, 0.5)}, "train_load"),
        ({"load": (0.5, -1.0)}, "load must be .* got -1"),
        ({"load": ()}, "number of loads must be .* got 0"),
        ({"num_envs": 0}, "num_envs"),
        ({"interval": -1.0}, "interval"),
        ({"interval": 300.0}, "interval must be .* <= 120"),
        ({"horizon": 0.0}, "horizon must be .* got 0"),
        ({"steps": 0}, "steps"),
        ({"minutes": math.nan}, "minutes"),
        ({"slo": (0.1, 0.0)}, "slo tpot must be .* got 0"),
        ({"seed": -1}, "seed"),
        ({"seeds": 0}, "seeds must be .* got 0"),
        ({"engine": ()}, "number of engines must be .* got 0"),
        ({"workload": "suite"}, "workload must be a preset or a trace for BatchQueue with ppo"),
        ({"learner": {"n_step": 3}}, "name in learner ppo must be .*did you mean 'n_steps'"),
        ({"aids": {"anker": 3}}, "name in aids must be .*did you mean 'anchor'"),
        ({"aids": {"shared_traces": 3}}, "shared_traces must divide num_envs=128, got 3"),
        ({"algo": "dqn", "aids": {"anchor": 0.1}}, "anchor must be 0 unless algo is 'ppo'"),
        ({"algo": "dqn", "aids": {"shared_traces": 2}}, "shared_traces must be 1 unless algo is 'ppo'"),
        ({"algo": "es", "aids": {"curriculum": 0.5}}, "aids must be left out for BatchQueue with es, got curriculum"),
        ({"env": "Cluster", "aids": {"reference": True}}, "aids must be left out for Cluster with ppo, got reference"),
        ({"algo": "es", "minutes": 3.0}, "minutes must be None with algo 'es', got 3.0; see generations"),
        ({"env": "AgentNetwork", "engine": ("h100",)}, "engine must be left out"),
        ({"env": "AgentNetwork", "step_noise": 0.1}, "step_noise must be left out"),
        ({"env": "Cluster", "algo": "es", "workload": "azure-chat", "believed": "0.8"}, "believed must be left out"),
    ],
)
def test_bad_configurations_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Training(**change)


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
        (PPOSettings, {"log_std_init": math.inf}),
        (DQNSettings, {"arms": 0}),
        (DQNSettings, {"buffer_size": 0}),
        (DQNSettings, {"learning_starts": -1}),
        (DQNSettings, {"train_freq": 0}),
        (DQNSettings, {"target_update_interval": 0.5}),
        (DQNSettings, {"exploration_fraction": 0.0}),
        (DQNSettings, {"exploration_final_eps": 1.5}),
        (DQNSettings, {"net_arch": (0,)}),
        (ESSettings, {"generations": 0}),
        (ESSettings, {"generations": 1, "noise": 0.0}),
        (ESSettings, {"generations": 1, "runs": 0}),
        (IndexSettings, {"sites": 1.5}),
        (IndexSettings, {"sweeps": -1}),
        (IndexSettings, {"cases": 0}),
        (IndexSettings, {"validate_every": 0}),
        (IndexSettings, {"average": 1.5}),
        (LearningAids, {"reference": 2}),
        (LearningAids, {"shared_traces": 0}),
        (LearningAids, {"curriculum": 1.5}),
        (LearningAids, {"curriculum_start": 0.0}),
        (LearningAids, {"anchor": -0.1}),
    ],
)
def test_bad_hyper_parameters_are_refused(settings, change):
    with pytest.raises(ValueError, match=f"^{list(change)[-1]} must be .*got "):
        settings(**change)


def test_a_config_comes_back_from_its_folder(tmp_path):
    config = Training(slo=(0.3, 0.02), train_load=(0.5, 0.6), learner={"net_arch": (8, 8)}, horizon=math.inf)
    keep_config(tmp_path / "run", config)
    assert read_config(tmp_path / "run") == config
    record = json.loads((tmp_path / "run" / CONFIG).read_text())
    assert record["versions"]["numba"] and record["commit"] and record["first_seeds"]["test"] == 30_000
    keep_config(tmp_path / "run", replace(config, steps=5, minutes=None, seeds=3))  # these may change
    assert read_config(tmp_path / "run").steps == 5


def test_another_training_in_the_folder_is_refused(tmp_path):
    config = Training(learner={"n_steps": 4})
    keep_config(tmp_path, config, {"first_weights": "abc"})
    for change, first, message in (
        ({"seed": 7}, "abc", "seed must be 0 .* got 7"),
        ({"learner": {"n_steps": 5}}, "abc", "learner.n_steps must be 4 .* got 5"),
        ({}, "xyz", "first_weights must be 'abc' .* got 'xyz'"),
    ):
        with pytest.raises(ValueError, match=f"another training in .*: {message}.*another folder"):
            keep_config(tmp_path, replace(config, **change), {"first_weights": first})


def test_folders_of_which_nothing_says_what_they_are_are_refused(tmp_path):
    (tmp_path / "last.npz").touch()
    with pytest.raises(ValueError, match=r"without config\.json.*another folder"):
        keep_config(tmp_path, Training())
    with pytest.raises(FileNotFoundError, match="no training in .*nowhere"):
        read_config(tmp_path / "nowhere")
    (tmp_path / CONFIG).write_text('{"training": {"env": "BatchQueue"}}')
    with pytest.raises(ValueError, match="must be that of a training by this version, but lacks aids"):
        read_config(tmp_path)
    (tmp_path / CONFIG).write_text("{}")
    with pytest.raises(ValueError, match="must be that of a training by this version"):
        read_config(tmp_path)


def test_the_latest_training_is_found(tmp_path):
    with pytest.raises(FileNotFoundError, match="no training to resume"):
        latest(tmp_path)
    for name in ("one", "two"):
        keep_config(tmp_path / name, Training())
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / CONFIG).write_text("{}")
    assert latest(tmp_path).name == "two"


def test_names_of_environments():
    assert environment_name("llmsched/Cluster-v0") == ("Cluster", 0)
    assert environment_name("Cluster") == ("Cluster", None)
    old = Training(env="BatchQueue-v0")
    assert (old.env, old.env_id) == ("BatchQueue", "llmsched/BatchQueue-v0") and old == replace(old)
    assert Training().env_id == f"llmsched/BatchQueue-v{VERSIONS['BatchQueue']}"
    for name, message in (
        ("BatchQueue-v9", "version of BatchQueue must be .* <= 1, got 9"),
        ("Cluster-vx", "env must be"),
    ):
        with pytest.raises(ValueError, match=message):
            Training(env=name)


def test_its_import_is_light():
    heavy = "{'torch', 'numba', 'gymnasium', 'scipy'} & set(sys.modules)"
    code = f"import sys, agents.config; assert not {heavy}, {heavy}"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


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
