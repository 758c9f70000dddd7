"""Schedulers by what a user writes for them: a name, a name with parameters, or the file of a trained policy."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from pathlib import Path

import baselines
from llmsched_env.policies import learned_index, pretrained
from llmsched_env.policies.index import index
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.validation import check_choice

ALL_PRETRAINED = "pretrained"
"""In a list of schedulers: the trained policies of single engines that come with the project."""


def schedulers_by_name(items: Iterable[str]) -> dict[str, Scheduler]:
    """The schedulers of a list such as `orca`, `sarathi(token_budget=256)`, `slo_pausing`, `pretrained`, `my.zip`.

    Returns:
        By what was written for each; files by their last folder and name.

    Raises:
        ValueError: for an unknown name or parameter (the message proposes the closest), or a malformed item.
        FileNotFoundError: for a file that is not there.
    """
    found: dict[str, Scheduler] = {}
    for item in items:
        if item == ALL_PRETRAINED:
            found |= {name: pretrained.load(name) for name in pretrained.NAMES}
        else:
            found[_title(item) if is_file(item) else item] = scheduler_by_name(item)
    return found


def scheduler_by_name(item: str) -> Scheduler:
    """The scheduler of one item of such a list.

    Raises:
        ValueError: as for `schedulers_by_name`.
        FileNotFoundError: for a file that is not there.
    """
    if is_file(item):
        return _from_file(Path(item))
    name, bracket, _ = item.partition("(")
    known = (*baselines.REGISTRY, index.name, *pretrained.NAMES)
    check_choice("scheduler", name, known)
    if name in pretrained.NAMES:
        scheduler = pretrained.load(name)
    else:
        scheduler = index if name == index.name else baselines.get(name)
    return scheduler(**_parameters(item)) if bracket else scheduler


def is_file(item: str) -> bool:
    """Whether an item stands for a file: it has a suffix or a folder, and no parameters."""
    return "(" not in item and (bool(Path(item).suffix) or "/" in item)


def _title(item: str) -> str:
    return "/".join(Path(item).with_suffix("").parts[-2:])


def _parameters(item: str) -> dict[str, float]:
    try:
        call = ast.parse(item, mode="eval").body
        if not isinstance(call, ast.Call) or call.args:
            raise SyntaxError
        values = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
    except (SyntaxError, ValueError):
        raise ValueError(f"scheduler {item!r} must be like sarathi(token_budget=256)") from None
    return values


def _from_file(path: Path) -> Scheduler:
    if path.suffix not in (".zip", ".npz"):
        raise ValueError(f"scheduler {str(path)!r} must be a file .zip (a trained policy) or .npz (an index policy)")
    if not path.is_file():
        raise FileNotFoundError(f"scheduler {str(path)!r}: there is no such file")
    if path.suffix == ".npz":
        return learned_index.load(path)
    from llmsched_env.envs.as_scheduler import as_scheduler  # here, so that comparing rules does not need Gymnasium

    return as_scheduler(path)
