"""Options in files: `--config FILE.toml` reads them, and every command that writes a folder keeps its own there."""

from __future__ import annotations

import shlex
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

from llmsched_env.cli.formats import text_of
from llmsched_env.cli.options import PrintOptions
from llmsched_env.validation import check_choice

RUN_FILE = "run.toml"
_OF_ONE_RUN = {field.name for field in fields(PrintOptions)}  # they change nothing of the result


def write_run_file(command: str, options: Any, folder: Path, **arguments: object) -> Path:
    """Keep the effective options of a run, so that `llmsched COMMAND --config FOLDER/run.toml` repeats it.

    Args:
        command: its name.
        options: its options, a data class.
        folder: where to write `run.toml`.
        arguments: of the command beside its options, by name.
    """
    from llmsched_env.files import write_text

    lines = [f"# llmsched {command} --config {shlex.quote(str(folder / RUN_FILE))}"]
    for name, value in {**arguments, **_values(options)}.items():
        if value not in (None, (), {}):
            lines.append(f"{name.replace('_', '-')} = {_toml(value)}")
    write_text(folder / RUN_FILE, "\n".join(lines) + "\n")
    return folder / RUN_FILE


def command_line(command: str, options: Any, *arguments: object) -> str:
    """The command with all options that differ from their defaults, as it can be typed."""
    words = ["llmsched", command, *map(str, arguments)]
    defaults = type(options)()
    for name, value in _values(options).items():
        if value != getattr(defaults, name):
            flag = f"--{name.replace('_', '-')}"
            words += [flag] if value is True else [flag, text_of(value)]
    return shlex.join(words)


def read_config(path: Path, known: list[str]) -> dict[str, str | bool]:
    """The options of a TOML file, by name, each as it would be typed.

    An array stands for a list separated by commas, a table for NAME=VALUE pairs.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not TOML, or names an option that is none of `known`.
    """
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} must be TOML: {error}") from None
    for name in found:
        check_choice(f"option in {path}", name.replace("_", "-"), known)
    return {
        name.replace("_", "-"): value if isinstance(value, bool) else text_of(value) for name, value in found.items()
    }


def _values(options: Any) -> dict[str, Any]:
    return {f.name: getattr(options, f.name) for f in fields(options) if f.name not in _OF_ONE_RUN}


def _toml(value: Any) -> str:
    if isinstance(value, bool) or (isinstance(value, int | float) and text_of(value).replace(".", "").isdigit()):
        return text_of(value)
    text = text_of(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'
