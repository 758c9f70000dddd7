"""Tasks with the statistics of public agent traces."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from llmsched_env.slo import SLO
from llmsched_env.validation import check_number
from llmsched_env.workloads.agent_tasks import AgentTasks
from llmsched_env.workloads.dist import Geometric
from llmsched_env.workloads.presets import preset, shipped_presets
from llmsched_env.workloads.sessions import AgentSessions, GrowingContext, SessionCalls, SessionLaw
from llmsched_env.workloads.task_graphs import TaskCalls, TaskLaw, chains, with_branches
from llmsched_env.workloads.task_sources import SingleCalls, TaskSource

_RATE = 1.0  # tasks/s of presets whose trace has no times


def task_preset(
    name: str, rate: float | None = None, horizon: float = 600.0, slo: str | SLO | None = "default"
) -> TaskSource:
    """Return tasks with the sizes and times of a public trace; see `preset` for the names and sources.

    - coding-agent, swe-agent: a task is a session. The next call is ready a tool's or person's time after each answer.
      Each prompt begins with the previous one until the context is compacted. Some sessions of coding-agent have
      sub-agents, for which the next call waits.
    - mooncake-tool-agent and all others: sessions are unknown, and every request is a task of one call.

    Args:
        name: name of the preset.
        rate: tasks/s; None for the trace's own, or 1 if it has no times.
        horizon: seconds after which no task arrives.
        slo: targets by name ("default", "strict", ...), an SLO, or None for no targets.

    Raises:
        ValueError: as for `preset`.
    """
    if rate is not None:
        check_number("rate", rate, above=0, unit="tasks/s")
    workload = preset(name, rate, horizon, slo)
    if not isinstance(workload.source, AgentSessions):
        return SingleCalls(workload)
    sessions = workload.source.law
    law: TaskLaw = SessionTasks(sessions)
    helpers = shipped_presets()["presets"][name].get("subagent")
    if helpers is not None:
        assert isinstance(sessions, GrowingContext)
        own = replace(sessions, calls=Geometric(helpers["calls_mean"]), human_probability=0.0)
        law = SessionsWithHelpers(sessions, own, helpers["sessions_with"], Geometric(helpers["per_such_session_mean"]))
    return AgentTasks(law, _RATE if rate is None else rate, horizon, name, workload.slo)


@dataclass(frozen=True, slots=True)
class SessionTasks:
    """Sessions as tasks.

    Attributes:
        law: law of the sessions.
    """

    law: SessionLaw

    def draw(self, seed: np.random.SeedSequence, tasks: int) -> TaskCalls:
        """Draw `tasks` tasks."""
        calls = self.law.draw(np.random.default_rng(seed), tasks)
        shape = chains(np.bincount(calls.session, minlength=tasks))
        return _tasks(shape.task, shape.context, shape.edges, _columns(calls))


@dataclass(frozen=True, slots=True)
class SessionsWithHelpers:
    """Sessions, some of which start sub-agents after random calls; the next call waits for them.

    Attributes:
        law: law of the sessions.
        helper: law of the calls of a sub-agent.
        share: share of sessions with sub-agents.
        number: number of sub-agents of such a session.
    """

    law: GrowingContext
    helper: GrowingContext
    share: float
    number: Geometric

    def draw(self, seed: np.random.SeedSequence, tasks: int) -> TaskCalls:
        """Draw `tasks` tasks."""
        own, inner, places = (np.random.default_rng(child) for child in seed.spawn(3))
        calls = self.law.draw(own, tasks)
        length = np.bincount(calls.session, minlength=tasks)
        number = self.number.sample(places, tasks)
        number[(places.random(tasks) >= self.share) | (length < 2)] = 0
        session = np.repeat(np.arange(tasks), number)
        caller = np.floor(places.random(len(session)) * (length[session] - 1)).astype(np.int64)
        caller = np.sort(caller + (np.cumsum(length) - length)[session])
        helpers = self.helper.draw(inner, len(session))
        shape = with_branches(
            chains(length), caller, np.bincount(helpers.session, minlength=len(session)), shares=False
        )
        columns = np.empty((4, len(shape.task)))
        columns[:, shape.law < 2] = _columns(calls)
        columns[:, shape.law >= 2] = _columns(helpers)
        return _tasks(shape.task, shape.context, shape.edges, columns)


def _columns(calls: SessionCalls) -> np.ndarray:
    """Prompt tokens, shared tokens, output tokens and delay, f8[4, n]."""
    wait = np.where(calls.number > 0, calls.wait, 0.0)
    return np.array([calls.prompt_tokens, calls.shared_tokens, calls.output_tokens, wait])


def _tasks(task: np.ndarray, parent: np.ndarray, edges: np.ndarray, columns: np.ndarray) -> TaskCalls:
    prompt, shared, output = columns[:3].astype(np.int64)
    zeros = np.zeros(len(task), np.int64)
    anywhere = np.full(len(task), -1)
    return TaskCalls(task, prompt, output, parent, shared, zeros, zeros, columns[3], zeros, anywhere, edges)
