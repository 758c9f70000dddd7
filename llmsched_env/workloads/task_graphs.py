"""Laws of tasks: which calls an agent makes, in what order, and of what sizes.

Every law draws the calls of many tasks at once. Task i of a seed does not depend on the draws of other tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from llmsched_env.validation import check_integer, check_number
from llmsched_env.workloads.delays import Delay, as_delay
from llmsched_env.workloads.dist import Distribution, as_distribution


class TaskCalls(NamedTuple):
    """Calls of some tasks, grouped by task. Arrays i8[n], one entry per call, unless noted otherwise.

    A prompt begins with the first `shared_tokens` tokens of the prompt and output of call `parent`, -1 for none.
    """

    task: np.ndarray  # 0, 0, ..., 1, ...
    prompt_tokens: np.ndarray
    output_tokens: np.ndarray
    parent: np.ndarray
    shared_tokens: np.ndarray
    system_tokens: np.ndarray  # leading tokens that calls of this `law` without a parent share
    law: np.ndarray  # index of the call's law among those of its kind of task
    delay: np.ndarray  # f8[n], s
    klass: np.ndarray
    engine: np.ndarray
    edges: np.ndarray  # i8[m, 2], pairs (before, after)


@runtime_checkable
class TaskLaw(Protocol):
    """A law of tasks."""

    def draw(self, seed: np.random.SeedSequence, tasks: int) -> TaskCalls:
        """Draw `tasks` tasks."""


@dataclass(frozen=True, slots=True)
class CallLaw:
    """Sizes, delay, class and engine of a call.

    Attributes:
        new_tokens: prompt tokens besides the context that it continues; all of them if it continues none.
        output_tokens: output tokens.
        delay: seconds from the end of the last call it waits for until it is ready, while a tool or a person works.
        klass: its class.
        engine: the engine it is pinned to, None if a router chooses.
        system_tokens: number of first new tokens that all calls of this law without a context share.
    """

    new_tokens: Distribution | int
    output_tokens: Distribution | int
    delay: Delay | float = 0.0
    klass: int = 0
    engine: int | None = None
    system_tokens: int = 0

    def __post_init__(self) -> None:
        for name in ("new_tokens", "output_tokens"):
            object.__setattr__(self, name, as_distribution(name, getattr(self, name)))
        object.__setattr__(self, "delay", as_delay("delay", self.delay))
        check_integer("klass", self.klass, at_least=0)
        if self.engine is not None:
            check_integer("engine", self.engine, at_least=0)
        check_integer("system_tokens", self.system_tokens, at_least=0, unit="tokens")


class Shape(NamedTuple):
    """Graphs of tasks without sizes: arrays i8[n] by call, and edges i8[m, 2]."""

    task: np.ndarray
    law: np.ndarray
    context: np.ndarray  # the call whose prompt and output this one's prompt begins with; -1 for none
    edges: np.ndarray


@dataclass(frozen=True, slots=True)
class Graph:
    """Tasks of one fixed graph.

    A prompt is the context (prompt and output) of one call that it waits for, the outputs of the others, and new
    tokens. A call without a context has new tokens only, so its prompt is as long as its law says.

    Attributes:
        calls: laws of the calls, in topological order.
        edges: pairs (before, after) of indices of calls.
        context: for each call the one before it whose context it continues, or None; absent: no call has a context.

    Raises:
        ValueError: naming the argument, its value and what is allowed.
    """

    calls: Sequence[CallLaw]
    edges: Sequence[tuple[int, int]] = ()
    context: Sequence[int | None] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "calls", tuple(self.calls))
        object.__setattr__(self, "edges", tuple(tuple(edge) for edge in self.edges))
        n = len(self.calls)
        contexts = (None,) * n if self.context is None else tuple(self.context)
        object.__setattr__(self, "context", contexts)
        if not n:
            raise ValueError("calls must hold at least one CallLaw, got none")
        for edge in self.edges:
            if len(edge) != 2 or not 0 <= edge[0] < edge[1] < n:
                raise ValueError(f"edges must be pairs (before, after) with 0 <= before < after < {n}, got {edge}")
        if len(set(self.edges)) < len(self.edges):
            raise ValueError(f"edges must be distinct, got {self.edges}")
        if len(contexts) != n:
            raise ValueError(f"context must have one entry per call, that is {n}, got {len(contexts)}")
        for call, context in enumerate(contexts):
            if context is not None and (context, call) not in self.edges:
                raise ValueError(f"context[{call}] must be None or a call with an edge to {call}, got {context}")

    def draw(self, seed: np.random.SeedSequence, tasks: int) -> TaskCalls:
        """Draw `tasks` tasks."""
        n = len(self.calls)
        first = np.repeat(np.arange(tasks) * n, n)
        context = np.tile([-1 if c is None else c for c in self.context or ()], tasks).astype(np.int64)
        edges = np.tile(np.array(self.edges, np.int64).reshape(-1, 2), (tasks, 1))
        edges += np.repeat(np.arange(tasks) * n, len(self.edges))[:, None]
        shape = Shape(first // n, np.tile(np.arange(n), tasks), np.where(context < 0, -1, context + first), edges)
        return sized(seed, shape, self.calls)


def route(*calls: CallLaw, keeps_context: bool = False) -> Graph:
    """A sequence of calls, each with its own law, for example through a fixed sequence of engines.

    Args:
        calls: laws of the calls in order.
        keeps_context: whether each prompt begins with the context of the previous call; else it is new tokens only.
    """
    context = [None, *range(len(calls) - 1)] if keeps_context else None
    return Graph(calls, list(pairwise(range(len(calls)))), context)


@dataclass(frozen=True, slots=True)
class Chain:
    """A sequence of calls, each prompt being the context of the previous call and new tokens: an agent with tools.

    Attributes:
        first: law of the first call.
        later: law of all other calls.
        calls: number of calls.
    """

    first: CallLaw
    later: CallLaw
    calls: Distribution | int

    def __post_init__(self) -> None:
        object.__setattr__(self, "calls", as_distribution("calls", self.calls))

    def draw(self, seed: np.random.SeedSequence, tasks: int) -> TaskCalls:
        """Draw `tasks` tasks."""
        counts, sizes = seed.spawn(2)
        return sized(
            sizes,
            chains(as_distribution("calls", self.calls).sample(np.random.default_rng(counts), tasks)),
            (self.first, self.later),
        )


@dataclass(frozen=True, slots=True)
class ForkJoin:
    """A call, parallel branches that share its context, and a call that continues it with their results.

    Attributes:
        fork: law of the call that the branches start from.
        branch: law of the calls of a branch; each continues the previous one.
        join: law of the call that waits for all branches; their outputs enter its prompt.
        width: number of branches.
        depth: number of calls of a branch.
    """

    fork: CallLaw
    branch: CallLaw
    join: CallLaw
    width: Distribution | int
    depth: Distribution | int = 1

    def __post_init__(self) -> None:
        for name in ("width", "depth"):
            object.__setattr__(self, name, as_distribution(name, getattr(self, name)))

    def draw(self, seed: np.random.SeedSequence, tasks: int) -> TaskCalls:
        """Draw `tasks` tasks."""
        widths, depths, sizes = seed.spawn(3)
        width = as_distribution("width", self.width).sample(np.random.default_rng(widths), tasks)
        depth = as_distribution("depth", self.depth).sample(np.random.default_rng(depths), int(width.sum()))
        forks = np.repeat(np.arange(tasks) * 2, width)
        shape = with_branches(chains(np.full(tasks, 2)), forks, depth, shares=True)
        return sized(sizes, shape, (self.fork, self.join, self.branch, self.branch))


@dataclass(frozen=True, slots=True)
class SubAgents:
    """A chain in which some calls start sub-agents; the next call waits for all of them and reads their results.

    Sub-agents begin without the context of the agent that called them.

    Attributes:
        agent: the chain of the agent itself.
        helper: the chain of each sub-agent.
        width: number of parallel sub-agents.
        share: share of the agent's calls, except the last, that start sub-agents.
    """

    agent: Chain
    helper: Chain
    width: Distribution | int
    share: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "width", as_distribution("width", self.width))
        check_number("share", self.share, at_least=0, at_most=1)

    def draw(self, seed: np.random.SeedSequence, tasks: int) -> TaskCalls:
        """Draw `tasks` tasks."""
        *children, sizes = seed.spawn(5)
        counts, where, widths, depths = (np.random.default_rng(child) for child in children)
        main = chains(as_distribution("calls", self.agent.calls).sample(counts, tasks))
        callers = main.edges[:, 0]
        callers = callers[where.random(len(main.task))[callers] < self.share]
        width = as_distribution("width", self.width).sample(widths, len(callers))
        depth = as_distribution("calls", self.helper.calls).sample(depths, int(width.sum()))
        shape = with_branches(main, np.repeat(callers, width), depth, shares=False)
        laws = (self.agent.first, self.agent.later, self.helper.first, self.helper.later)
        return sized(sizes, shape, laws)


def chains(calls: np.ndarray) -> Shape:
    """Chains with these numbers of calls, i8[tasks]; laws 0 (first call) and 1 (all others)."""
    task = np.repeat(np.arange(len(calls)), calls)
    n = np.arange(len(task))
    later = np.append(False, task[1:] == task[:-1])[: len(n)]
    follower = n[later]
    return Shape(task, later.astype(np.int64), np.where(later, n - 1, -1), np.column_stack([follower - 1, follower]))


def with_branches(main: Shape, caller: np.ndarray, calls: np.ndarray, shares: bool) -> Shape:
    """Insert branches between calls of chains and their next calls.

    Args:
        main: chains.
        caller: i8[b], sorted: the call that each branch follows, not the last of its chain.
        calls: i8[b]: number of calls of each branch.
        shares: whether branches continue the caller's context.

    Returns:
        Tasks with calls in the order caller, branches, next call; laws of branches are 2 (first call) and 3 (others).
    """
    branch = chains(calls)
    inserted = np.bincount(caller, weights=calls, minlength=len(main.task)).astype(np.int64)
    place = np.arange(len(main.task)) + np.cumsum(inserted) - inserted  # of the calls of chains
    owner = caller[branch.task]
    inner = place[owner] + 1 + np.arange(len(owner)) - (np.cumsum(inserted) - inserted)[owner]
    n = len(main.task) + len(owner)
    task, law, context = np.empty((3, n), np.int64)
    task[place], task[inner] = main.task, main.task[owner]
    law[place], law[inner] = main.law, branch.law + 2
    context[place] = _moved(main.context, place)
    begins, ends = np.flatnonzero(branch.context < 0), np.cumsum(calls) - 1
    context[inner] = _moved(branch.context, inner)
    if shares:
        context[inner[begins]] = place[caller]
    edges = np.concatenate(
        [
            place[main.edges],
            inner[branch.edges],
            np.column_stack([place[caller], inner[begins]]),
            np.column_stack([inner[ends], place[caller + 1]]),
        ]
    )
    return Shape(task, law, context, edges)


def sized(seed: np.random.SeedSequence, shape: Shape, laws: Sequence[CallLaw]) -> TaskCalls:
    """Draw the sizes of all calls and compute their prompts."""
    n = len(shape.task)
    u, v, w = (np.random.default_rng(child).random(n) for child in seed.spawn(3))
    new, output, klass, engine, system = np.zeros((5, n), np.int64)
    delay = np.zeros(n)
    for k, law in enumerate(laws):
        mine = shape.law == k
        new[mine] = as_distribution("new_tokens", law.new_tokens).quantile(u[mine])
        output[mine] = as_distribution("output_tokens", law.output_tokens).quantile(v[mine])
        delay[mine] = as_delay("delay", law.delay).quantile(w[mine])
        klass[mine] = law.klass
        engine[mine] = -1 if law.engine is None else law.engine
        system[mine] = law.system_tokens
    prompt, shared = prompts(new, output, shape.context, shape.edges)
    return TaskCalls(
        shape.task, prompt, output, shape.context, shared, system, shape.law, delay, klass, engine, shape.edges
    )


def prompts(
    new: np.ndarray, output: np.ndarray, context: np.ndarray, edges: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Prompt tokens of calls, and how many of them are the context they continue, i8[n] each; see `Graph`."""
    before, after = edges[:, 0], edges[:, 1]
    results = (context[after] >= 0) & (context[after] != before)
    own = new + np.bincount(after[results], weights=output[before[results]], minlength=len(new)).astype(np.int64)
    prompt, held = own.tolist(), output.tolist()
    for i, c in enumerate(context.tolist()):  # `held` becomes the sum of prompt and output
        if c >= 0:
            prompt[i] += held[c]
        held[i] += prompt[i]
    total = np.array(prompt, np.int64)
    return total, total - own


def _moved(context: np.ndarray, place: np.ndarray) -> np.ndarray:
    return np.where(context < 0, -1, place[context])
