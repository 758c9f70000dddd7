"""What a training is: environment, learner, workload, engine, reward, start, and how long; its import is quick."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from agents.settings import AIDS, TUNED, LearningAids, Settings, changed, learners
from agents.training_budget import TrainingBudget
from llmsched_env.validation import check_choice, check_integer, check_number, check_range

if TYPE_CHECKING:
    from llmsched_env.machine.config import EngineConfig

VERSIONS = {"BatchQueue": 1, "IndexPolicy": 0, "RequestSelection": 0, "Cluster": 1, "AgentNetwork": 0}
"""The newest version of each environment, which is trained unless another one is asked for."""
ENVIRONMENTS = tuple(VERSIONS)
SUITE = "suite"
"""As a workload: the training sites of the benchmark and random sites; for a router, random clusters."""
SCRATCH, TUNED_START = "scratch", "tuned"
H100, L40S = "llama-3.1-8b_h100-80gb_tp1_aic", "llama-3.1-8b_l40s-48gb_tp1_aic"
OF_ENV: Any = None
"""Default of a field that depends on the environment and the learner."""

_USUAL: dict[str, Any] = {
    "workload": "azure-chat", "engine": (H100,), "load": (0.6, 0.8, 0.95), "train_load": (0.6, 1.05),
    "reward": "latency", "interval": 0.25, "horizon": 120.0, "num_envs": 64, "validations": 15, "tuning_seeds": 4,
    "trials": 32, "seeds": 20,
}  # fmt: skip
_DEFAULTS: dict[str, dict[str, Any]] = {
    "BatchQueue": {
        "workload": "sharegpt-chat", "load": (0.8, 0.95, 1.1), "train_load": (0.75, 1.15), "reward": "slo",
        "interval": 1.0, "num_envs": 128,
    },
    "IndexPolicy": {},
    "RequestSelection": {
        "load": (0.8, 0.95), "train_load": (0.7, 1.05), "interval": 0.0, "horizon": 60.0, "num_envs": 32,
        "validations": 8, "steps": 500_000,
    },
    "Cluster": {
        "engine": (H100, H100, L40S, L40S), "load": (0.9,), "train_load": (0.9, 0.9), "reward": "calls",
        "interval": 0.0, "horizon": 60.0, "num_envs": 16, "validations": 12, "minutes": 20.0,
    },
    "AgentNetwork": {
        "workload": "rybko-stolyar", "engine": (), "load": (0.9,), "train_load": (0.9, 0.9), "reward": "tasks",
        "interval": 20.0, "horizon": 1000.0, "num_envs": 16, "validations": 8, "seeds": 10, "steps": 24_000,
    },
}  # fmt: skip
_SEARCHED: dict[str, dict[str, Any]] = {  # what differs for evolution strategies
    "IndexPolicy": {
        "workload": SUITE, "engine": (), "load": (0.8, 0.95, 1.1), "train_load": (0.75, 1.15), "reward": "slo",
        "horizon": 60.0, "tuning_seeds": 2,
    },
    "Cluster": {"workload": SUITE, "engine": (), "train_load": (0.7, 1.05)},
    "AgentNetwork": {"train_load": (0.85, 0.95), "horizon": 1500.0, "tuning_seeds": 8},
}  # fmt: skip
MINUTES = 5.0
"""Of training, where neither steps nor minutes are given and the environment has no number of steps of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """All that determines a training, apart from the speed of the machine where `minutes` limits it.

    A field that is None gets the default of its environment and learner.

    Attributes:
        env: BatchQueue, IndexPolicy, RequestSelection, Cluster or AgentNetwork; BatchQueue-v0 and ids say the version.
        version: of the environment; None: the newest, unless `env` says.
        algo: ppo, dqn, maskable_ppo or es (evolution strategies).
        workload: preset, or trace file, of which 60 % train, 20 % tune and 20 % test, in time; suite: those of the
            benchmark and random ones (es).
        engine: GPU profile or profile file; of a cluster several.
        step_noise: scatter of step times, see `EngineConfig`; None: that of the profile.
        believed: what schedulers and policies predict step times with: a factor on those of the engine, or a profile;
            None: what the profile says.
        load: loads of tuning, validation and test, as shares of the reference capacity; "recorded": the trace's own.
        train_load: range from which the load of each training episode is drawn; empty: the workload's own rate.
        slo: (TTFT, TPOT) targets in s; None: those of the workload, 1 and 0.1 for a trace without.
        reward: of the environment; the objective that it leads to chooses the best checkpoint.
        start: tuned: the neutral action, the best static setting of knobs, or a plain rule; scratch: a random policy,
            where it is not trained by evolution strategies; or the file of a policy.
        interval: s between decisions; 0: before every batch, or whenever the environment asks.
        horizon: length of training episodes, and of the arrivals of other runs, s; inf: until all have left.
        num_envs: environments stepped together.
        validations: how often a learner with gradients validates.
        tuning_seeds: runs per load in tuning and validation.
        trials: settings that are tried of each baseline at each load; 0: none is tuned. Of one engine.
        seeds: runs per load in the final comparison.
        seed: of the training.
        steps: environment steps to train for, over all environments; None: no limit. Not for es.
        minutes: wall-clock time to train for; None: no limit. Not for es.
        learner: hyper-parameters that differ from those of `agents.settings.TUNED`, by name.
        aids: what makes learning easier, by name; see `agents.settings.LearningAids`.
        env_arguments: further arguments of the environment, by name; of IndexPolicy with es `pausing`: whether prompts
            that have begun may wait for others.

    Raises:
        ValueError: naming the field, its value and what is allowed.
    """

    env: str = "BatchQueue"
    version: int = OF_ENV
    algo: str = OF_ENV
    workload: str = OF_ENV
    engine: tuple[str, ...] = OF_ENV
    step_noise: float | None = None
    believed: str | None = None
    load: tuple[float | str, ...] = OF_ENV
    train_load: tuple[float, ...] = OF_ENV
    slo: tuple[float, float] | None = None
    reward: str = OF_ENV
    start: str = TUNED_START
    interval: float = OF_ENV
    horizon: float = OF_ENV
    num_envs: int = OF_ENV
    validations: int = OF_ENV
    tuning_seeds: int = OF_ENV
    trials: int = OF_ENV
    seeds: int = OF_ENV
    seed: int = 0
    steps: int | None = None
    minutes: float | None = None
    learner: Mapping[str, Any] = field(default_factory=dict)
    aids: Mapping[str, Any] = field(default_factory=dict)
    env_arguments: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        name, version = environment_name(self.env)
        self._fill("env", name)
        if self.version is None:
            self._fill("version", VERSIONS[name] if version is None else version)
        check_integer(f"version of {name}", self.version, at_least=0, at_most=VERSIONS[name])
        usual = learners(self.env)
        self._fill("algo", usual[0] if self.algo is None else check_choice(f"algo of {self.env}", self.algo, usual))
        defaults = self._defaults()
        for name, value in defaults.items():
            if getattr(self, name) is None and name not in ("steps", "minutes"):
                self._fill(name, value)
        if self.searches:
            for name in ("steps", "minutes"):
                if getattr(self, name) is not None:
                    raise ValueError(
                        f"{name} must be None with algo 'es', got {getattr(self, name)!r}; see generations"
                    )
        elif self.steps is None and self.minutes is None:
            self._fill("steps", defaults.get("steps"))
            self._fill("minutes", None if "steps" in defaults else defaults.get("minutes", MINUTES))
        self._check()

    def _fill(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)  # of a frozen dataclass

    def _defaults(self) -> dict[str, Any]:
        special = _SEARCHED.get(self.env, {}) if self.searches else {}
        if special.get("workload") == SUITE and self.workload not in (None, SUITE):
            special = {name: value for name, value in special.items() if name != "engine"}  # one of its own
        return _USUAL | _DEFAULTS[self.env] | special

    def _check(self) -> None:
        if self.workload == SUITE and not (self.searches and self.env in ("IndexPolicy", "Cluster")):
            raise ValueError(f"workload must be a preset or a trace for {self.env} with {self.algo}, got {SUITE!r}")
        fixed = self.workload == SUITE or self.env == "AgentNetwork"
        if fixed and self.engine:
            raise ValueError(f"engine must be left out with workload {self.workload!r}, got {','.join(self.engine)!r}")
        for name in ("step_noise", "believed"):
            if (fixed or (self.env == "Cluster" and self.searches)) and getattr(self, name) is not None:
                raise ValueError(
                    f"{name} must be left out for {self.env} with {self.algo} and workload {self.workload!r}, "
                    f"whose engines are as their profiles say, got {getattr(self, name)!r}"
                )
        if self.env != "Cluster" and not fixed:
            check_integer("number of engines", len(self.engine), at_least=1, at_most=1)
        if self.train_load:
            check_range("train_load", self.train_load, above=0)
        check_integer("number of loads", len(self.load), at_least=1)
        for load in self.load:
            if load != "recorded":
                check_number("load", load, above=0)  # type: ignore[arg-type]  # refused where it is another text
        check_number("horizon", self.horizon, above=0, unit="s", finite=False)
        check_number("interval", self.interval, at_least=0, at_most=self.horizon, unit="s")
        for name in ("num_envs", "validations", "tuning_seeds", "seeds"):
            check_integer(name, getattr(self, name), at_least=1)
        check_integer("trials", self.trials, at_least=0)
        check_integer("seed", self.seed, at_least=0)
        if self.slo is not None:
            for name, limit in zip(("ttft", "tpot"), self.slo, strict=True):
                check_number(f"slo {name}", limit, above=0, unit="s", finite=False)
        if not self.searches:
            TrainingBudget(self.steps, self.minutes)
        _ = self.settings
        self._check_aids(self.learning_aids)

    def _check_aids(self, aids: LearningAids) -> None:
        changes = {name for name in self.aids if getattr(aids, name) != getattr(LearningAids(), name)}
        if self.searches or self.env in ("Cluster", "AgentNetwork"):
            for name in sorted(changes - ({"shared_traces"} if self.scores_engines else set())):
                raise ValueError(f"aids must be left out for {self.env} with {self.algo}, got {name}")
        if self.num_envs % aids.shared_traces:
            raise ValueError(f"shared_traces must divide num_envs={self.num_envs}, got {aids.shared_traces}")
        for name, off in (("shared_traces", 1), ("anchor", 0)):
            if self.algo != "ppo" and getattr(aids, name) != off:
                raise ValueError(f"{name} must be {off} unless algo is 'ppo', got {getattr(aids, name)}")

    @property
    def scores_engines(self) -> bool:
        """Whether PPO's policy is one network that scores every engine of a cluster."""
        return (self.env, self.algo) == ("Cluster", "ppo") and self.version > 0 and "routers" not in self.env_arguments

    @property
    def searches(self) -> bool:
        """Whether it learns without gradients."""
        return self.algo == "es"

    @property
    def settings(self) -> Settings:
        """The hyper-parameters."""
        plain = (self.env, self.algo) == ("Cluster", "ppo") and not self.scores_engines
        return changed(TUNED["Cluster-v0" if plain else self.env, self.algo], self.learner, f"learner {self.algo}")

    @property
    def learning_aids(self) -> LearningAids:
        """What makes learning easier."""
        usual = AIDS.get((self.env, self.algo), LearningAids())
        # What groups that share their requests need: calls come at the same times, whatever engines they are sent to.
        timed = self.scores_engines or (self.interval > 0 and math.isfinite(self.horizon))
        group = math.gcd(usual.shared_traces, self.num_envs) if timed else 1
        return changed(replace(usual, shared_traces=group), self.aids, "aids")

    def engines(self) -> tuple[EngineConfig, ...]:
        """The machines, one for each name in `engine`."""
        from llmsched_env.machine.config import EngineConfig

        noise: dict[str, Any] = {} if self.step_noise is None else {"step_noise": self.step_noise}
        found = (EngineConfig.for_gpu(name, **noise) for name in self.engine)
        return tuple(each if self.believed is None else each.believing(self.believed) for each in found)

    @property
    def env_id(self) -> str:
        """The environment's name for Gymnasium."""
        return f"llmsched/{self.env}-v{self.version}"

    @property
    def decision_interval(self) -> float | None:
        """The interval as environments take it: None before every batch, or whenever the environment asks."""
        return self.interval if self.interval > 0 else None

    @property
    def episode_horizon(self) -> float | None:
        """The horizon as environments take it: None until all have left."""
        return self.horizon if math.isfinite(self.horizon) else None

    @property
    def episode_load(self) -> tuple[float, float] | None:
        """The range of loads as environments take it: None for the workload's own rate."""
        return (self.train_load[0], self.train_load[1]) if self.train_load else None

    @property
    def name(self) -> str:
        """In the names of folders and in reports."""
        return f"{self.env}-{self.algo}-{self.reward}"


def environment_name(text: str) -> tuple[str, int | None]:
    """The name of an environment in `ENVIRONMENTS`, and the version where one is given: llmsched/BatchQueue-v0.

    Raises:
        ValueError: if there is no such environment.
    """
    name, _, version = text.removeprefix("llmsched/").partition("-v")
    check_choice("env", name, ENVIRONMENTS)
    if version and not version.isdecimal():
        raise ValueError(f"env must be {name} or {name}-v{VERSIONS[name]}, got {text!r}")
    return name, int(version) if version else None
