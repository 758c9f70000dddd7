"""The options of all commands, each defined once: its format, what it is called in help, and what it means.

The option `--kv-blocks` is the type `KvBlocks`, and the field `kv_blocks` of the options of a command. Groups that
several commands share are data classes, from which the options of these commands derive. Annotations are evaluated
(no `from __future__ import annotations` here and in the commands): cyclopts reads them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Group, Parameter

from llmsched_env.cli import formats
from llmsched_env.slo import SLO

DEFAULT_ENGINE = "llama-3.1-8b_h100-80gb_tp1_aic"

WORKLOAD = Group.create_ordered("Workload")
ENGINE = Group.create_ordered("Engine")
SCHEDULERS = Group.create_ordered("Schedulers")
TRAINING = Group.create_ordered("Training")
EFFORT = Group.create_ordered("Effort")
INPUT = Group.create_ordered("Input")
MAKING = Group.create_ordered("A new profile")
OUTPUT = Group.create_ordered("Output")


def option(
    group: Group, metavar: str | None, help: str, parse: Callable[[str], Any] | None = None, **more: Any
) -> Parameter:
    """An option of one token, whose default is shown as it would be typed.

    Args:
        group: under which heading it stands in the help.
        metavar: what stands for its value in the help; None for flags.
        help: what it means.
        parse: from its text to its value; None: by its type.
        more: further arguments of `Parameter`.
    """
    if parse is not None:
        more |= {"converter": formats.converter(parse), "n_tokens": 1, "accepts_keys": False, "show_choices": False}
    return Parameter(group=group, metavar=metavar, help=help, show_default=_shown, negative=(), **more)


def _shown(value: Any) -> str | None:
    return None if value in (None, False, (), {}) else formats.text_of(value)


Names = tuple[str, ...]
Loads = tuple[float | Literal["recorded"], ...]

# What is served.
Workload = Annotated[
    Names, option(WORKLOAD, "NAME|FILE,...", "Presets and trace files; FILE#2: its second run.", formats.names)
]
Horizon = Annotated[float, option(WORKLOAD, "S", "Seconds of arrivals of presets; traces are run whole.")]
Rate = Annotated[float | None, option(WORKLOAD, "R", "Requests/s, instead of the workload's own.")]
Load = Annotated[
    Loads,
    option(WORKLOAD, "X,...", "Rates over the reference capacity; recorded: as the workload is.", formats.loads),
]
Concurrency = Annotated[
    int | None,
    option(
        WORKLOAD,
        "N",
        "N users in a closed loop in place of the arrivals, each of whom sends the next request when the last one has "
        "ended: for --horizon, or once through a trace.",
    ),
]
Slo = Annotated[
    SLO | None,
    option(
        WORKLOAD,
        "ttft=S,tpot=S",
        "Targets of all requests in seconds, also e2el=S [default: the workload's; a trace without: ttft=1,tpot=0.1].",
        formats.limits,
    ),
]
Predict = Annotated[
    dict[str, float] | None,
    option(
        WORKLOAD,
        "MEASURE=X",
        "Predict output lengths, with an error such that kendall=X or spearman=X is the rank correlation with the true "
        "ones, or log_sd=X the deviation of log(predicted/true).",
        formats.quality,
    ),
]
SkipBadRows = Annotated[bool, option(WORKLOAD, None, "List malformed rows of files, do not refuse them.")]
TimeUnit = Annotated[
    Literal["s", "ms", "us", "ns"] | None,
    option(WORKLOAD, None, "Unit of recorded times [default: recognised, or as the format documents]."),
]
BlockTokens = Annotated[
    int | None, option(WORKLOAD, "N", "Tokens per block of hash_ids in traces [default: recognised].")
]

# On what.
Engine = Annotated[
    Names,
    option(
        ENGINE,
        "NAME|FILE,...",
        "GPU profiles, see llmsched profiles; for llmsched plan with the price per hour: NAME=PRICE,...",
        formats.names,
    ),
]
KvBlocks = Annotated[int | None, option(ENGINE, "N", "KV blocks [default: what the GPU's memory leaves].")]
PrefixCaching = Annotated[bool, option(ENGINE, None, "Reuse KV blocks of common prompt prefixes.")]
ScheduleAhead = Annotated[bool, option(ENGINE, None, "Decide a batch while the one before runs, as vLLM does.")]
StepNoise = Annotated[
    float | None,
    option(
        ENGINE,
        "X",
        "Scatter of step times, the same under every scheduler: standard deviation of their logarithm [default: that "
        "of a calibrated profile, or 0].",
    ),
]
Believed = Annotated[
    str | None,
    option(
        ENGINE,
        "X|NAME|FILE",
        "What schedulers predict step times with: X times those of the engine, or another profile [default: what the "
        "engine has, unless its profile says otherwise].",
    ),
]

# By whom.
Scheduler = Annotated[
    Names,
    option(
        SCHEDULERS,
        "LIST",
        'Names, with parameters if wanted: "sarathi(token_budget=256)"; of pretrained policies: slo_pausing; '
        "pretrained: all of these; files of trained ones: my.zip, best.npz. Of the benchmark the baselines to tune; "
        "all: every registered one.",
        formats.names,
    ),
]
Reference = Annotated[
    str | None,
    option(SCHEDULERS, "NAME", "The scheduler that the others are compared with [default: sarathi, if it runs]."),
]
Objective = Annotated[
    Names,
    option(SCHEDULERS, "NAME,...", "What is optimised: slo_attainment, mean_e2el, p99_ttft, ...", formats.names),
]
Router = Annotated[str, option(SCHEDULERS, "NAME", "Which replica gets a request; pretrained: the trained router.")]
Policies = Annotated[
    Mapping[str, str] | None,
    option(
        SCHEDULERS,
        "OBJECTIVE=SCHEDULER,...",
        "The policies to judge [default: slo_attainment=slo,mean_e2el=latency,p99_ttft=slo].",
        formats.pairs,
    ),
]
Beside = Annotated[
    Names,
    option(SCHEDULERS, "LIST", "Schedulers written after a policy: tested with it, but no baselines.", formats.names),
]

# How much work.
Seeds = Annotated[int, option(EFFORT, "N", "Test seeds of random workloads.")]
TuningSeeds = Annotated[int, option(EFFORT, "N", "Seeds of random workloads to tune on.")]
All = Annotated[bool, option(TRAINING, None, "Every environment, each with its own defaults where not given.")]
Policy = Annotated[
    Path | None,
    option(TRAINING, "FILE", "The best policy known [default: the best shipped one of the environment's kind]."),
]
TrainSeeds = Annotated[int, option(EFFORT, "N", "Trainings, each from a seed of its own.")]
Search = Annotated[
    int | None,
    option(EFFORT, "N", "Search the learner's hyper-parameters by N trainings of --minutes or --steps each (Optuna)."),
]
Trials = Annotated[
    int,
    option(
        EFFORT,
        "N",
        "Settings to try of each scheduler (training and headroom: at each load, 0: none is tuned); of the benchmark "
        "half for p99_ttft.",
    ),
]
IndexTrials = Annotated[int, option(EFFORT, "N", "Settings of the static index policy, around those of the policy.")]
Target = Annotated[float, option(EFFORT, "X", "Share of requests that must meet their targets.")]
MostReplicas = Annotated[int, option(EFFORT, "N", "Where the search for the number of replicas ends.")]
Stage = Annotated[
    str,
    option(EFFORT, "NAME", "all, or one: tune, test, random, azure, cluster, networks, routers, report."),
]
Cells = Annotated[int | None, option(EFFORT, "N", "Cells of the suite, spread over it [default: all].")]
RandomSites = Annotated[int, option(EFFORT, "N", "Sites drawn at random, unseen in development, the loads in turn.")]
SitesFrom = Annotated[
    int, option(EFFORT, "K", "Number of the first random site; a look after a policy was changed takes new ones.")
]
Clusters = Annotated[int | None, option(EFFORT, "N", "Clusters, spread over those of the suite [default: all].")]
NetworkRuns = Annotated[int, option(EFFORT, "N", "Held-out runs of each scheduler of the agent network.")]
RouterSeeds = Annotated[int, option(EFFORT, "N", "Test seeds of each cluster of the comparison of routers.")]
Quick = Annotated[bool, option(EFFORT, None, "A short run of everything: few cells, trials and seeds, no traces.")]
Only = Annotated[Names, option(EFFORT, "NAME,...", "Experiments to run and report [default: all].", formats.names)]

Users = Annotated[
    dict[str, float] | None,
    option(
        EFFORT,
        "LIMIT=S,...",
        "Find the most users in a closed loop that --replicas machines serve with, say, p95_ttft=0.5: mean, median, "
        "p90, p95 or p99 of ttft, tpot or e2el, in seconds.",
        formats.bounds,
    ),
]
Replicas = Annotated[int, option(ENGINE, "N", "Machines of the fleet whose users are sought.")]

# What is trained, and how.
Env = Annotated[
    str, option(TRAINING, "NAME", "Environment: BatchQueue, IndexPolicy, RequestSelection, Cluster or AgentNetwork.")
]
Algo = Annotated[str | None, option(TRAINING, "NAME", "Learner: ppo, dqn, maskable_ppo, es [default: the usual one].")]
TrainLoad = Annotated[
    tuple[float, ...] | None,
    option(TRAINING, "LOW,HIGH", "Loads of training episodes, as shares of the reference capacity.", formats.numbers),
]
Reward = Annotated[str | None, option(TRAINING, "NAME", "Of the environment: latency, slo; networks: calls, tasks.")]
Start = Annotated[
    str,
    option(
        TRAINING,
        "tuned|scratch|FILE",
        "What the policy starts from: the neutral action, the best static setting of knobs, or a plain rule; a random "
        "policy, where a gradient learner trains it; the file of a policy.",
    ),
]
Interval = Annotated[
    float | None, option(TRAINING, "S", "Seconds between decisions; 0: before every batch, or whenever one is due.")
]
NumEnvs = Annotated[int | None, option(TRAINING, "N", "Environments in parallel.")]
Validations = Annotated[int | None, option(TRAINING, "N", "How often a learner with gradients validates.")]
Seed = Annotated[int, option(TRAINING, "N", "Of the training, or of the first of several.")]
Steps = Annotated[int | None, option(TRAINING, "N", "Environment steps; repeatable, unlike a time limit. Not for es.")]
Minutes = Annotated[
    float | None,
    option(TRAINING, "M", "Wall-clock time [default: 5, unless steps are given]. Not for es."),
]
Learner = Annotated[
    dict[str, Any],
    option(
        TRAINING,
        "NAME=X,...",
        "Hyper-parameters that differ from the tuned ones: ent_coef=0.01,net_arch=64:64; of es generations=20.",
        formats.settings,
    ),
]
Aids = Annotated[
    dict[str, Any],
    option(
        TRAINING,
        "NAME=X,...",
        "Learning aids: reference=1,shared_traces=4,curriculum=0.5,curriculum_start=0.25,anchor=0.1.",
        formats.settings,
    ),
]
EnvArguments = Annotated[
    dict[str, Any],
    option(
        TRAINING,
        "NAME=X,...",
        "Arguments of the environment: slots=32,token_budgets=256:512.",
        formats.settings,
    ),
]
Resume = Annotated[
    bool,
    option(
        TRAINING,
        None,
        "Go on with the training in --out, or with the latest in runs/; of other options only --steps, --minutes (for "
        "all of it) and --seeds count.",
    ),
]
NoReport = Annotated[bool, option(OUTPUT, None, "Train only: no comparison on test requests, and no report.")]

# From where.
Measurements = Annotated[
    Path,
    option(INPUT, "FILE", "CSV of batches; with --base also a result of vllm bench serve, or NAME.requests.jsonl."),
]
ServingRuns = Annotated[
    Names,
    option(
        INPUT,
        "RUN,...",
        "NAME.requests.jsonl with NAME.meta.json beside it, a folder with requests.jsonl and meta.json, or a result of "
        "vllm bench serve --save-detailed with --settings.",
        formats.names,
    ),
]
Evidence = Annotated[
    Path | None,
    option(
        INPUT,
        "FILE.json",
        "Simulate the runs of this file again where --data has their files, and write it and its page, FILE.md.",
    ),
]
Data = Annotated[Names, option(INPUT, "FOLDER,...", "Where the files of the runs of --evidence lie.", formats.names)]
RecordedInput = Annotated[Path, option(INPUT, "FILE", "NAME.input.json: settings, batch times and requests.")]
RecordedTrace = Annotated[Path, option(INPUT, "FILE", "NAME.trace.jsonl or .gz: what vLLM decided.")]
Profile = Annotated[str | None, option(INPUT, "NAME|FILE", "One to show, or a part of the names of those to list.")]
CanMake = Annotated[
    bool,
    option(
        MAKING, None, "List the models and systems that profiles can be made of, or those whose names contain PROFILE."
    ),
]
Make = Annotated[
    str | None,
    option(
        MAKING,
        "MODEL|FOLDER",
        "Make the profile of a model on --system, and keep it: Qwen/Qwen3-30B-A3B, or a folder with config.json.",
    ),
]
System = Annotated[str | None, option(MAKING, "NAME", "The GPU type that it runs on, such as h100_sxm.")]
Tp = Annotated[int, option(MAKING, "N", "GPUs of the engine (tensor parallel degree).")]
Ep = Annotated[int, option(MAKING, "N", "Of these, how many the experts are spread over.")]
Backend = Annotated[str, option(MAKING, "NAME", "Whose kernels were measured: vllm, sglang or trtllm.")]
Traces = Annotated[
    Path | None,
    option(INPUT, "FOLDER", "Slices of the Azure trace [default: $LLMSCHED_TRACES/azure_2023; without: left out]."),
]
Form = Annotated[str, option(INPUT, "NAME", "Form of the law: auto, roofline, staircase, hinge or tabulated.")]
RowsOf = Annotated[str | None, option(INPUT, "NAME", "Which profile of the CSV, where it has several.")]
MemoryOf = Annotated[str | None, option(INPUT, "PROFILE", "The profile whose model, GPU and memory the new one has.")]
KvTokens = Annotated[int | None, option(INPUT, "N", "Tokens that the KV cache holds.")]
Base = Annotated[str | None, option(INPUT, "PROFILE", "The known profile that is made to fit an engine.")]
Belief = Annotated[
    str | None,
    option(INPUT, "NAME", "With --base, what schedulers predict with: measured, or the unchanged profile [measured]."),
]
Settings = Annotated[
    Path | None, option(INPUT, "FILE", "JSON of the run's engine settings: batch limits and KV blocks.")
]

# Where to.
Out = Annotated[Path, option(OUTPUT, "FOLDER", "Where results go; the same command goes on where it stopped.")]
Save = Annotated[Path | None, option(OUTPUT, "FILE.json", "The profile to write; --engine takes it.")]
Plot = Annotated[Path | None, option(OUTPUT, "FILE", "Plot of the residuals.")]
Json = Annotated[bool, option(OUTPUT, None, "Print the result as JSON, and nothing else on stdout.")]
Csv = Annotated[bool, option(OUTPUT, None, "Print the rows as CSV, and nothing else on stdout.")]
Config = Annotated[
    Path | None,
    option(OUTPUT, "FILE.toml", "Options by name; those on the command line win. A run keeps its own in OUT/run.toml."),
]


@dataclass(frozen=True, kw_only=True)
class PrintOptions:
    """How the result is printed, and where options come from: of every command."""

    json: Json = False
    csv: Csv = False
    config: Config = None


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """The machine."""

    engine: Engine = (DEFAULT_ENGINE,)
    kv_blocks: KvBlocks = None
    prefix_caching: PrefixCaching = False
    schedule_ahead: ScheduleAhead = False
    step_noise: StepNoise = None
    believed: Believed = None


@dataclass(frozen=True, kw_only=True)
class WorkloadOptions:
    """What is served."""

    workload: Workload = ("azure-chat",)
    horizon: Horizon = 120.0
    slo: Slo = None
    predict: Predict = None
    concurrency: Concurrency = None
    skip_bad_rows: SkipBadRows = False
    time_unit: TimeUnit = None
    block_tokens: BlockTokens = None
