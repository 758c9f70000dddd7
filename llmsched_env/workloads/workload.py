"""Workloads: requests as a function of one seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from llmsched_env.machine.config import EngineConfig
from llmsched_env.slo import SLO
from llmsched_env.tables.request_table import RequestTable, constant
from llmsched_env.theory.capacity import capacity
from llmsched_env.validation import check_integer, check_number
from llmsched_env.workloads.arrivals import ArrivalProcess, Poisson
from llmsched_env.workloads.clients import Client, ManyClients
from llmsched_env.workloads.dist import Distribution, as_distribution
from llmsched_env.workloads.predictors import PredictedRequests, Predictor
from llmsched_env.workloads.sources import FixedRequests, RandomRequests, Source


@dataclass(frozen=True, slots=True)
class Skipped:
    """Rows of a trace file that are left out of its workload.

    Attributes:
        failed: number of requests that the trace marks as failed, such as rows of zero tokens in BurstGPT.
        bad: number of malformed rows that were skipped on request.
        problems: messages of the first thousand bad rows: file, line, column, value, what is expected.
    """

    failed: int = 0
    bad: int = 0
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, repr=False)
class Workload:
    """Requests arriving over time; immutable.

    Build one with `poisson`, `generated`, `of_clients`, `from_arrays`, `preset` or `load_trace`.

    All randomness comes from one seed, and nothing depends on the scheduler or the engine.

    Attributes:
        source: draws or holds the requests.
        name: its name in reports.
        slo: the targets that all requests share, or None if they have none or differ.
        load: load set by `at_load`; None before, and after `scaled`.
        skipped: rows of its file that were left out.
        recognised: what was recognised in its file, such as "Qwen-Bailian trace, seconds, blocks of 16".
        max_concurrency: its file was measured in a closed loop of so many users; None: it was not.
    """

    source: Source
    name: str
    slo: SLO | None = None
    load: float | None = None
    skipped: Skipped = Skipped()
    recognised: str = ""
    max_concurrency: int | None = None

    @classmethod
    def poisson(
        cls,
        rate: float,
        prompt_tokens: Distribution | int,
        output_tokens: Distribution | int,
        horizon: float,
        slo: SLO | None = None,
    ) -> Workload:
        """Poisson arrivals at `rate` requests/s on [0, horizon) seconds, with independent lengths.

        Raises:
            ValueError: a rate, horizon or number of tokens is not above zero.
        """
        return cls.generated(Poisson(), rate, prompt_tokens, output_tokens, horizon, slo=slo, name="poisson")

    @classmethod
    def generated(
        cls,
        arrivals: ArrivalProcess,
        rate: float,
        prompt_tokens: Distribution | int,
        output_tokens: Distribution | int,
        horizon: float,
        *,
        slo: SLO | None = None,
        rank_correlation: float = 0.0,
        predictor: Predictor | None = None,
        name: str = "generated",
    ) -> Workload:
        """Random arrivals and lengths, drawn from separate random streams of the seed.

        Args:
            arrivals: the arrival process, such as `Poisson()`, `Gamma(cv=2.0)` or `MMPP(...)`.
            rate: requests/s in the long run.
            prompt_tokens: law of prompt lengths, or an int.
            output_tokens: law of output lengths, or an int.
            horizon: seconds after which nothing arrives.
            slo: targets of every request.
            rank_correlation: Spearman's correlation of prompt and output tokens, by a Gaussian copula.
            predictor: see `with_predictor`.
            name: its name in reports.

        Raises:
            ValueError: naming the argument, its value and what is allowed.
        """
        source = RandomRequests(
            arrivals,
            check_number("rate", rate, above=0, unit="requests/s"),
            as_distribution("prompt_tokens", prompt_tokens),
            as_distribution("output_tokens", output_tokens),
            check_number("horizon", horizon, above=0, unit="s"),
            _checked_slo(slo),
            check_number("rank_correlation", rank_correlation, at_least=-1, at_most=1),
        )
        workload = cls(source, name, slo)
        return workload if predictor is None else workload.with_predictor(predictor)

    @classmethod
    def from_arrays(
        cls,
        arrival: ArrayLike,
        prompt_tokens: ArrayLike,
        output_tokens: ArrayLike,
        client: ArrayLike | None = None,
        klass: ArrayLike | None = None,
        priority: ArrayLike | None = None,
        slo: SLO | tuple[ArrayLike, ArrayLike] | None = None,
        predicted_output: ArrayLike | None = None,
        parent: ArrayLike | None = None,
        shared_tokens: ArrayLike | None = None,
        timeout: ArrayLike | None = None,
    ) -> Workload:
        """Fixed requests, one per entry of arrays of equal length; see `RequestTable`.

        Args:
            arrival: seconds, sorted, >= 0.
            prompt_tokens: integers >= 1.
            output_tokens: integers >= 1.
            client: integers >= 0; 0 if absent.
            klass: integers >= 0; 0 if absent.
            priority: integers; 0 if absent.
            slo: targets shared by all requests, or a pair of arrays (ttft, tpot) in seconds.
            predicted_output: predicted output tokens, nan for none.
            parent: index of the earlier request whose tokens each prompt begins with, -1 for none.
            shared_tokens: number of these leading tokens; 0 if absent.
            timeout: seconds after arrival at which the client gives up; inf if absent.

        Raises:
            ValueError: naming the column, the index, the value and what is allowed.
        """
        shared = None if isinstance(slo, tuple) else _checked_slo(slo)
        if isinstance(slo, tuple) and len(slo) != 2:
            raise ValueError(f"slo must be an SLO or a pair of arrays (ttft, tpot), got {len(slo)} items")
        n = np.shape(arrival)
        ttft, tpot = slo if isinstance(slo, tuple) else (None, None)
        table = RequestTable.from_columns(
            arrival,
            prompt_tokens,
            output_tokens,
            client=client,
            klass=klass,
            priority=priority,
            predicted_output=predicted_output,
            parent=parent,
            shared_tokens=shared_tokens,
            timeout=timeout,
            ttft_slo=ttft if shared is None else constant(n, shared.ttft),
            tpot_slo=tpot if shared is None else constant(n, shared.tpot),
        )
        return cls.from_table(table, "arrays", shared)

    @classmethod
    def of_clients(cls, clients: Sequence[Client], horizon: float, name: str = "clients") -> Workload:
        """Requests of several clients on [0, horizon) seconds, each with its own arrivals, lengths, class and targets.

        Raises:
            ValueError: there are no clients, or the horizon is not above zero.
        """
        return cls(ManyClients(tuple(clients), check_number("horizon", horizon, above=0, unit="s")), name)

    @classmethod
    def from_table(cls, table: RequestTable, name: str, slo: SLO | None = None) -> Workload:
        """Fixed requests of a table."""
        return cls(FixedRequests(table), name, slo)

    @property
    def rate(self) -> float:
        """Requests per second; for fixed requests (n - 1)/(last - first arrival), nan or inf if all arrive at once."""
        return self.source.rate

    def sample(self, seed: int) -> RequestTable:
        """Return the requests of a seed; fixed requests are the same for all seeds."""
        return self.source.sample(check_integer("seed", seed, at_least=0))

    def episode(self, rng: np.random.Generator, horizon: float) -> RequestTable:
        """Return requests for an episode of `horizon` seconds.

        Random requests are drawn on [0, horizon). Of fixed ones it is a uniformly random window of this length, with
        times counted from its start; a shorter trace is used as a whole.
        """
        return self.source.episode(rng, check_number("horizon", horizon, above=0, unit="s"))

    def scaled(self, rate: float) -> Workload:
        """Return the same workload at another rate; fixed requests keep their pattern, stretched in time.

        Raises:
            ValueError: the rate is not above zero, or the arrivals of fixed requests do not spread over time.
        """
        source = self.source.at_rate(check_number("rate", rate, above=0, unit="requests/s"))
        return replace(self, source=source, load=None)

    def lasting(self, seconds: float) -> Workload:
        """Return the workload with arrivals for at least so many seconds: fixed requests come over and over."""
        return replace(self, source=self.source.lasting(check_number("seconds", seconds, above=0, unit="s")))

    def at_load(self, load: float, engine: EngineConfig) -> Workload:
        """Return the workload scaled to `load` times the reference capacity of an engine, see `theory.capacity`."""
        load = check_number("load", load, above=0)
        return replace(self.scaled(load * self.reference_capacity(engine)), load=load)

    def reference_capacity(self, engine: EngineConfig) -> float:
        """Return the requests/s that an engine sustains on this mix of lengths, see `theory.capacity`."""
        return capacity(engine, self)

    def with_slo(self, slo: SLO) -> Workload:
        """Return the same workload with these targets for all requests."""
        return replace(self, source=self.source.with_slo(slo), slo=_checked_slo(slo))

    def with_predictor(self, predictor: Predictor) -> Workload:
        """Return the same workload with predicted output lengths, drawn for every seed from their own random stream.

        Args:
            predictor: a `LengthPredictor`, or a function (rng, prompt_tokens, output_tokens) -> predicted output
                tokens, f8[n], nan for none.
        """
        source = self.source.source if isinstance(self.source, PredictedRequests) else self.source
        return replace(self, source=PredictedRequests(source, predictor))

    def length_sample(self) -> tuple[np.ndarray, np.ndarray]:
        """Prompt and output tokens, i8[n] each, that represent the workload's lengths; always the same ones."""
        return self.source.lengths()

    def split(self, fractions: Sequence[float] = (0.6, 0.2, 0.2)) -> tuple[Workload, ...]:
        """Return consecutive parts in time of fixed requests, each starting at 0, for training, tuning and testing.

        Random requests have no parts: the workload itself is returned for each, and the caller keeps the seeds
        disjoint.

        Raises:
            ValueError: a fraction is not above 0, they do not sum to 1, or a part has no requests.
        """
        parts = tuple(check_number("split fractions", fraction, above=0, at_most=1) for fraction in fractions)
        if abs(sum(parts) - 1) > 1e-9:
            raise ValueError(f"split fractions must sum to 1, got {parts} which sum to {sum(parts):g}")
        return tuple(replace(self, source=source, load=None) for source in self.source.split(parts))

    def __repr__(self) -> str:
        extras = [f"SLO(ttft={self.slo.ttft:g}, tpot={self.slo.tpot:g})"] if self.slo else []
        extras += [f"load {self.load:g}"] if self.load is not None else []
        extras += [self.recognised] if self.recognised else []
        return f"<Workload {self.name}: {', '.join([repr(self.source), *extras])}>"


def _checked_slo(slo: SLO | None) -> SLO | None:
    if slo is not None and not isinstance(slo, SLO):
        raise ValueError(f"slo must be an SLO or None, got {slo!r}")
    return slo
