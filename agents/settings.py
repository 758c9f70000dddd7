"""Hyper-parameters of the learners, and the best known for each environment; importing them is quick."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

from llmsched_env.validation import check_choice, check_integer, check_number

T = TypeVar("T")


def _check_layers(units: tuple[int, ...]) -> None:
    for count in units:
        check_integer("net_arch", count, at_least=1)


@dataclass(frozen=True, slots=True)
class PPOSettings:
    """Of PPO and MaskablePPO, under Stable-Baselines3's names where it has one; found on training and tuning seeds.

    Attributes:
        n_steps: steps of each environment between updates.
        batch_size: of a gradient step; large ones, since updates dominate the time.
        n_epochs: passes over the data of an update.
        learning_rate: at the start; decays linearly to a tenth.
        ent_coef: weight of the entropy bonus at the start; decays linearly to 0.
        time_constant: seconds over which the future is discounted by 1/e. It is long, since the backlog of a busy
            minute lasts for minutes.
        gae_lambda: of the advantage estimate.
        lambda_seconds: seconds over which lambda falls to 1/e, where a policy scores the engines of a cluster, whose
            decisions may follow each other within ms or seconds; there it takes the place of `gae_lambda`.
        target_kl: an update stops early beyond it.
        net_arch: hidden layers of the policy, and of the separate value network.
        start_logit: by how much the logits of the starting action exceed the others; of MaskablePPO the weight of the
            preference for short prompts; of a policy that scores engines that of the logarithm of predicted latency.
        log_std_init: of continuous actions at the start.

    Raises:
        ValueError: naming the field, its value and what is allowed.
    """

    n_steps: int = 128
    batch_size: int = 2048
    n_epochs: int = 4
    learning_rate: float = 1e-3
    ent_coef: float = 0.003
    time_constant: float = 60.0
    gae_lambda: float = 0.98
    lambda_seconds: float = 8.0
    target_kl: float = 0.02
    net_arch: tuple[int, ...] = (64, 64)
    start_logit: float = 2.0
    log_std_init: float = -1.5

    def __post_init__(self) -> None:
        for name in ("n_steps", "n_epochs"):
            check_integer(name, getattr(self, name), at_least=1)
        check_integer("batch_size", self.batch_size, at_least=2)  # advantages are scaled by their spread in a batch
        for name in ("learning_rate", "target_kl"):
            check_number(name, getattr(self, name), above=0)
        for name in ("ent_coef", "start_logit"):
            check_number(name, getattr(self, name), at_least=0)
        for name in ("time_constant", "lambda_seconds"):
            check_number(name, getattr(self, name), above=0, unit="s", finite=False)
        check_number("gae_lambda", self.gae_lambda, at_least=0, at_most=1)
        check_number("log_std_init", self.log_std_init)
        _check_layers(self.net_arch)


@dataclass(frozen=True, slots=True)
class DQNSettings:
    """Of DQN, under Stable-Baselines3's names where it has one.

    Attributes:
        arms: how many settings to choose from where the actions are not discrete already, the best static ones.
        buffer_size: transitions that the replay buffer keeps.
        learning_starts: steps over all environments before the first update.
        batch_size: of a gradient step.
        train_freq: steps of each environment between updates.
        gradient_steps: of an update.
        learning_rate: at the start; decays linearly to a tenth.
        target_update_interval: steps over all environments between copies to the target network.
        exploration_fraction: share of the budget over which the share of random actions decays.
        exploration_final_eps: the share of random actions after that.
        time_constant: seconds over which the future is discounted by 1/e.
        net_arch: hidden layers of the Q-network.
        start_value: by how much the initial value of the starting arm exceeds the others.

    Raises:
        ValueError: naming the field, its value and what is allowed.
    """

    arms: int = 8
    buffer_size: int = 200_000
    learning_starts: int = 4096
    batch_size: int = 512
    train_freq: int = 4
    gradient_steps: int = 4
    learning_rate: float = 5e-4
    target_update_interval: int = 4096
    exploration_fraction: float = 0.5
    exploration_final_eps: float = 0.02
    time_constant: float = 60.0
    net_arch: tuple[int, ...] = (64, 64)
    start_value: float = 0.1

    def __post_init__(self) -> None:
        check_integer("learning_starts", self.learning_starts, at_least=0)
        whole = ("arms", "buffer_size", "batch_size", "train_freq", "gradient_steps", "target_update_interval")
        for name in whole:
            check_integer(name, getattr(self, name), at_least=1)
        check_number("learning_rate", self.learning_rate, above=0)
        check_number("exploration_fraction", self.exploration_fraction, above=0, at_most=1)
        check_number("exploration_final_eps", self.exploration_final_eps, at_least=0, at_most=1)
        check_number("time_constant", self.time_constant, above=0, unit="s", finite=False)
        check_number("start_value", self.start_value, at_least=0)
        _check_layers(self.net_arch)


@dataclass(frozen=True, slots=True)
class EvolutionSettings:
    """How long and how widely evolution strategies search.

    Attributes:
        generations: after which they end.
        noise: standard deviation of the candidates at the start.
        learning_rate: at the start; decays linearly to a tenth.
        pairs: mirrored pairs of candidates a generation.
        decay: by which what was found shrinks each generation, so that weights without effect do not wander off.

    Raises:
        ValueError: naming the field, its value and what is allowed.
    """

    generations: int
    noise: float = 0.1
    learning_rate: float = 0.05
    pairs: int = 12
    decay: float = 0.9995

    def __post_init__(self) -> None:
        check_integer("generations", self.generations, at_least=0)
        check_number("noise", self.noise, above=0)
        check_number("learning_rate", self.learning_rate, above=0)
        check_integer("pairs", self.pairs, at_least=1)
        check_number("decay", self.decay, above=0, at_most=1)


@dataclass(frozen=True, slots=True)
class ESSettings(EvolutionSettings):
    """Of evolution strategies on a policy of one network.

    Attributes:
        runs: of each candidate in a generation; all candidates have the same requests.
        validate_every: generations between validations.
    """

    runs: int = 4
    validate_every: int = 10

    def __post_init__(self) -> None:
        EvolutionSettings.__post_init__(self)
        check_integer("generations", self.generations, at_least=1)
        for name in ("runs", "validate_every"):
            check_integer(name, getattr(self, name), at_least=1)


@dataclass(frozen=True, slots=True)
class IndexSettings:
    """Of the search for an index policy: stages of evolution strategies, then sweeps of a coordinate search.

    Attributes:
        generations: of the search over constants, and of that over these and what they depend on.
        sites: cases of a generation on sites of the suite, each on another one; or on the workload that is given.
        random_sites: cases of a generation on random sites; none where a workload is given.
        validate_every: generations between validations.
        average: share of the last generations of a stage over which the weights are averaged.
        sweeps: of the coordinate search that follows.
        cases: of a sweep at each site of the suite; as many on random sites come on top.

    Raises:
        ValueError: naming the field, its value and what is allowed.
    """

    generations: tuple[int, ...] = (60, 140)
    sites: int = 6
    random_sites: int = 5
    validate_every: int = 20
    average: float = 0.15
    sweeps: int = 1
    cases: int = 6

    def __post_init__(self) -> None:
        if len(self.generations) != 2:
            raise ValueError(f"generations must be two numbers, got {self.generations}")
        for count in self.generations:
            check_integer("generations", count, at_least=0)
        for name in ("sites", "random_sites", "sweeps"):
            check_integer(name, getattr(self, name), at_least=0)
        check_integer("sites + random_sites", self.sites + self.random_sites, at_least=1)
        for name in ("validate_every", "cases"):
            check_integer(name, getattr(self, name), at_least=1)
        check_number("average", self.average, at_least=0, at_most=1)


@dataclass(frozen=True, slots=True)
class LearningAids:
    """What makes learning easier without changing which policy is best; `docs/learning.md` says what each is for.

    Attributes:
        reference: whether rewards are compared with the tuned static baseline on the same requests.
        shared_traces: how many environments in a row serve the same requests; above 1, PPO takes advantages relative
            to the mean of these at the same time.
        curriculum: share of the budget over which the episodes grow to their full load and length; 0: they begin so.
        curriculum_start: share of the range of loads and of the length that they have at the start.
        anchor: share of the way back to its start that the policy of PPO is moved after each update, at the start of
            training; decays linearly to 0 over the budget.

    Raises:
        ValueError: naming the field, its value and what is allowed.
    """

    reference: bool = False
    shared_traces: int = 1
    curriculum: float = 0.0
    curriculum_start: float = 0.25
    anchor: float = 0.0

    def __post_init__(self) -> None:
        if self.reference not in (False, True):
            raise ValueError(f"reference must be True or False, got {self.reference!r}")
        check_integer("shared_traces", self.shared_traces, at_least=1)
        check_number("curriculum", self.curriculum, at_least=0, at_most=1)
        check_number("curriculum_start", self.curriculum_start, above=0, at_most=1)
        check_number("anchor", self.anchor, at_least=0, at_most=1)


Settings = PPOSettings | DQNSettings | ESSettings | IndexSettings

TUNED: dict[tuple[str, str], Settings] = {
    ("BatchQueue", "ppo"): PPOSettings(
        n_steps=16,
        n_epochs=5,
        learning_rate=6e-4,
        ent_coef=0.0,
        time_constant=10.0,
        gae_lambda=0.95,
        target_kl=0.03,
        log_std_init=-1.6,
    ),
    ("BatchQueue", "dqn"): DQNSettings(),
    ("BatchQueue", "es"): ESSettings(100, noise=0.3, learning_rate=0.1),
    ("IndexPolicy", "ppo"): PPOSettings(),
    ("IndexPolicy", "es"): IndexSettings(),
    ("RequestSelection", "maskable_ppo"): PPOSettings(n_steps=256, target_kl=0.03, net_arch=(32,), start_logit=20.0),
    ("RequestSelection", "es"): ESSettings(100, noise=0.3, learning_rate=0.1),
    # Long lambda: what a prompt costs those it holds up shows in the seconds after it, what it saves at once.
    ("Cluster", "ppo"): PPOSettings(
        n_steps=2048,
        n_epochs=6,
        learning_rate=3e-3,
        ent_coef=0.0,
        time_constant=20.0,
        lambda_seconds=8.0,
        target_kl=0.03,
        net_arch=(32,),
        start_logit=3.0,
    ),
    # Of Cluster-v0 and of routers to choose among: without entropy some seeds end at the slow one alone.
    ("Cluster-v0", "ppo"): PPOSettings(n_steps=64, batch_size=512, ent_coef=0.05, gae_lambda=0.95, time_constant=10.0),
    ("Cluster", "dqn"): DQNSettings(time_constant=10.0),
    ("Cluster", "es"): ESSettings(60, runs=8),
    ("AgentNetwork", "ppo"): PPOSettings(n_steps=50, batch_size=800, time_constant=400.0),
    ("AgentNetwork", "es"): ESSettings(120),
}
"""By environment and learner: which there are, and the best settings known."""
AIDS: dict[tuple[str, str], LearningAids] = {
    # most of the variance of what an action brings comes from the requests
    ("BatchQueue", "ppo"): LearningAids(shared_traces=16),
    ("Cluster", "ppo"): LearningAids(shared_traces=8),
}
"""The learning aids that are on unless a training says otherwise."""


def learners(env: str) -> tuple[str, ...]:
    """The learners of an environment, the usual one first."""
    return tuple(algo for name, algo in TUNED if name == env)


def changed(settings: T, changes: Mapping[str, Any], what: str) -> T:
    """Settings with some of their fields changed.

    Args:
        settings: a dataclass.
        changes: values by name; a whole float will do for an int, and a number for a tuple.
        what: it is called in messages.

    Raises:
        ValueError: for an unknown name, or a value that is not allowed.
    """
    present = {field.name: getattr(settings, field.name) for field in fields(settings)}  # type: ignore[arg-type]
    for name in changes:
        check_choice(f"name in {what}", name, present)
    return replace(settings, **{name: _like(present[name], value) for name, value in changes.items()})  # type: ignore[type-var]


def _like(present: Any, value: Any) -> Any:
    if isinstance(present, tuple):
        return tuple(value) if isinstance(value, list | tuple) else (value,)
    if isinstance(present, bool) and value in (0, 1):
        return bool(value)
    if isinstance(value, float) and not isinstance(present, float) and value.is_integer():
        return int(value)
    return value
