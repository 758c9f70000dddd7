"""A training from config to report: what is trained, what learns it, and the folder that it goes on from."""

from __future__ import annotations

from pathlib import Path

from agents.config import Training
from agents.problem import EnvironmentProblem, Problem
from agents.run import Learner, Say
from agents.run_folder import hold, keep_config
from agents.search.learner import SearchLearner, SearchProblem


def open_problem(config: Training, say: Say = print) -> Problem:
    """What a config asks for; refuses what cannot be, before any work is done.

    Raises:
        ValueError: naming the field, its value and what is allowed.
        FileNotFoundError: for a trace, a profile or a policy that is not there.
    """
    # here, so that a search imports no environment that it does not need
    if config.searches and config.env == "IndexPolicy":
        from agents.problems.steered_index import SteeredIndex

        return SteeredIndex(config)
    if config.searches and config.env == "AgentNetwork":
        from agents.problems.steered_network import SteeredNetwork

        return SteeredNetwork(config)
    if config.searches and config.env == "Cluster":
        from agents.problems.steered_router import SteeredRouter

        return SteeredRouter(config)
    problem = _environment_problem(config, say)
    if not config.searches:
        return problem
    from agents.search.network_policy import NetworkSearch

    return NetworkSearch(problem)


def _environment_problem(config: Training, say: Say) -> EnvironmentProblem:
    if config.env in ("Cluster", "AgentNetwork"):
        from agents.problems.network import AgentNetworkProblem, ClusterProblem

        return ClusterProblem(config) if config.env == "Cluster" else AgentNetworkProblem(config)
    from agents.problems.engine import EngineProblem

    return EngineProblem(config, say)


def learner_of(problem: Problem, folder: Path, say: Say = print) -> Learner:
    """What learns a problem, as it stands in the folder."""
    if isinstance(problem, SearchProblem):
        return SearchLearner(problem, folder, say)
    from agents.sb3.learner import GradientLearner

    assert isinstance(problem, EnvironmentProblem)
    return GradientLearner(problem, folder, say)


def begin(config: Training, folder: Path, say: Say = print, workplace: Path | None = None) -> Learner:
    """A training that is ready to go, or to go on from where the folder stands.

    The folder holds `config.json` (config, versions, commit), the best and the last checkpoint, and TensorBoard logs.

    Args:
        config: what to train.
        folder: made if need be.
        say: prints a line of progress.
        workplace: where searches for opponents are kept, for trainings that share them; None: in the folder.

    Raises:
        ValueError: naming the field, its value and what is allowed; or if another training is in the folder
            or runs there.
        FileNotFoundError: for a trace, a profile or a policy that is not there.
    """
    problem = open_problem(config, say)
    problem.workplace = workplace or folder
    hold(folder)
    keep_config(folder, config, problem.first())
    return learner_of(problem, folder, say)


def train(config: Training, folder: Path, say: Say = print) -> Problem:
    """`begin`, and train to the end; the same call goes on with an interrupted training.

    Raises:
        KeyboardInterrupt: if interrupted.
    """
    learner = begin(config, folder, say)
    learner.train()
    return learner.problem
