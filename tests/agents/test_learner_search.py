"""The search of hyper-parameters by short trainings: it goes on, keeps to its ranges, and refuses what it cannot do."""

import pytest

from agents import learner_search
from agents.config import Training
from agents.learner_search import SPACES, search_settings
from agents.sb3.algorithms import BudgetedPPO
from agents.settings import TUNED

TINY = Training(
    reward="slo", workload="azure-chat", load=(0.5,), steps=256, num_envs=4, horizon=4.0, tuning_seeds=1, validations=2,
    learner={"net_arch": 8},
)  # fmt: skip


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    """Only settings of small trainings."""
    space = {"learning_rate": SPACES[type(TINY.settings)]["learning_rate"]}
    space["n_epochs"] = learner_search.Between(1, 2, whole=True)
    monkeypatch.setitem(SPACES, type(TINY.settings), space)


def test_a_search_goes_on_and_begins_with_the_settings_of_the_config(tmp_path, quiet):
    first = search_settings(TINY, 1, tmp_path, quiet)
    assert first.trials[0].settings == {"learning_rate": TINY.settings.learning_rate, "n_epochs": 2}
    found = search_settings(TINY, 3, tmp_path, quiet)
    assert [trial.number for trial in found.trials] == [0, 1, 2] and found.trials[0] == first.trials[0]
    complete = [trial.value for trial in found.trials if trial.state == "complete"]
    assert found.best.value == max(complete)
    assert all(1e-4 <= trial.settings["learning_rate"] <= 3e-3 for trial in found.trials)
    with pytest.raises(ValueError, match="another search in .*: seed must be 0, got 1"):
        search_settings(Training(**{**_fields(TINY), "seed": 1}), 3, tmp_path, quiet)


def test_an_interrupted_training_is_begun_again(tmp_path, quiet, monkeypatch):
    real = BudgetedPPO.train

    def interrupted(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(BudgetedPPO, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        search_settings(TINY, 1, tmp_path, quiet)
    monkeypatch.setattr(BudgetedPPO, "train", real)
    [trial] = search_settings(TINY, 1, tmp_path, quiet).trials
    assert trial.state == "complete" and trial.settings["learning_rate"] == TINY.settings.learning_rate


def test_stages_have_nothing_to_search(tmp_path, quiet):
    with pytest.raises(ValueError, match="search must be left out for IndexPolicy with es"):
        search_settings(Training(env="IndexPolicy", algo="es"), 3, tmp_path, quiet)
    assert not list(tmp_path.iterdir())


def test_what_is_searched_are_settings():
    for kind, space in SPACES.items():
        of_kind = [settings for settings in TUNED.values() if type(settings) is kind]
        assert of_kind and all(hasattr(settings, name) for settings in of_kind for name in space)


def _fields(config):
    return {name: getattr(config, name) for name in Training.__dataclass_fields__}
