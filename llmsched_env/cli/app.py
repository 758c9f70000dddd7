"""The command `llmsched`: its subcommands, each imported when it is asked for, and how errors are told."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext, redirect_stdout
from typing import TYPE_CHECKING, Any, NamedTuple

from cyclopts import App, CycloptsError, UnknownCommandError
from cyclopts.config import Dict

from llmsched_env.cli.answers import Answer, print_answer
from llmsched_env.cli.options import PrintOptions
from llmsched_env.cli.run_file import read_config
from llmsched_env.validation import did_you_mean

if TYPE_CHECKING:
    from cyclopts.argument import ArgumentCollection


class Command(NamedTuple):
    """A subcommand: a function of its name in the module of its name.

    Attributes:
        help: what it does.
        examples: ways to call it.
    """

    help: str
    examples: str


COMMANDS = {
    "train": Command(
        "Train a scheduler, and compare it with the baselines.",
        "llmsched train --workload my_trace.csv",
    ),
    "headroom": Command(
        "Measure how much there is to win in an environment.",
        "llmsched headroom --env BatchQueue --workload sharegpt-chat\nllmsched headroom --all --trials 8 --seeds 5",
    ),
    "evaluate": Command(
        "Compare schedulers and trained policies on shared workloads.",
        'llmsched evaluate --scheduler "orca,sarathi(token_budget=256)" --load 0.8,0.95\n'
        "llmsched evaluate --workload trace.csv --load recorded --scheduler pretrained,runs/mine/model.zip",
    ),
    "tune": Command(
        "Find the best parameters of schedulers, and compare them with the defaults.",
        "llmsched tune --scheduler sarathi,vllm_v1 --load 0.9 --objective slo_attainment",
    ),
    "benchmark": Command(
        "Judge learned policies against the best tuned baselines of the suite.",
        "llmsched benchmark --quick\nllmsched benchmark --policies slo_attainment=runs/steered/best.npz",
    ),
    "plan": Command(
        "Plan a fleet: how many replicas of which GPU, and what they cost.",
        "llmsched plan --workload my_trace.csv --slo ttft=1,tpot=0.05 --engine llama-3.1-8b_h100-80gb_tp1_aic=2.9",
    ),
    "calibrate": Command(
        "Fit a GPU profile to your own measurements.",
        "llmsched calibrate batches.csv --save mine.json --plot residuals.png\n"
        "llmsched calibrate steps.csv --base PROFILE --save mine.json\n"
        "llmsched calibrate bench.json --base PROFILE --settings run.meta.json --save mine.json",
    ),
    "reproduce": Command(
        "Reproduce the experiments of arXiv 2504.07347.",
        "llmsched reproduce --only fig8,theorem2",
    ),
    "measured": Command(
        "Compare a measured serving run of vLLM with its simulation.",
        "llmsched measured run.requests.jsonl",
    ),
    "replay": Command(
        "Compare a recording of vLLM's scheduler with ours, step by step.",
        "llmsched replay run.input.json run.trace.jsonl",
    ),
    "profiles": Command(
        "List the GPU profiles that come with the project, or show one.",
        "llmsched profiles h100\nllmsched profiles mine.json",
    ),
    "warmup": Command("Compile everything that a run needs.", "llmsched warmup"),
}
_EXTRAS = {
    **dict.fromkeys(("torch", "stable_baselines3", "sb3_contrib", "tensorboard"), "train"),
    "pandas": "pandas",
    "aiconfigurator_core": "profiles",
}
_OF_THE_CLONE = ("agents", "experiments")  # packages that the wheel leaves out


def build_app() -> App:
    """The parser of all commands. It imports none of them."""
    from llmsched_env import __version__

    app = App(
        name="llmsched",
        help="Simulate, schedule and learn to schedule the batches of an LLM inference engine.",
        version=f"llmsched_env {__version__}",
        config=[_from_config_file],
        help_format="plaintext",
    )
    for name, (text, examples) in COMMANDS.items():
        app.command(f"llmsched_env.cli.{name}:{name}", name=name, help=text, help_epilogue=examples)
    return app


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; returns its exit status."""
    with warnings.catch_warnings():
        warnings.showwarning = _warning_printed  # type: ignore[assignment]
        return _main(list(sys.argv[1:] if arguments is None else arguments))


def _warning_printed(message: Warning | str, *where: Any) -> None:
    """A warning for users, without the line of code that it stands in."""
    print(f"warning: {message}", file=sys.stderr)


def _main(tokens: list[str]) -> int:
    try:
        command, bound, _ = build_app().parse_args(tokens, exit_on_error=False, print_error=False)
        return _run(command, bound.args, bound.kwargs)
    except KeyboardInterrupt:
        return _interrupted()
    except BrokenPipeError:  # the reader of a pipe has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (CycloptsError, ValueError, OSError, ImportError) as error:
        print(f"error: {_one_line(error, tokens)}", file=sys.stderr)
        return 2
    except Exception as error:
        if isinstance(error.__context__, KeyboardInterrupt):  # numba's clean-up fails after one while it compiles
            return _interrupted()
        raise


def _interrupted() -> int:
    print("\nInterrupted. The same command goes on where this one stopped.", file=sys.stderr)
    return 130


def _run(command: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    options = next((value for value in kwargs.values() if isinstance(value, PrintOptions)), None)
    for_machines = options is not None and (options.json or options.csv)
    if options is not None and options.json and options.csv:
        raise ValueError("--json and --csv exclude each other")
    with redirect_stdout(sys.stderr) if for_machines else nullcontext():
        answer = command(*args, **kwargs)
    if isinstance(answer, Answer):
        print_answer(answer, options)
        return answer.status
    return answer if isinstance(answer, int) else 0


def _from_config_file(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Fill in what the file of --config says and the command line does not."""
    given = [argument for argument in arguments if argument.name == "--config" and argument.tokens]
    if not given:
        return
    from pathlib import Path

    path = given[0].tokens[0].value
    known = [argument.name.removeprefix("--") for argument in arguments if argument.name != "--config"]
    Dict(read_config(Path(path), known), source=path, use_commands_as_keys=False)(app, commands, arguments)


def _one_line(error: Exception, tokens: Sequence[str]) -> str:
    if isinstance(error, ImportError):
        return _missing(error, tokens[0])
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, UnknownCommandError):
        return f"unknown command {tokens[0]!r}; {did_you_mean(tokens[0], COMMANDS)}"
    return " ".join(str(error).split())


def _missing(error: ImportError, command: str) -> str:
    """What to do about a package that is not there; errors of our own code are raised again."""
    cause = error.__cause__ if isinstance(error.__cause__, ImportError) else error
    package = (cause.name or "").split(".")[0]
    if package in _OF_THE_CLONE or cause.name == f"llmsched_env.cli.{command}":
        return (
            f"llmsched {command} is used from a clone of the repository: git clone, make train, "
            f"then .venv/bin/llmsched {command}; see README"
        )
    if package in _EXTRAS:
        return f'{package} is not installed: pip install "llmsched_env[{_EXTRAS[package]}]"'
    if package:
        raise error
    return " ".join(str(error).split())


if __name__ == "__main__":
    sys.exit(main())
