"""Optuna over the settings of a learner: short trainings, of which those behind the median are stopped."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from gymnasium.spaces import Box

from agents.config import Training
from agents.problem import EnvironmentProblem, Problem
from agents.run import Say
from agents.settings import DQNSettings, ESSettings, PPOSettings, Settings
from agents.training import begin, open_problem
from llmsched_env.validation import check_integer

STUDY = "study.journal"


@dataclass(frozen=True, slots=True)
class Between:
    """What is tried of a setting: numbers from `low` to `high`, evenly or evenly in their logarithm."""

    low: float
    high: float
    log: bool = True
    whole: bool = False


_POWERS = tuple(2**k for k in range(3, 14))
SPACES: dict[type[Settings], dict[str, Between | tuple[int, ...]]] = {
    PPOSettings: {
        "learning_rate": Between(1e-4, 3e-3),
        "n_steps": _POWERS[:10],
        "batch_size": _POWERS[5:],
        "n_epochs": Between(2, 10, whole=True),
        "ent_coef": Between(1e-5, 3e-2),
        "time_constant": Between(2.0, 200.0),
        "gae_lambda": Between(0.9, 1.0, log=False),
        "lambda_seconds": Between(1.0, 60.0),
        "target_kl": Between(0.005, 0.1),
        "log_std_init": Between(-3.0, -0.5, log=False),
    },
    DQNSettings: {
        "learning_rate": Between(5e-5, 3e-3),
        "arms": Between(2, 16, whole=True),
        "batch_size": Between(64, 1024, whole=True),
        "gradient_steps": Between(1, 16, whole=True),
        "target_update_interval": Between(256, 16384, whole=True),
        "exploration_fraction": Between(0.1, 0.9, log=False),
        "time_constant": Between(2.0, 200.0),
    },
    ESSettings: {
        "learning_rate": Between(0.01, 0.3),
        "noise": Between(0.03, 1.0),
        "pairs": Between(4, 32, whole=True),
        "runs": Between(1, 8, whole=True),
    },
}
"""By the class of the settings: what is searched, between which ends or among which values."""


@dataclass(frozen=True, slots=True)
class SettingsTrial:
    """A short training.

    Attributes:
        number: of the trial; the first has the settings of the config.
        state: complete, pruned (stopped as it was behind the others), running or fail.
        value: its best validation so far; None: there was none.
        settings: those that were tried, by name.
    """

    number: int
    state: str
    value: float | None
    settings: dict[str, Any]


@dataclass(frozen=True, slots=True)
class SettingsSearch:
    """The outcome of a search.

    Attributes:
        trials: all trainings.
        best: the best that was not stopped.
    """

    trials: tuple[SettingsTrial, ...]
    best: SettingsTrial


def search_settings(config: Training, trials: int, folder: Path, say: Say = print) -> SettingsSearch:
    """Try settings of the learner by trainings like `config`; the same call goes on with an interrupted search.

    The study is kept in `folder/study.journal`, each training in a folder of its own. The first training has the
    settings of the config. A training that is behind the median of the others at the same validation is stopped.

    Args:
        config: of the trainings, whose budget is that of each; its baselines are not tuned.
        trials: number of trainings.
        folder: of the search.
        say: prints a line of progress.

    Raises:
        ValueError: if there is nothing to search for this learner, or another search is in the folder.
        KeyboardInterrupt: if interrupted.
    """
    check_integer("search", trials, at_least=1)
    space = SPACES.get(type(config.settings))
    if space is None:
        raise ValueError(f"search must be left out for {config.env} with {config.algo}, whose settings are stages")
    import optuna

    config = replace(config, trials=0)
    problem = open_problem(config, lambda line: None)  # refuses what cannot be, before anything is written
    space = {name: ends for name, ends in space.items() if name not in _without_effect(problem)}
    folder.mkdir(parents=True, exist_ok=True)
    study = _open(config, folder, problem.larger_is_better)
    _requeue_interrupted(study)
    if not study.trials:
        study.enqueue_trial(_within(asdict(config.settings), space))
    distributions = {name: _distribution(ends) for name, ends in space.items()}
    while sum(trial.state.is_finished() and trial.state.name != "FAIL" for trial in study.trials) < trials:
        trial = study.ask(distributions)
        settings = {name: _rounded(value) for name, value in trial.params.items()}
        try:
            value = _train(config, settings, trial, folder, say)
        except optuna.TrialPruned:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            say(f"Training {trial.number} was stopped: it is behind the others.")
        else:
            study.tell(trial, value)
    found = tuple(_outcome(trial) for trial in study.trials if trial.state.name in ("COMPLETE", "PRUNED"))
    best = next(trial for trial in found if trial.number == study.best_trial.number)
    return SettingsSearch(found, best)


def _without_effect(problem: Problem) -> set[str]:
    """Names of settings that change nothing of a training."""
    if not isinstance(problem, EnvironmentProblem):
        return set()
    env = problem.vector_env(1)
    env.close()
    discrete = set() if isinstance(env.single_action_space, Box) else {"log_std_init"}
    return discrete | ({"gae_lambda"} if problem.config.scores_engines else {"lambda_seconds"})


def _open(config: Training, folder: Path, larger_is_better: bool) -> Any:
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(logging.WARNING)
    about = json.loads(json.dumps(asdict(config)))
    study = optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(folder / STUDY))),
        study_name=config.name,
        load_if_exists=True,
        direction="maximize" if larger_is_better else "minimize",
        pruner=optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=1),
    )
    kept = study.user_attrs.setdefault("config", about)
    for name, value in about.items():
        if kept[name] != value:
            raise ValueError(f"there is another search in {folder}: {name} must be {kept[name]!r}, got {value!r}")
    study.set_user_attr("config", about)
    study.sampler = optuna.samplers.TPESampler(seed=config.seed + len(study.trials), multivariate=True)
    return study


def _requeue_interrupted(study: Any) -> None:
    """Trials that were running when the search ended are begun again."""
    from optuna.trial import TrialState

    for trial in study.trials:
        if trial.state == TrialState.RUNNING:
            study.tell(trial.number, state=TrialState.FAIL)
            study.enqueue_trial(trial.params)


def _train(config: Training, settings: Mapping[str, Any], trial: Any, folder: Path, say: Say) -> float:
    import optuna

    say(f"Training {trial.number}: {', '.join(f'{name}={value:g}' for name, value in settings.items())}")
    changed = replace(config, learner={**config.learner, **settings})
    learner = begin(changed, folder / f"trial{trial.number}", say, folder)
    validations = 0

    def watch(spent: float, value: float) -> None:
        nonlocal validations
        trial.report(value, validations)
        validations += 1
        if spent < 1 and trial.should_prune():
            raise optuna.TrialPruned

    learner.watch = watch
    learner.train()
    assert learner.best is not None
    return learner.best


def _distribution(ends: Between | tuple[int, ...]) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(ends, tuple):
        return CategoricalDistribution(ends)
    if ends.whole:
        return IntDistribution(int(ends.low), int(ends.high), log=ends.log)
    return FloatDistribution(ends.low, ends.high, log=ends.log)


def _within(settings: Mapping[str, Any], space: Mapping[str, Between | tuple[int, ...]]) -> dict[str, Any]:
    """The settings of the config, moved into the ranges that are searched."""
    return {name: _nearest(settings[name], ends) for name, ends in space.items()}


def _nearest(value: float, ends: Between | tuple[int, ...]) -> float:
    if isinstance(ends, tuple):
        return min(ends, key=lambda own: abs(own - value))
    inside = min(max(value, ends.low), ends.high)
    return int(inside) if ends.whole else float(inside)


def _rounded(value: float) -> float:
    return value if isinstance(value, int) else float(f"{value:.3g}")


def _outcome(trial: Any) -> SettingsTrial:
    settings = {name: _rounded(value) for name, value in trial.params.items()}
    return SettingsTrial(trial.number, trial.state.name.lower(), trial.value, settings)
