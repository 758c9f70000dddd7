"""A training from its configuration to the report; interrupted anywhere, it goes on from its folder."""

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecNormalize

import baselines
from agents.budget import Budget
from agents.callbacks import TAG, Progress, StopWhenSpent, Validate
from agents.checkpoint import AgentMeta, load_agent, read_meta, versions
from agents.dqn import DQNSettings, make_dqn, prefer_arm
from agents.folders import CONFIG
from agents.guidance import Guidance
from agents.objective import OBJECTIVES
from agents.ppo import (
    PPOSettings,
    discount,
    make_model,
    make_training_env,
    restore_reward_statistics,
    reward_statistics,
    warm_start,
)
from agents.static import StaticBest, tune_static
from agents.tensorboard import ReferenceLines, open_logger
from agents.validation import validate
from agents.workload_parts import workload_parts
from llmsched_env.envs.batch_queue import Knobs
from llmsched_env.evaluation import TEST_SEEDS, TRAINING_SEEDS, TUNING_SEEDS, Comparison, compare, seed_range
from llmsched_env.evaluation.cases import Cases
from llmsched_env.json_files import read_object, write_json
from llmsched_env.simulator.config import EngineConfig
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.slo import SLO
from llmsched_env.validation import check_choice, check_integer, check_number, check_range

PUBLISHED = ("fastertransformer", "vllm_prefill_first", "orca", "sarathi")
"""The baselines of arXiv 2504.07347, at their published defaults."""

TOKEN_BUDGETS = (256, 384, 512, 768, 1024, 2048, 4096, 8192)
ADMISSION_LIMITS = (math.inf,)
ALGORITHMS = ("ppo", "dqn")


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """All that determines a training, apart from the speed of the machine where `minutes` limits it.

    Attributes:
        workload: name of a preset; ignored if there is a trace.
        trace: path of a trace, which is cut in time into 60 % training, 20 % tuning and 20 % test.
        engine: GPU profile.
        load: range from which the load of each training episode is drawn.
        eval_loads: loads of tuning, validation and test.
        objective: "latency" or "goodput".
        slo: (TTFT, TPOT) targets in s; None: those of the workload, `TRACE_SLO` for a trace without.
        steps: environment steps to train for; None: no limit.
        minutes: wall-clock time to train for; None: no limit.
        num_envs: environments stepped together.
        interval: s between decisions.
        horizon: length of training episodes, and of the arrivals of tuning and test runs, s.
        tuning_seeds: runs per load in tuning and validation.
        test_seeds: runs per load in the final comparison.
        validations: how often to validate during training.
        seed: of the training.
        ppo: hyper-parameters.
        algo: "ppo" sets every knob; "dqn" chooses among the best fixed settings of the knobs.
        dqn: hyper-parameters.
        guidance: what makes learning easier.

    Raises:
        ValueError: naming the field, its value and what is allowed.
    """

    workload: str = "azure-chat"
    trace: str | None = None
    engine: str = "llama-3.1-8b_h100-80gb_tp1_aic"
    load: tuple[float, float] = (0.6, 1.05)
    eval_loads: tuple[float, ...] = (0.6, 0.8, 0.95)
    objective: str = "latency"
    slo: tuple[float, float] | None = None
    steps: int | None = None
    minutes: float | None = 3.5
    num_envs: int = 64
    interval: float = 0.25
    horizon: float = 120.0
    tuning_seeds: int = 4
    test_seeds: int = 20
    validations: int = 15
    seed: int = 0
    ppo: PPOSettings = PPOSettings()
    algo: str = "ppo"
    dqn: DQNSettings = DQNSettings()
    guidance: Guidance = Guidance()

    def __post_init__(self) -> None:
        check_choice("algo", self.algo, ALGORITHMS)
        check_choice("objective", self.objective, OBJECTIVES)
        check_range("load", self.load, above=0)
        check_integer("number of eval_loads", len(self.eval_loads), at_least=1)
        for load in self.eval_loads:
            check_number("eval_loads", load, above=0)
        for name in ("num_envs", "tuning_seeds", "test_seeds", "validations"):
            check_integer(name, getattr(self, name), at_least=1)
        check_number("interval", self.interval, above=0, unit="s")
        check_number("horizon", self.horizon, at_least=self.interval, unit="s")
        check_integer("seed", self.seed, at_least=0)
        self.guidance.check(self.algo, self.num_envs)
        self.budget()
        if self.slo is not None:
            SLO(*self.slo)

    def budget(self, seconds_before: float = 0.0) -> Budget:
        """How long to train, of which earlier sittings took some time."""
        return Budget(self.steps, self.minutes, seconds_before)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """What `json.dumps(asdict(config))` wrote."""
        record = _tuples(json.loads(text))
        ppo = PPOSettings(**_tuples(record.pop("ppo")))
        dqn = DQNSettings(**_tuples(record.pop("dqn", {})))  # a training of before there was a choice has none
        guidance = Guidance(**record.pop("guidance", {}))  # nor had it any
        return cls(**record, ppo=ppo, dqn=dqn, guidance=guidance)


def resumable(path: Path) -> bool:
    """Whether a `config.json` is of a `Training`; others keep one as well."""
    return "ppo" in read_object(path)


class Training:
    """One training and its folder.

    The folder holds `config.json`, `checkpoints/` (`best.zip`, `last.zip`, `step_<n>.zip`), `tensorboard/` and, after
    `evaluate`, what the comparison keeps.

    Args:
        config: what to train.
        folder: where everything goes.
        say: prints progress messages.
    """

    def __init__(self, config: TrainingConfig, folder: Path, say: Callable[[str], None] = print) -> None:
        self.config = config
        self.folder = folder
        self.say = say
        self.engine = EngineConfig.for_gpu(config.engine)
        self.objective = OBJECTIVES[config.objective]
        self.knobs = Knobs(TOKEN_BUDGETS, ADMISSION_LIMITS)
        self.train_workload, self.tuning_workload, self.test_workload = workload_parts(
            config.workload, config.trace, config.slo, config.horizon
        )
        self.test_workload.at_load(config.eval_loads[0], self.engine)  # refuses what can't be scaled, before any run

    @classmethod
    def create(cls, config: TrainingConfig, folder: Path, say: Callable[[str], None] = print) -> Self:
        """Begin a new training.

        Raises:
            ValueError: if there is a training in the folder already.
        """
        if (folder / CONFIG).exists():
            raise ValueError(
                f"there is a training in {folder}; resume it with --resume {folder} or choose another --out"
            )
        training = cls(config, folder, say)
        training._write_config()
        return training

    @classmethod
    def reopen(cls, folder: Path, steps: int | None, minutes: float | None, say: Callable[[str], None] = print) -> Self:
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
        config = TrainingConfig.from_json((folder / CONFIG).read_text(encoding="utf-8"))
        if steps is not None or minutes is not None:
            config = replace(config, steps=steps, minutes=minutes)
        training = cls(config, folder, say)
        training._write_config()
        return training

    def _write_config(self) -> None:
        write_json(self.folder / CONFIG, asdict(self.config), indent=1)

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.folder / "checkpoints"

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
    def _time_constant(self) -> float:
        return (self.config.ppo if self.arms is None else self.config.dqn).time_constant

    def _new_model(self, env: VecNormalize, budget: Budget, seed: int, started: bool) -> BaseAlgorithm:
        """An untrained model; unless training has `started`, its policy is the tuned static baseline."""
        config = self.config
        if self.arms is None:
            model = make_model(env, config.interval, config.ppo, budget, seed, config.guidance.shared_traces)
            if not started:
                start = self._action(self.static_best.token_budget, self.static_best.order)
                warm_start(model, self.knobs, start, config.ppo)
            return model
        model = make_dqn(env, discount(config.interval, config.dqn.time_constant), config.dqn, budget, seed)
        if not started:
            prefer_arm(model, 0, config.dqn)
        return model

    @property
    def baselines(self) -> dict[str, Scheduler]:
        """The published baselines and the tuned static one."""
        return {name: baselines.get(name) for name in PUBLISHED} | {"static_best": self.static_best.scheduler}

    def train(self) -> None:
        """Train until the budget is used up, from the last checkpoint if there is one.

        Raises:
            KeyboardInterrupt: if interrupted, after saving a checkpoint.
        """
        last = self.checkpoints / "last.zip"
        before = read_meta(last).training if last.exists() else None
        config, budget = self.config, self.config.budget(before["seconds"] if before else 0.0)
        if before and budget.spent(before["steps"]) >= 1:
            self.say(
                f"The budget was used up after {before['steps']:,} steps; give more --steps or --minutes to go on."
            )
            return
        sittings = before.get("sittings", before.get("sessions")) if before else 0  # the latter: an old name
        seed = int(np.random.SeedSequence([TRAINING_SEEDS, config.seed, sittings]).generate_state(1)[0])
        guidance = config.guidance
        curriculum = guidance.episodes(config.load, config.horizon, config.interval)
        load, horizon = curriculum.at(budget.spent(before["steps"] if before else 0))
        env = make_training_env(
            config.num_envs, config.interval, self._time_constant, workload=self.train_workload, engine=self.engine,
            load=load, horizon=horizon, reward=config.objective,
            reference=self.static_best.scheduler if guidance.reference else None, shared_traces=guidance.shared_traces,
            token_budgets=self.knobs.token_budgets, admission_limits=self.knobs.admission_limits, arms=self.arms,
        )  # fmt: skip
        model = self._new_model(env, budget, seed, started=before is not None)
        if before:
            model.set_parameters(last, exact_match=True)
            model.num_timesteps, model._n_updates = before["steps"], before["updates"]
            restore_reward_statistics(env, before["reward_statistics"])
            self.say(f"Resuming at step {before['steps']:,}.")

        def describe(best: float | None) -> AgentMeta:
            return self._meta(model, env, budget, sittings + 1, best)

        self.say("Running the baselines on the validation runs ...")
        lines = ReferenceLines(self.folder, self._line_values(), model.num_timesteps)
        validation = Validate(
            self.checkpoints, self.tuning_cases, self.objective, budget, describe, lines, config.validations,
            best=before["best"] if before else None,
        )  # fmt: skip
        guides = guidance.callbacks(model, budget, curriculum, self.checkpoints / "step_0.zip")
        progress = Progress(budget, validation, self.objective)
        model.set_logger(open_logger(self.folder, model.num_timesteps))
        validation.init_callback(model)  # so that it can save whenever the interruption comes
        steps = 2**62 if config.steps is None else config.steps - model.num_timesteps
        budget.start()
        try:
            callbacks = [StopWhenSpent(budget), *guides, validation, progress]
            # PPO counts rollouts between two logs, DQN episodes.
            model.learn(
                steps, callbacks, log_interval=1 if self.arms is None else config.num_envs, reset_num_timesteps=False
            )
        except KeyboardInterrupt:
            validation.save()
            raise
        finally:
            progress.close()
            lines.close()
            model.logger.close()
            env.close()

    def evaluate(self, command: str | None = None) -> Comparison:
        """Compare the best checkpoint with the baselines on test requests, which nothing has seen before."""
        agent = load_agent(self.checkpoints / "best.zip")
        meta = read_meta(self.checkpoints / "best.zip").training
        note = (
            f"{self.config.algo.upper()} for {self.objective.name}, started at static_best; "
            f"checkpoint of step {meta['steps']}, chosen by {self.objective.metric} on tuning seeds"
        )
        return compare(
            self.baselines | {"agent": agent},
            {self.test_workload.name: self.test_workload},
            self.config.eval_loads,
            seed_range(TEST_SEEDS, self.config.test_seeds),
            self.engine,
            folder=self.folder,
            notes={"agent": note, "static_best": self.static_best.note},
        )

    def _line_values(self) -> dict[str, dict[str, float]]:
        values = {name: validate(scheduler, self.tuning_cases) for name, scheduler in self.baselines.items()}
        return {name: {TAG + tag: number for tag, number in numbers.items()} for name, numbers in values.items()}

    def _meta(self, model: BaseAlgorithm, env: Any, budget: Budget, sittings: int, best: float | None) -> AgentMeta:
        training = {
            "config": asdict(self.config),
            "steps": model.num_timesteps,
            "updates": model._n_updates,
            "seconds": round(budget.elapsed(), 3),
            "sittings": sittings,
            "best": best,
            "reward_statistics": reward_statistics(env),
            "start": self.static_best.note,
            "seeds": {"training": TRAINING_SEEDS, "tuning": TUNING_SEEDS, "test": TEST_SEEDS},
            "versions": versions(),
        }
        name = f"{self.config.algo}_{self.config.objective}"
        return AgentMeta(name, self.knobs, self.config.interval, training, self.arms)


def _tuples(record: dict[str, Any]) -> dict[str, Any]:
    """JSON knows no tuples."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in record.items()}
