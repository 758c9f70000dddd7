"""Knobs of a batch scheduler, by PPO; or a choice among a few fixed settings of them, by DQN."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecNormalize

import baselines
from agents.objectives import OBJECTIVES, REWARDS
from agents.problems.engine_training import EngineTraining
from agents.problems.serving_numbers import serving_numbers
from agents.problems.static_knobs import StaticBest, tune_static
from agents.problems.workload_split import workload_split
from agents.run import CONFIG, Say, keep_config
from agents.sb3.checkpoint import AgentMeta, as_scheduler, load_agent, read_meta, save_agent, versions
from agents.sb3.dqn import DQNSettings, make_dqn, prefer_arm
from agents.sb3.environment import discount, make_training_env
from agents.sb3.learner import BEST, CHECKPOINTS, GradientLearner, GradientProblem, State
from agents.sb3.learning_aids import LearningAids
from agents.sb3.ppo import PPOSettings, make_model, warm_start
from agents.training_budget import TrainingBudget
from llmsched_env.envs.batch_queue import Knobs
from llmsched_env.evaluation import TEST_SEEDS, TRAINING_SEEDS, TUNING_SEEDS, Comparison, compare, seed_range
from llmsched_env.evaluation.cases import Cases
from llmsched_env.files import read_object
from llmsched_env.machine.config import EngineConfig
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.slo import SLO
from llmsched_env.validation import check_choice, check_number

PUBLISHED = ("fastertransformer", "vllm_prefill_first", "orca", "sarathi")
"""The baselines of arXiv 2504.07347, at their published defaults."""

TOKEN_BUDGETS = (256, 384, 512, 768, 1024, 2048, 4096, 8192)
ADMISSION_LIMITS = (math.inf,)
ALGORITHMS = ("ppo", "dqn")
BUDGET = ("steps", "minutes")
"""Fields of a configuration that may change when a training goes on."""


@dataclass(frozen=True, slots=True)
class KnobsTraining(EngineTraining):
    """All that determines a training, apart from the speed of the machine where `minutes` limits it.

    Attributes:
        trace: path of a trace instead of the workload; it is cut in time into 60 % training, 20 % tuning, 20 % test.
        slo: (TTFT, TPOT) targets in s; None: those of the workload, `TRACE_SLO` for a trace without.
        minutes: wall-clock time to train for; None: no limit.
        interval: s between decisions.
        algo: "ppo" sets every knob; "dqn" chooses among the best fixed settings of the knobs.
        ppo: hyper-parameters.
        dqn: hyper-parameters.
        aids: what makes learning easier.

    Raises:
        ValueError: naming the field, its value and what is allowed.
    """

    trace: str | None = None
    slo: tuple[float, float] | None = None
    minutes: float | None = 3.5
    interval: float = 0.25
    algo: str = "ppo"
    ppo: PPOSettings = PPOSettings()
    dqn: DQNSettings = DQNSettings()
    aids: LearningAids = LearningAids()

    def __post_init__(self) -> None:
        EngineTraining.__post_init__(self)
        check_choice("algo", self.algo, ALGORITHMS)
        check_number("interval", self.interval, above=0, unit="s")
        check_number("horizon", self.horizon, at_least=self.interval, unit="s")
        self.aids.check(self.algo, self.num_envs)
        TrainingBudget(self.steps, self.minutes)
        if self.slo is not None:
            SLO(*self.slo)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """What `json.dumps(asdict(config))` wrote.

        Raises:
            ValueError: if it is the configuration of another version.
        """
        record = _tuples(json.loads(text))
        try:
            ppo, dqn = PPOSettings(**_tuples(record.pop("ppo"))), DQNSettings(**_tuples(record.pop("dqn")))
            aids = LearningAids(**record.pop("aids"))
            return cls(**record, ppo=ppo, dqn=dqn, aids=aids)
        except (KeyError, TypeError) as error:
            raise ValueError(f"{CONFIG} must be that of a training by this version: {error}") from None


class KnobsProblem(GradientProblem):
    """Training of a policy over knobs in a folder, and the comparison that follows.

    The folder holds `config.json`, `checkpoints/` (`best.zip`, `last.zip`, `step_<n>.zip`), `tensorboard/` and, after
    `evaluate`, what the comparison keeps.

    Args:
        config: what to train.
        folder: of the training.
        say: prints progress messages.
    """

    def __init__(self, config: KnobsTraining, folder: Path, say: Say = print) -> None:
        self.config = config
        self.folder = folder
        self.say = say
        self.engine = EngineConfig.for_gpu(config.engine)
        self.objective = OBJECTIVES[config.objective]
        self.knobs = Knobs(TOKEN_BUDGETS, ADMISSION_LIMITS)
        self.train_workload, self.tuning_workload, self.test_workload = workload_split(
            config.workload, config.trace, config.slo, config.horizon
        )
        self.test_workload.at_load(config.eval_loads[0], self.engine)  # refuses what can't be scaled, before any run
        self.seed, self.validations = config.seed, config.validations
        self.log_interval = 1 if config.algo == "ppo" else config.num_envs  # rollouts, or episodes

    @classmethod
    def create(cls, config: KnobsTraining, folder: Path, say: Say = print) -> Self:
        """Begin a new training.

        Raises:
            ValueError: if there is a training in the folder already.
        """
        if (folder / CONFIG).exists():
            raise ValueError(
                f"there is a training in {folder}; resume it with --resume {folder} or choose another --out"
            )
        problem = cls(config, folder, say)
        keep_config(folder, asdict(config))
        return problem

    @classmethod
    def reopen(cls, folder: Path, steps: int | None, minutes: float | None, say: Say = print) -> Self:
        """Go on with a training, with a new budget (for all of it) if one is given.

        Raises:
            FileNotFoundError: if there is no training in the folder.
            ValueError: if it is of another kind.
        """
        if not (folder / CONFIG).is_file():
            raise FileNotFoundError(f"there is no training to resume in {folder}: it has no {CONFIG}")
        if not resumable(folder / CONFIG):
            raise ValueError(
                f"{folder} must hold a training of an agent by PPO or DQN to resume, got the {CONFIG} of another kind; "
                "the command that began it goes on with it"
            )
        config = KnobsTraining.from_json((folder / CONFIG).read_text(encoding="utf-8"))
        if steps is not None or minutes is not None:
            config = replace(config, steps=steps, minutes=minutes)
        problem = cls(config, folder, say)
        keep_config(folder, asdict(config), free=BUDGET)
        return problem

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.folder / CHECKPOINTS

    @cached_property
    def tuning_cases(self) -> Cases:
        """Runs on which the static baseline is tuned and checkpoints are chosen."""
        seeds = (TUNING_SEEDS,) if self.config.trace else seed_range(TUNING_SEEDS, self.config.tuning_seeds)
        workloads = tuple(self.tuning_workload.at_load(load, self.engine) for load in self.config.eval_loads)
        return Cases(workloads, tuple(seeds), self.engine)

    @cached_property
    def static_best(self) -> StaticBest:
        """The tuned static baseline, which is also where the agent starts."""
        self.say("Tuning the static baseline: the best fixed setting of the agent's knobs ...")
        best = tune_static(self.tuning_cases, self.knobs, self.objective)
        value = self.objective.text(best.value)
        self.say(
            f"  token_budget={best.token_budget}, order={best.order}: {self.objective.title} {value} on tuning seeds."
        )
        return best

    @cached_property
    def arms(self) -> tuple[tuple[int, ...], ...] | None:
        """The settings that DQN chooses among, the tuned static baseline first; None for PPO, which sets the knobs."""
        if self.config.algo == "ppo":
            return None
        return tuple(self._action(*setting) for setting in self.static_best.finalists[: self.config.dqn.arms])

    def _action(self, token_budget: int, order: str) -> tuple[int, ...]:
        return tuple(self.knobs.encode(token_budget, self.knobs.admission_limits[-1], order).tolist())

    @property
    def baselines(self) -> dict[str, Scheduler]:
        """The published baselines and the tuned static one."""
        return {name: baselines.get(name) for name in PUBLISHED} | {"static_best": self.static_best.scheduler}

    def environment(self, spent: float) -> VecNormalize:
        config, aids = self.config, self.config.aids
        load, horizon = aids.episodes(config.load, config.horizon, config.interval).at(spent)
        return make_training_env(
            config.num_envs, config.interval, (config.ppo if self.arms is None else config.dqn).time_constant,
            workload=self.train_workload, engine=self.engine, load=load, horizon=horizon,
            reward=REWARDS[config.objective], reference=self.static_best.scheduler if aids.reference else None,
            shared_traces=aids.shared_traces, token_budgets=self.knobs.token_budgets,
            admission_limits=self.knobs.admission_limits, arms=self.arms,
        )  # fmt: skip

    def model(self, env: VecNormalize, budget: TrainingBudget, seed: int, started: bool) -> BaseAlgorithm:
        """An untrained model. Unless training has `started`, its policy is the tuned static baseline."""
        config = self.config
        if self.arms is None:
            ppo = make_model(env, config.interval, config.ppo, budget, seed, config.aids.shared_traces)
            if not started:
                start = self._action(self.static_best.token_budget, self.static_best.order)
                warm_start(ppo, self.knobs, start, config.ppo)
            return ppo
        dqn = make_dqn(env, discount(config.interval, config.dqn.time_constant), config.dqn, budget, seed)
        if not started:
            prefer_arm(dqn, 0, config.dqn)
        return dqn

    def callbacks(self, model: BaseAlgorithm, budget: TrainingBudget, first: Path) -> list[BaseCallback]:
        config = self.config
        episodes = config.aids.episodes(config.load, config.horizon, config.interval)
        return config.aids.callbacks(model, budget, episodes, first)

    def references(self) -> dict[str, dict[str, float]]:
        return {name: serving_numbers(scheduler, self.tuning_cases) for name, scheduler in self.baselines.items()}

    def numbers(self, model: BaseAlgorithm) -> dict[str, float]:
        return serving_numbers(as_scheduler(model, self._meta({})), self.tuning_cases)

    def save(self, model: BaseAlgorithm, path: Path, state: State) -> None:
        save_agent(model, path, self._meta(state))

    def state(self, path: Path) -> State:
        return read_meta(path).training

    def _meta(self, state: State) -> AgentMeta:
        training = state | {
            "config": asdict(self.config),
            "start": self.static_best.note,
            "seeds": {"training": TRAINING_SEEDS, "tuning": TUNING_SEEDS, "test": TEST_SEEDS},
            "versions": versions(),
        }
        name = f"{self.config.algo}_{self.config.objective}"
        return AgentMeta(name, self.knobs, self.config.interval, training, self.arms)

    def train(self) -> None:
        """Train until the budget is used up, from the last checkpoint if there is one.

        Raises:
            KeyboardInterrupt: if interrupted, after saving a checkpoint.
        """
        GradientLearner(self, self.folder, self.config.steps, self.config.minutes, self.say).train()

    def evaluate(self) -> Comparison:
        """Compare the best checkpoint with the baselines on test requests, which nothing has seen before."""
        best = self.checkpoints / BEST
        note = (
            f"{self.config.algo.upper()} for {self.objective.name}, started at static_best; checkpoint of step "
            f"{read_meta(best).training['steps']}, chosen by {self.objective.metric} on tuning seeds"
        )
        return compare(
            self.baselines | {"agent": load_agent(best)},
            {self.test_workload.name: self.test_workload},
            self.config.eval_loads,
            seed_range(TEST_SEEDS, self.config.test_seeds),
            self.engine,
            folder=self.folder,
            notes={"agent": note, "static_best": self.static_best.note},
        )


def resumable(path: Path) -> bool:
    """Whether a `config.json` is that of a `KnobsTraining`; others have one as well."""
    return "ppo" in read_object(path)


def _tuples(record: dict[str, Any]) -> dict[str, Any]:
    """JSON knows no tuples."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in record.items()}
