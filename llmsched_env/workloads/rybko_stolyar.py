"""The network of A. N. Rybko and A. L. Stolyar (1992), unstable below load 1, as in arXiv 2504.07347, section 5.4."""

from __future__ import annotations

from llmsched_env.machine.batch_time import Staircase
from llmsched_env.machine.config import EngineConfig
from llmsched_env.validation import check_number
from llmsched_env.workloads.agent_tasks import AgentTasks, TaskKind
from llmsched_env.workloads.dist import Poisson
from llmsched_env.workloads.task_graphs import CallLaw, Graph, route

BATCH_TOKENS = 768  # tokens of a batch, which takes one second
TASK_TOKENS = 608  # tokens of a task, and of the calls at each engine
RYBKO_STOLYAR_ENGINES = 2 * (
    EngineConfig(Staircase(c=1.0, a=0.0, b0=BATCH_TOKENS), token_budget=BATCH_TOKENS, first_token="separate"),
)
"""The two engines: every batch takes a second."""


def rybko_stolyar(load: float = 0.9, horizon: float = 4500.0) -> AgentTasks:
    """Tasks of types A and B that cross two engines in opposite directions.

    Type A: (Poisson 32, Poisson 32) tokens at engine 0, then (Poisson 512, Poisson 32) at engine 1; type B vice versa.
    Classes 0 and 1 are the first and second call of A, 2 and 3 those of B. If each engine gives priority to the last
    calls (engine 0 to class 3, engine 1 to class 1), the backlog oscillates and grows although both loads are below 1.
    If each gives priority to the first calls (classes 0 and 2), it stays bounded.

    The engines are `RYBKO_STOLYAR_ENGINES`.

    Args:
        load: load of each engine; each type arrives at load * 768/608 tasks/s.
        horizon: seconds after which no task arrives.
    """
    check_number("load", load, above=0)
    short, long = (Poisson(32), Poisson(32)), (Poisson(512), Poisson(32))

    def crossing(engines: tuple[int, int], klass: int) -> Graph:
        first, second = engines
        return route(CallLaw(*short, klass=klass, engine=first), CallLaw(*long, klass=klass + 1, engine=second))

    kinds = (TaskKind(crossing((0, 1), 0)), TaskKind(crossing((1, 0), 2)))
    return AgentTasks(kinds, 2 * load * BATCH_TOKENS / TASK_TOKENS, horizon, "rybko-stolyar", load=load)
