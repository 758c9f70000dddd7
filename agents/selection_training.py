"""MaskablePPO on `llmsched/RequestSelection-v0`: training, checkpoints, resumption, and runs on held-out requests."""

from __future__ import annotations

import json
import math
import shutil
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from sb3_contrib import MaskablePPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecMonitor, VecNormalize

import baselines
from agents.budget import Budget
from agents.callbacks import TAG, StopWhenSpent
from agents.checkpoint import save_with
from agents.folders import keep_config
from agents.objective import OBJECTIVES
from agents.ppo import EPISODE_NUMBERS, DecayingEntropy, restore_reward_statistics, reward_statistics
from agents.sb3_vec_env import SB3VecEnv
from agents.selection_policy import NoteSeconds, SlotPolicy, TimeDiscountedBuffer
from agents.tensorboard import open_logger
from llmsched_env.envs.batch_queue import ORDERS, parametric
from llmsched_env.envs.request_selection import RequestSelectionEnv
from llmsched_env.evaluation import TEST_SEEDS, TRAINING_SEEDS, TUNING_SEEDS, seed_range
from llmsched_env.evaluation.cases import Cases
from llmsched_env.metrics import paired_interval
from llmsched_env.simulator.config import EngineConfig
from llmsched_env.simulator.records import Result
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.validation import check_choice, check_integer, check_number, check_range
from llmsched_env.workloads import Workload, preset

LAST, BEST = "last.zip", "best.zip"
STATE = "training.json"  # member of a checkpoint: what resuming needs beyond the model


@dataclass(frozen=True, slots=True)
class SelectionTraining:
    """All that determines a training.

    Attributes:
        workload: name of a preset.
        engine: GPU profile.
        load: range from which the load of each training episode is drawn.
        eval_loads: loads of validation and test.
        objective: "latency" or "goodput".
        horizon: length of training episodes, and of the arrivals of other runs, s.
        slots: waiting requests to choose from.
        token_budget: tokens of a batch.
        work_conserving: whether a batch goes on as long as a request in a slot fits.
        steps: choices to train for, over all environments.
        num_envs: environments stepped together.
        n_steps: steps of each between updates.
        batch_size: of a gradient step.
        n_epochs: passes over the data of an update.
        learning_rate: at the start; decays linearly to a tenth.
        ent_coef: weight of the entropy bonus at the start; decays linearly to 0.
        time_constant: s over which the future is discounted by 1/e; inf: not at all.
        gae_lambda: of the advantage estimate.
        hidden: units of a layer.
        shortest_first: preference for short prompts at the start, in logits; 0: from scratch.
        validations: how often to validate.
        tuning_seeds: runs per load in validation.
        test_seeds: runs per load in the comparison.
        seed: of the training.

    Raises:
        ValueError: naming the field, its value and what is allowed.
    """

    workload: str = "azure-chat"
    engine: str = "llama-3.1-8b_h100-80gb_tp1_aic"
    load: tuple[float, float] = (0.7, 1.05)
    eval_loads: tuple[float, ...] = (0.8, 0.95)
    objective: str = "latency"
    horizon: float = 60.0
    slots: int = 16
    token_budget: int = 512
    work_conserving: bool = False
    steps: int = 500_000
    num_envs: int = 32
    n_steps: int = 256
    batch_size: int = 2048
    n_epochs: int = 4
    learning_rate: float = 1e-3
    ent_coef: float = 0.003
    time_constant: float = 60.0
    gae_lambda: float = 0.98
    hidden: int = 32
    shortest_first: float = 20.0
    validations: int = 8
    tuning_seeds: int = 4
    test_seeds: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice("objective", self.objective, tuple(OBJECTIVES))
        whole = ("slots", "token_budget", "steps", "num_envs", "n_steps", "n_epochs", "hidden", "validations")
        for name in (*whole, "tuning_seeds", "test_seeds"):
            check_integer(name, getattr(self, name), at_least=1)
        check_integer("batch_size", self.batch_size, at_least=2)  # advantages are scaled by their spread in a batch
        check_integer("num_envs * n_steps", self.num_envs * self.n_steps, at_least=2)
        check_integer("seed", self.seed, at_least=0)
        check_range("load", self.load, above=0)
        check_integer("number of eval_loads", len(self.eval_loads), at_least=1)
        for load in self.eval_loads:
            check_number("eval_loads", load, above=0)
        check_number("horizon", self.horizon, above=0, unit="s")
        check_number("learning_rate", self.learning_rate, above=0)
        check_number("ent_coef", self.ent_coef, at_least=0)
        check_number("gae_lambda", self.gae_lambda, at_least=0, at_most=1)
        check_number("time_constant", self.time_constant, above=0, unit="s", finite=False)
        check_number("shortest_first", self.shortest_first, at_least=0)

    def choices(self) -> dict[str, Any]:
        """Arguments of the environment that say what is chosen from."""
        return {"slots": self.slots, "token_budget": self.token_budget, "work_conserving": self.work_conserving}

    def cases(self, first_seed: int, seeds: int) -> Cases:
        """Runs at the loads of evaluation; each drains."""
        engine = EngineConfig.for_gpu(self.engine)
        workload = preset(self.workload, horizon=self.horizon)
        loads = tuple(workload.at_load(load, engine) for load in self.eval_loads)
        return Cases(loads, tuple(seed_range(first_seed, seeds)), engine)

    def references(self) -> dict[str, Scheduler]:
        """First come, first served and the shortest prompt first, with the same token budget."""
        order = ORDERS.index("shortest_prompt")
        return {
            "fcfs": baselines.get("sarathi")(token_budget=self.token_budget),
            "shortest_prompt": replace(parametric(token_budget=self.token_budget, order=order), name="shortest_prompt"),
        }


class BudgetedMaskablePPO(DecayingEntropy, MaskablePPO):
    """MaskablePPO whose learning rate and entropy bonus decay over a `Budget`."""


def make_env(num_envs: int, **kwargs: Any) -> VecNormalize:
    """The vector environment as MaskablePPO sees it, with rewards scaled by the spread of their returns."""
    env = gym.make_vec(
        "llmsched/RequestSelection-v0", num_envs=num_envs, vectorization_mode="vector_entry_point", **kwargs
    )
    monitored = VecMonitor(SB3VecEnv(env), info_keywords=EPISODE_NUMBERS)
    return VecNormalize(monitored, norm_obs=False, clip_reward=math.inf, gamma=0.99)


def make_model(env: VecNormalize, config: SelectionTraining, budget: Budget, seed: int) -> BudgetedMaskablePPO:
    """An untrained model on one torch thread."""
    torch.set_num_threads(1)
    torch.distributions.Distribution.set_default_validate_args(False)
    model = BudgetedMaskablePPO(
        SlotPolicy,
        env,
        learning_rate=LinearSchedule(config.learning_rate, config.learning_rate / 10, 1.0),
        n_steps=config.n_steps,
        batch_size=min(config.batch_size, config.n_steps * config.num_envs),
        n_epochs=config.n_epochs,
        gamma=1.0,  # the buffer discounts
        gae_lambda=config.gae_lambda,
        ent_coef=config.ent_coef,
        target_kl=0.03,
        rollout_buffer_class=TimeDiscountedBuffer,
        rollout_buffer_kwargs={"time_constant": config.time_constant},
        policy_kwargs={"hidden": config.hidden, "shortest_first": config.shortest_first},
        seed=seed,
        device="cpu",
    )
    model.budget = budget
    model.start_ent_coef = config.ent_coef
    return model


def run_agent(
    model: MaskablePPO, workload: Workload, engine: EngineConfig, seed: int, choices: Mapping[str, Any]
) -> Result:
    """The requests of one seed under the most probable choices, until all have left."""
    fixed = Workload.from_table(workload.sample(seed), workload.name)
    env = RequestSelectionEnv(fixed, engine, load=None, horizon=None, record="batches", **choices)
    obs, info = env.reset(seed=0)
    over = False
    while not over:
        action, _ = model.predict(obs, deterministic=True, action_masks=info["action_mask"])
        obs, _, over, _, info = env.step(int(action))
    return env.result()


def run_numbers(model: MaskablePPO, cases: Cases, config: SelectionTraining) -> np.ndarray:
    """f8[workloads x seeds]: the metric of the objective, in the order of `Cases.map`."""
    metric = OBJECTIVES[config.objective].metric
    return np.array(
        [
            run_agent(model, workload, cases.engine, seed, config.choices()).summary()[metric]
            for workload in cases.workloads
            for seed in cases.seeds
        ]
    )


class ValidateSelection(BaseCallback):
    """Validate and save at equal shares of the steps; the best checkpoint is kept beside the last.

    Args:
        config: of the training.
        folder: where checkpoints go.
        references: values of the reference schedulers on the validation runs.
        best: value of `best.zip` so far.
        say: prints a line a validation.
    """

    def __init__(
        self,
        config: SelectionTraining,
        folder: Path,
        references: Mapping[str, np.ndarray],
        best: float | None,
        say: Callable[[str], None],
    ) -> None:
        super().__init__()
        self.best = best
        self._config, self._folder, self._references, self._say = config, folder, references, say
        self._cases = config.cases(TUNING_SEEDS, config.tuning_seeds)
        self._next = 0

    def _on_training_start(self) -> None:
        if self.num_timesteps > 0:  # the checkpoint that training goes on from has been validated
            self._next = self._after()

    def _on_rollout_start(self) -> None:
        if self._next <= self.num_timesteps < self._config.steps:
            self.run()
            self._next = self._after()

    def _after(self) -> float:
        share = self._config.steps / self._config.validations
        return (self.num_timesteps // share + 1) * share

    def _on_step(self) -> bool:
        return True

    def _on_training_end(self) -> None:
        self.run()

    def run(self) -> None:
        """Validate, log and save now."""
        objective = OBJECTIVES[self._config.objective]
        value = float(run_numbers(self.model, self._cases, self._config).mean())
        improved = self.best is None or objective.score(value) > objective.score(self.best)
        if improved:
            self.best = value
        self.logger.record(f"{TAG}{objective.metric}", value)
        for name, values in self._references.items():
            self.logger.record(f"{TAG}{objective.metric}_{name}", float(values.mean()))
        self.logger.dump(self.num_timesteps)
        others = ", ".join(f"{name} {objective.text(float(v.mean()))}" for name, v in self._references.items())
        self._say(f"step {self.num_timesteps:>9,}: {objective.text(value)} ({others})")
        self.save(improved)

    def save(self, improved: bool = False) -> None:
        """Write `last.zip` with what resuming needs, and `best.zip` if it `improved`."""
        state = {
            "steps": self.num_timesteps,
            "updates": self.model._n_updates,
            "best": self.best,
            "reward_statistics": reward_statistics(self.model.get_vec_normalize_env()),
        }
        save_with(self.model, self._folder / LAST, STATE, json.dumps(state))
        if improved:
            shutil.copyfile(self._folder / LAST, self._folder / BEST)


def train(config: SelectionTraining, folder: Path, say: Callable[[str], None] = print) -> BudgetedMaskablePPO:
    """Train until the steps are used up, from the last checkpoint of `folder` if there is one.

    Raises:
        ValueError: if another training is in the folder.
        KeyboardInterrupt: if interrupted, after saving a checkpoint.
    """
    keep_config(folder, asdict(config), free=("steps",))
    state = read_state(folder / LAST) if (folder / LAST).exists() else None
    env = make_env(
        config.num_envs, workload=preset(config.workload, horizon=config.horizon), engine=config.engine,
        load=config.load, horizon=config.horizon, reward=config.objective, **config.choices(),
    )  # fmt: skip
    done = state["steps"] if state else 0
    seed = int(np.random.SeedSequence([TRAINING_SEEDS, config.seed, done]).generate_state(1)[0])
    model = make_model(env, config, Budget(config.steps, None), seed)
    if state:
        model.set_parameters(folder / LAST, exact_match=True)
        model.num_timesteps, model._n_updates = done, state["updates"]
        restore_reward_statistics(env, state["reward_statistics"])
        say(f"Resuming at step {done:,}.")
    if done >= config.steps:
        return model
    metric, references = OBJECTIVES[config.objective].metric, config.references()
    cases = config.cases(TUNING_SEEDS, config.tuning_seeds)
    values = np.array(cases.map(list(references.values()), lambda result: result.summary()[metric]))
    lines = dict(zip(references, values, strict=True))
    validation = ValidateSelection(config, folder, lines, state["best"] if state else None, say)
    model.set_logger(open_logger(folder, done))
    validation.init_callback(model)
    try:
        callbacks = [StopWhenSpent(model.budget), NoteSeconds(env.unwrapped), validation]
        model.learn(config.steps - done, callbacks, reset_num_timesteps=False)
    except KeyboardInterrupt:
        validation.save()
        raise
    finally:
        model.logger.close()
        env.close()
    return model


def read_state(checkpoint: Path) -> dict[str, Any]:
    """Where a training stood: its steps, updates, best value and statistics of rewards."""
    with zipfile.ZipFile(checkpoint) as archive:
        return json.loads(archive.read(STATE))


def evaluate(config: SelectionTraining, folder: Path, others: Sequence[str] = ()) -> str:
    """Compare the best checkpoint with its references, and with `others` of the registry, on test requests.

    A line a scheduler and load: its mean, and the mean paired difference of the agent to it with the half width of the
    95 % t-interval over seeds.
    """
    objective = OBJECTIVES[config.objective]
    model = BudgetedMaskablePPO.load(folder / BEST, device="cpu")
    cases = config.cases(TEST_SEEDS, config.test_seeds)
    agent = run_numbers(model, cases, config).reshape(len(cases.workloads), -1)
    schedulers = config.references() | {name: baselines.get(name) for name in others}
    values = cases.map(list(schedulers.values()), lambda result: result.summary()[objective.metric])
    lines = []
    for load, own, rows in zip(config.eval_loads, agent, zip(*_by_load(values, len(agent)), strict=True), strict=True):
        lines.append(f"load {load:g}: agent {objective.text(own.mean())}")
        for name, theirs in zip(schedulers, rows, strict=True):
            mean, half = (objective.scale * x for x in paired_interval(own, theirs))
            lines.append(f"  {name}: {objective.text(theirs.mean())}; agent {mean:+.4g} ± {half:.2g} {objective.unit}")
    return "\n".join(lines)


def _by_load(values: list[list[float]], loads: int) -> list[np.ndarray]:
    return [np.array(row).reshape(loads, -1) for row in values]
