"""Random sites to train on: engine, what is believed of it, classes of requests, lengths, targets, burstiness."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from llmsched_env.machine.config import EngineConfig
from llmsched_env.machine.profiles import gpu_profiles
from llmsched_env.slo import SLO
from llmsched_env.workloads import LengthPredictor, Workload
from llmsched_env.workloads.arrivals import Gamma
from llmsched_env.workloads.clients import Client, Lengths
from llmsched_env.workloads.dist import Quantiles, normal_quantile

_LEVELS = (0.1, 1, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 99, 99.9)
_CLASSES = (0.45, 0.35, 0.2)  # chances of one, two and three classes
_REQUESTS = 600  # about this number in a case, within the horizons below
_SHORTEST, _LONGEST = 6.0, 120.0  # s of arrivals
_WITHOUT_PREDICTIONS = 0.2  # share of sites
_MISTAKEN = 0.5  # share of sites whose step times scatter and are not what schedulers believe
_MOST_SCATTER = 0.2  # of step times: standard deviation of their logarithm
_MOST_WRONG = 1.3  # factor by which beliefs are off, either way


@dataclass(frozen=True, slots=True)
class RandomSite:
    """A workload with its targets on an engine, as `evaluation.suite.Site`, from random numbers.

    Targets are multiples of the time that a request takes alone: its prefill for the first token, a batch of one for
    the others. So they can be met, with more or less slack.
    """

    name: str
    clients: tuple[Client, ...]
    engine: EngineConfig
    predictor: LengthPredictor | None

    def at(self, load: float, horizon: float | None = None) -> Workload:
        """The workload at a load; without a horizon (s), that of about the same number of requests on every site."""
        workload = Workload.of_clients(self.clients, 100.0, self.name).at_load(load, self.engine)
        if horizon is None:
            horizon = float(np.clip(_REQUESTS / workload.rate, _SHORTEST, _LONGEST))
        workload = Workload.of_clients(self.clients, horizon, self.name).scaled(workload.rate)
        return workload if self.predictor is None else workload.with_predictor(self.predictor)


def random_site(rng: np.random.Generator) -> RandomSite:
    """Draw a site."""
    profile = str(rng.choice(gpu_profiles()))
    engine = _engine(profile)
    count = 1 + int(rng.choice(len(_CLASSES), p=_CLASSES))
    shares = rng.dirichlet(np.full(count, 2.0))
    clients = tuple(_client(rng, engine, k, max(0.02, share)) for k, share in enumerate(shares.tolist()))
    predictor = None if rng.random() < _WITHOUT_PREDICTIONS else LengthPredictor(rng.uniform(0.3, 1.2))
    if rng.random() < _MISTAKEN:
        engine = replace(engine, step_noise=rng.uniform(0, _MOST_SCATTER))
        engine = engine.believing(_log_uniform(rng, 1 / _MOST_WRONG, _MOST_WRONG))
    return RandomSite(f"{count} random classes on {profile}", clients, engine, predictor)


def _client(rng: np.random.Generator, engine: EngineConfig, klass: int, rate: float) -> Client:
    assert engine.kv_blocks is not None
    room, longest = engine.kv_blocks * engine.block_size, engine.max_model_len or math.inf
    prompt = _lengths(rng, (60, 6000), (0.3, 1.4), int(min(20_000, room // 5, longest * 3 // 4)))
    output = _lengths(rng, (6, 700), (0.3, 1.2), int(min(4000, room // 8, longest // 4)))
    long, typical = prompt.tokens[-3], prompt.tokens[7]
    law = engine.batch_time
    first = float(law.seconds(long, 0, long * (long + 1) / 2))
    ttft = np.clip(first * _log_uniform(rng, 2, 30), 0.1, 60.0)
    tpot = float(law.seconds(1, typical + output.tokens[7])) * _log_uniform(rng, 1.5, 6)
    lengths = Lengths(prompt, output)
    return Client(Gamma(_log_uniform(rng, 0.7, 3)), rate, (lengths,), klass=klass, slo=SLO(float(ttft), tpot))


def _lengths(
    rng: np.random.Generator, medians: tuple[float, float], sigmas: tuple[float, float], most: int
) -> Quantiles:
    """Log-normal token counts, cut off at `most`."""
    mu, sigma = np.log(_log_uniform(rng, *medians)), rng.uniform(*sigmas)
    tokens = np.clip(np.rint(np.exp(mu + sigma * normal_quantile(np.array(_LEVELS) / 100))), 1, most)
    return Quantiles((0, *_LEVELS[1:-1], 100), tuple(tokens.astype(int).tolist()))


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


@cache
def _engine(profile: str) -> EngineConfig:
    return EngineConfig.for_gpu(profile)
