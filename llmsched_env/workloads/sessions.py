"""Agent sessions as open-loop requests: calls with growing prompts, each beginning with the previous prompt."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple, Protocol

import numpy as np

from llmsched_env.slo import SLO
from llmsched_env.tables.request_table import RequestTable, constant
from llmsched_env.workloads.delays import SecondsTable
from llmsched_env.workloads.dist import Distribution, Quantiles

_LEAD = 86400.0  # seconds before time 0 in which sessions may have begun
_SESSIONS_AT_ONCE = 1024
_REPRESENTATIVE = 2048  # sessions of a representative sample


class SessionCalls(NamedTuple):
    """Calls of some sessions, grouped by session: arrays of one length."""

    session: np.ndarray
    number: np.ndarray  # index within the session
    prompt_tokens: np.ndarray
    shared_tokens: np.ndarray  # with the previous call
    output_tokens: np.ndarray
    wait: np.ndarray  # seconds from the previous answer


class SessionLaw(Hashable, Protocol):
    """A law of sessions."""

    def draw(self, rng: np.random.Generator, sessions: int) -> SessionCalls:
        """Draw `sessions` sessions."""


@dataclass(frozen=True, slots=True)
class GrowingContext:
    """Sessions in which each prompt is the previous prompt and new tokens, until the context is compacted.

    Attributes:
        calls: number of calls of a session.
        first_prompt: prompt tokens of the first call, and after compaction.
        new_after_tool: tokens added for a call after a tool's result, including the previous output.
        new_after_human: tokens added for a call after a person's message, including the previous output.
        output_tokens: output tokens of a call.
        tool_wait: seconds from an answer to the call with the tool's result.
        human_wait: seconds from an answer to the call with the person's message.
        human_probability: share of calls that follow a person's message.
        reset_probability: share of calls whose prompt keeps its length but shares only the system prompt.
        system_tokens: tokens of system prompt and tools, which a reset keeps.
        context_window: tokens beyond which a context is compacted.
    """

    calls: Distribution
    first_prompt: Quantiles
    new_after_tool: Quantiles
    new_after_human: Quantiles
    output_tokens: Quantiles
    tool_wait: SecondsTable
    human_wait: SecondsTable
    human_probability: float
    reset_probability: float
    system_tokens: int
    context_window: int

    def draw(self, rng: np.random.Generator, sessions: int) -> SessionCalls:
        """Draw sessions; a context that would exceed its window is compacted."""
        session, number = _numbers(self.calls.sample(rng, sessions))
        n = len(session)
        human = rng.random(n) < self.human_probability
        reset = rng.random(n) < self.reset_probability
        u, v = rng.random((2, n))
        new = np.where(human, self.new_after_human.quantile(u), self.new_after_tool.quantile(u))
        wait = np.where(human, self.human_wait.quantile(v), self.tool_wait.quantile(v))
        window, restart = self._windows(rng, session, number)
        prompt, shared = restart.copy(), np.zeros(n, np.int64)
        order = np.argsort(number, kind="stable")  # all first calls, all second ones, ...
        for calls in np.split(order, np.cumsum(np.bincount(number)))[1:-1]:
            former = prompt[calls - 1]
            compacted = former + new[calls] > window[calls]
            prompt[calls] = np.where(compacted, restart[calls], former + new[calls])
            kept = np.where(compacted | reset[calls], self.system_tokens, former)
            shared[calls] = np.minimum(kept, np.minimum(former, prompt[calls]))
        return SessionCalls(session, number, prompt, shared, self.output_tokens.sample(rng, n), wait)

    def _windows(
        self, rng: np.random.Generator, session: np.ndarray, number: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Context window of each call's session, and the prompt tokens after a compaction at the call.

        Sessions whose first prompt exceeds the window get a window as long as the longest possible first prompt.
        """
        u = rng.random(len(session))
        first = self.first_prompt.quantile(u)
        wide = (first[number == 0] > self.context_window)[session]
        longest = self.first_prompt.tokens[-1]
        fitting = np.mean(self.first_prompt.quantile((np.arange(1000) + 0.5) / 1000) <= self.context_window)
        inside = np.minimum(self.first_prompt.quantile(u * fitting), self.context_window)
        return np.where(wide, longest, self.context_window), np.where(wide | (number == 0), first, inside)


@dataclass(frozen=True, slots=True)
class SortedPrompts:
    """Sessions of which only the law of prompts over all calls is known: draws from it, sorted within a session.

    Attributes:
        calls: number of calls of a session.
        prompt_tokens: prompt tokens of a call.
        output_tokens: output tokens of a call.
        tool_wait: seconds from an answer to the next call.
    """

    calls: Distribution
    prompt_tokens: Quantiles
    output_tokens: Quantiles
    tool_wait: SecondsTable

    def draw(self, rng: np.random.Generator, sessions: int) -> SessionCalls:
        """Draw sessions; each prompt begins with the whole previous prompt."""
        session, number = _numbers(self.calls.sample(rng, sessions))
        n = len(session)
        prompt = self.prompt_tokens.sample(rng, n)
        prompt = prompt[np.lexsort((prompt, session))]
        shared = np.where(number > 0, np.append(0, prompt[:-1]), 0)
        wait = self.tool_wait.quantile(rng.random(n))
        return SessionCalls(session, number, prompt, shared, self.output_tokens.sample(rng, n), wait)


@dataclass(frozen=True, slots=True)
class AgentSessions:
    """Sessions that begin as a Poisson process, in equilibrium from time 0 on: some began earlier.

    In an open loop a call does not wait for the simulated previous answer. Its time assumes a service that meets its
    targets exactly: ttft and tpot of `pace`, then the wait.

    Attributes:
        law: law of the sessions.
        rate: calls per second.
        horizon: seconds after which nothing arrives.
        pace: latencies of the assumed service.
        slo: targets of all calls, or None.
    """

    law: SessionLaw
    rate: float
    horizon: float
    pace: SLO
    slo: SLO | None

    def __repr__(self) -> str:
        prompt, output = self.lengths()
        lengths = f"{prompt.mean():g} + {output.mean():g} tokens"
        return f"{self.rate:g} calls/s of agents, {lengths} on average, for {self.horizon:g} s"

    def sample(self, seed: int) -> RequestTable:
        """Draw the calls of a seed; a call whose session began before time 0 may have no parent."""
        rng = np.random.default_rng(seed)
        begins = rng.poisson(self.rate / _calls_in_lead(self.law, self.pace) * (_LEAD + self.horizon))
        parts = [
            self._within(rng, min(_SESSIONS_AT_ONCE, begins - first), first)
            for first in range(0, begins, _SESSIONS_AT_ONCE)
        ]
        empty = np.empty((6, 0))
        times, session, number, prompt, shared, output = np.concatenate([empty, *parts], axis=1)
        order = np.argsort(times, kind="stable")
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order))
        follows = np.append(False, (session[1:] == session[:-1]) & (number[1:] == number[:-1] + 1))
        parent = np.where(follows, np.append(-1, place[:-1]), -1)[order]
        slo = self.slo or SLO()
        return RequestTable.from_columns(
            times[order],
            prompt[order],
            output[order],
            session=np.unique(session, return_inverse=True)[1][order],
            parent=parent,
            shared_tokens=np.where(parent < 0, 0, shared[order]),
            ttft_slo=constant(len(order), slo.ttft),
            tpot_slo=constant(len(order), slo.tpot),
            horizon=self.horizon,
        )

    def in_order(self, seed: int, n: int) -> RequestTable:
        """The first n calls of a seed, all at time 0; after the last one the first follows again."""
        return self.sample(seed).repeated(n)

    def episode(self, rng: np.random.Generator, horizon: float) -> RequestTable:
        """Draw calls on [0, horizon) from a seed that `rng` draws."""
        return replace(self, horizon=horizon).sample(int(rng.integers(2**63)))

    def at_rate(self, rate: float) -> AgentSessions:
        """The same sessions at another rate."""
        return replace(self, rate=rate)

    def lasting(self, seconds: float) -> AgentSessions:
        """The same for at least so long."""
        return replace(self, horizon=max(self.horizon, seconds))

    def with_slo(self, slo: SLO) -> AgentSessions:
        """The same sessions with these targets; their `pace` is unchanged."""
        return replace(self, slo=slo)

    def lengths(self) -> tuple[np.ndarray, np.ndarray]:
        """Prompt and output tokens of the calls of some sessions, i8[n] each; always the same."""
        calls, _ = _representative(self.law, self.pace)
        return calls.prompt_tokens, calls.output_tokens

    def split(self, fractions: tuple[float, ...]) -> tuple[AgentSessions, ...]:
        """The same sessions for every part: parts differ by their seeds."""
        return (self,) * len(fractions)

    def _within(self, rng: np.random.Generator, sessions: int, first: int) -> np.ndarray:
        """Calls on [0, horizon) of `sessions` sessions, numbered from `first`, as rows f8[6, n]."""
        begins = rng.random(sessions) * (_LEAD + self.horizon) - _LEAD
        calls = self.law.draw(rng, sessions)
        age = _ages(calls, self.pace)
        times = begins[calls.session] + age
        kept = (times >= 0) & (times < self.horizon) & (age < _LEAD)
        columns = (
            times,
            calls.session + first,
            calls.number,
            calls.prompt_tokens,
            calls.shared_tokens,
            calls.output_tokens,
        )
        return np.array([column[kept] for column in columns])


def _numbers(calls: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Session of every call, and index of the call within it."""
    session = np.repeat(np.arange(len(calls)), calls)
    return session, np.arange(len(session)) - np.repeat(np.cumsum(calls) - calls, calls)


def _ages(calls: SessionCalls, pace: SLO) -> np.ndarray:
    """Seconds from the beginning of the session to each call."""
    served = pace.ttft + pace.tpot * (calls.output_tokens - 1)
    gap = np.where(calls.number > 0, calls.wait + np.append(0.0, served[:-1]), 0.0)
    elapsed: np.ndarray = np.cumsum(gap)
    return np.asarray(elapsed - elapsed[np.arange(len(gap)) - calls.number])


@lru_cache(maxsize=8)
def _representative(law: SessionLaw, pace: SLO) -> tuple[SessionCalls, np.ndarray]:
    calls = law.draw(np.random.default_rng(0), _REPRESENTATIVE)
    kept = _ages(calls, pace) < _LEAD
    return SessionCalls(*(column[kept] for column in calls)), kept


def _calls_in_lead(law: SessionLaw, pace: SLO) -> float:
    """Mean number of calls of a session within `_LEAD` seconds."""
    return float(np.count_nonzero(_representative(law, pace)[1])) / _REPRESENTATIVE
