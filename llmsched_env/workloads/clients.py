"""Several clients, each with its own rate, burstiness and lengths."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from llmsched_env.slo import SLO
from llmsched_env.tables.request_table import RequestTable
from llmsched_env.validation import check_integer, check_number
from llmsched_env.workloads.arrivals import ArrivalProcess
from llmsched_env.workloads.dist import Distribution

_GOLDEN = (math.sqrt(5) - 1) / 2
_LENGTHS = 28657  # size of the sample of lengths


@dataclass(frozen=True, slots=True)
class Lengths:
    """Independent laws of prompt and output tokens, and the relative share of requests that follow them."""

    prompt_tokens: Distribution
    output_tokens: Distribution
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Client:
    """One source of requests.

    Attributes:
        arrivals: its arrival process.
        rate: requests/s in the long run.
        lengths: laws of its lengths, used in turn; after the last one the first follows again.
        epoch: seconds for which each of them is used.
        klass: class of its requests.
        slo: targets of its requests.
    """

    arrivals: ArrivalProcess
    rate: float
    lengths: Sequence[Lengths]
    epoch: float = math.inf
    klass: int = 0
    slo: SLO | None = None

    def __post_init__(self) -> None:
        check_number("client rate", self.rate, above=0, unit="requests/s")
        check_number("client epoch", self.epoch, above=0, unit="s", finite=False)
        check_integer("client klass", self.klass, at_least=0)
        if not self.lengths:
            raise ValueError("client lengths must hold at least one law, got none")

    def draw(
        self, seed: np.random.SeedSequence, factor: float, horizon: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Draw arrival times f8[n] at `factor` times its rate, and prompt and output tokens i8[n] each."""
        arrivals, lengths = (np.random.default_rng(child) for child in seed.spawn(2))
        times = self.arrivals.times(arrivals, self.rate * factor, horizon)
        u = lengths.random((len(times), 2))
        law = np.floor(times / self.epoch).astype(int) % len(self.lengths)
        prompt, output = np.empty((2, len(times)), np.int64)
        for k in np.unique(law).tolist():
            now = law == k
            prompt[now] = self.lengths[k].prompt_tokens.quantile(u[now, 0])
            output[now] = self.lengths[k].output_tokens.quantile(u[now, 1])
        return times, prompt, output


@dataclass(frozen=True, slots=True)
class ManyClients:
    """The requests of all clients in order of arrival, drawn for every seed; client i is `clients[i]`."""

    clients: tuple[Client, ...]
    horizon: float
    factor: float = 1.0  # by which all rates are multiplied

    def __post_init__(self) -> None:
        if not self.clients:
            raise ValueError("clients must hold at least one client, got none")

    def __repr__(self) -> str:
        return f"{self.rate:g} requests/s of {len(self.clients)} clients, for {self.horizon:g} s"

    @property
    def rate(self) -> float:
        """Requests per second of all clients in the long run."""
        return self.factor * sum(client.rate for client in self.clients)

    def sample(self, seed: int) -> RequestTable:
        """Draw the requests of a seed; each client has its own random streams."""
        seeds = np.random.SeedSequence(seed).spawn(len(self.clients))
        drawn = [client.draw(own, self.factor, self.horizon) for client, own in zip(self.clients, seeds, strict=True)]
        times, prompt, output = (np.concatenate(column) for column in zip(*drawn, strict=True))
        order = np.argsort(times, kind="stable")
        who = np.repeat(np.arange(len(drawn)), [len(own[0]) for own in drawn])[order]
        slos = [client.slo or SLO() for client in self.clients]
        return RequestTable.from_columns(
            times[order],
            prompt[order],
            output[order],
            client=who,
            klass=np.array([client.klass for client in self.clients])[who],
            ttft_slo=np.array([slo.ttft for slo in slos])[who],
            tpot_slo=np.array([slo.tpot for slo in slos])[who],
            horizon=self.horizon,
        )

    def in_order(self, seed: int, n: int) -> RequestTable:
        """The first n requests of a seed, all at time 0; after the last one the first follows again."""
        return self.sample(seed).repeated(n)

    def episode(self, rng: np.random.Generator, horizon: float) -> RequestTable:
        """Draw requests on [0, horizon) from a seed that `rng` draws."""
        return replace(self, horizon=horizon).sample(int(rng.integers(2**63)))

    def at_rate(self, rate: float) -> ManyClients:
        """The same clients with all rates multiplied by one factor."""
        return replace(self, factor=self.factor * rate / self.rate)

    def lasting(self, seconds: float) -> ManyClients:
        """The same for at least so long."""
        return replace(self, horizon=max(self.horizon, seconds))

    def with_slo(self, slo: SLO) -> ManyClients:
        """The same clients with these targets for all."""
        return replace(self, clients=tuple(replace(client, slo=slo) for client in self.clients))

    def lengths(self) -> tuple[np.ndarray, np.ndarray]:
        """Prompt and output tokens, i8[n] each, in which each client and law has its share; always the same."""
        prompts, outputs = [], []
        total = sum(client.rate for client in self.clients)
        for client in self.clients:
            weights = sum(law.weight for law in client.lengths)
            for law in client.lengths:
                i = np.arange(max(1, round(_LENGTHS * client.rate / total * law.weight / weights)))
                prompts.append(law.prompt_tokens.quantile((i + 0.5) / len(i)))
                outputs.append(law.output_tokens.quantile((i * _GOLDEN + 0.5) % 1))
        return np.concatenate(prompts), np.concatenate(outputs)

    def split(self, fractions: tuple[float, ...]) -> tuple[ManyClients, ...]:
        """The same clients for every part: parts differ by their seeds."""
        return (self,) * len(fractions)
