"""llmsched train: train a scheduler, and compare it with others on test requests."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyclopts import Parameter

from agents.config import OF_ENV, SUITE, Training
from llmsched_env.cli.answers import Answer
from llmsched_env.cli.options import (
    Aids,
    Algo,
    Believed,
    Engine,
    Env,
    EnvArguments,
    Horizon,
    Interval,
    Learner,
    Load,
    Minutes,
    NoReport,
    NumEnvs,
    Out,
    PrintOptions,
    Resume,
    Reward,
    Search,
    Seed,
    Seeds,
    Slo,
    Start,
    StepNoise,
    Steps,
    TrainLoad,
    TrainSeeds,
    Trials,
    TuningSeeds,
    Validations,
    Workload,
)
from llmsched_env.cli.run_file import RUN_FILE, command_line, write_run_file

if TYPE_CHECKING:
    from agents.problem import Problem

RUNS = Path("runs")


@dataclass(frozen=True, kw_only=True)
class ProblemOptions(PrintOptions):
    """Environment, requests and runs; None stands for the default of the environment and the learner."""

    env: Env = "BatchQueue"
    workload: Workload | None = None
    engine: Engine | None = None
    step_noise: StepNoise = None
    believed: Believed = None
    load: Load | None = None
    slo: Slo = None
    reward: Reward = None
    interval: Interval = None
    horizon: Horizon | None = None
    tuning_seeds: TuningSeeds | None = None
    trials: Trials | None = None
    seeds: Seeds | None = None
    env_arguments: EnvArguments = field(default_factory=dict)

    def training(self, seed: int) -> Training:
        """What the options say of one training.

        Raises:
            ValueError: naming the field, its value and what is allowed.
        """
        given: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(Training) if hasattr(self, f.name)}
        if self.workload is not None:
            if len(self.workload) != 1:
                raise ValueError(f"--workload must be one preset, one file or {SUITE}, got {','.join(self.workload)}")
            given["workload"] = _absolute(self.workload[0])
        if self.engine is not None:
            given["engine"] = tuple(map(_absolute, self.engine))
        if self.slo is not None:
            given["slo"] = (self.slo.ttft, self.slo.tpot)
        if given.get("start", "tuned") not in ("tuned", "scratch"):
            given["start"] = _absolute(given["start"])
        return Training(**given | {"seed": seed})


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class TrainOptions(ProblemOptions):
    """All of a `Training`, and more."""

    algo: Algo = None
    train_load: TrainLoad = None
    start: Start = "tuned"
    num_envs: NumEnvs = None
    validations: Validations = None
    seed: Seed = 0
    train_seeds: TrainSeeds = 1
    search: Search = None
    steps: Steps = None
    minutes: Minutes = None
    learner: Learner = field(default_factory=dict)
    aids: Aids = field(default_factory=dict)
    resume: Resume = False
    no_report: NoReport = False
    out: Out | None = None


def train(*, options: TrainOptions | None = None) -> Answer:
    """Train a scheduler by PPO, DQN, MaskablePPO or evolution strategies, and compare it with others.

    Training, tuning (with the choice of the checkpoint) and test use disjoint seeds, or parts of a trace.
    """
    from llmsched_env.validation import check_integer

    options = TrainOptions() if options is None else options
    check_integer("--train-seeds", options.train_seeds, at_least=1)
    if options.search is not None:
        return _search(options, check_integer("--search", options.search, at_least=1))
    texts, rows = [], []
    trainings = list(_trainings(options))
    together = trainings[0][1].parent if len(trainings) > 1 else None
    if together is not None:
        write_run_file("train", replace(options, out=together), together)
    for config, folder in trainings:
        text, row, problem = _train(config, folder, options, together)
        texts.append(text)
        rows.append(row)
    command = command_line("train", options)
    if together is not None and not options.no_report:
        from agents.seeds_report import seeds_report

        _printed("Comparing the trainings of all seeds ...")
        text = seeds_report(problem, {config.seed: folder for config, folder in trainings}, together, command)
        texts.append(f"{text}\nReport:       {(together / 'report.html').resolve()}")
    return Answer("\n".join(texts), rows, {"command": command})


def _search(options: TrainOptions, trials: int) -> Answer:
    """The best hyper-parameters of the learner by short trainings."""
    from agents.learner_search import search_settings
    from llmsched_env.evaluation.rendering import rich_text
    from llmsched_env.evaluation.text_tables import TextColumn, fitting_tables

    if options.train_seeds != 1 or options.resume:
        raise ValueError("--search must be given without --train-seeds and --resume; the same command goes on with it")
    config = options.training(options.seed)
    out = options.out or RUNS / f"search-{config.name}"
    found = search_settings(config, trials, out, _printed)
    rows = [{"trial": t.number, "state": t.state, "value": t.value, **t.settings} for t in found.trials]
    ranked = sorted(found.trials, key=lambda trial: (trial.number != found.best.number, trial.number))
    names = TextColumn("Training", [str(trial.number) for trial in ranked])
    columns = [
        TextColumn("best value", ["–" if trial.value is None else f"{trial.value:.6g}" for trial in ranked]),
        TextColumn("state", [trial.state for trial in ranked], "left"),
        *(TextColumn(name, [f"{trial.settings[name]:g}" for trial in ranked]) for name in found.best.settings),
    ]
    best = replace(options, search=None, out=None, learner={**options.learner, **found.best.settings})
    command = command_line("train", best)
    text = f"{rich_text(*fitting_tables('', names, columns))}The best settings stand first:\n{command}"
    return Answer(text, rows, {"command": command, "folder": str(out.resolve())})


def _trainings(options: TrainOptions) -> Iterator[tuple[Training, Path]]:
    """Each training with its folder."""
    from agents.run_folder import MAY_CHANGE, latest, read_config

    if options.resume:
        folder = latest(RUNS) if options.out is None else options.out
        changes = {name: getattr(options, name) for name in MAY_CHANGE if getattr(options, name) is not None}
        if {"steps", "minutes"} & changes.keys():  # a new budget replaces the old one
            changes = {"steps": OF_ENV, "minutes": OF_ENV} | changes
        yield replace(read_config(folder), **changes), folder
        return
    configs = [options.training(options.seed + k) for k in range(options.train_seeds)]
    out = options.out or RUNS / f"{time.strftime('%Y%m%d-%H%M%S')}-{configs[0].name}"
    for config in configs:
        yield config, out if len(configs) == 1 else out / f"seed{config.seed}"


def _train(
    config: Training, folder: Path, options: TrainOptions, together: Path | None
) -> tuple[str, dict[str, Any], "Problem"]:
    """Train, compare and say where everything is: the text, a row of it, and what was trained.

    Args:
        config: of the training.
        folder: of the training.
        options: of the command.
        together: folder of the trainings of all seeds, which share what is tuned; None: there is only this one.
    """
    from agents.training import begin

    own = replace(options, seed=config.seed, train_seeds=1, out=folder)
    try:
        learner = begin(config, folder, _printed, together)
        if not options.resume:
            write_run_file("train", own, folder)
        learner.train()
        problem = learner.problem
        best = folder / problem.best
        row = {"seed": config.seed, "folder": str(folder.resolve()), "policy": str(best.resolve())}
        if options.no_report:
            return _where(best, folder, None), row, problem
        learner.settle()
        _printed("Comparing on test requests ...")
        text = problem.report(best, folder, command_line("train", own))
    except KeyboardInterrupt:
        again = f"--resume --out {folder}" if together is None else f"--config {together / RUN_FILE}"
        _printed(f"\nInterrupted. Go on with: llmsched train {again}")
        raise
    return f"{text}\n{_where(best, folder, folder / 'report.html')}", row, problem


def _where(best: Path, folder: Path, report: Path | None) -> str:
    lines = [] if report is None else [f"Report:       {report.resolve()}"]
    lines.append(f"Policy:       {best.resolve()}  (llmsched evaluate --scheduler FILE)")
    lines.append(f"TensorBoard:  tensorboard --logdir {folder.resolve() / 'tensorboard'}")
    return "\n".join(lines)


def _absolute(name: str) -> str:
    """Files by their absolute path, so that a training goes on from anywhere; other names as they are."""
    return str(Path(name).resolve()) if Path(name).is_file() else name


def _printed(line: str) -> None:
    """Print a line of progress at once, also into a file."""
    print(line, flush=True)
