"""How environments are made and described: from a dataclass of arguments, with their tables in the docstring."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from llmsched_env.envs.rewards import Reward
from llmsched_env.features import Feature, markdown_table
from llmsched_env.validation import check_integer

_P = ParamSpec("_P")
_Env = TypeVar("_Env")
_Arguments = TypeVar("_Arguments")


@dataclass(frozen=True)
class SingleArguments:
    """Arguments that every single environment has in addition to its own."""

    _: KW_ONLY
    record: str = "off"
    render_mode: str | None = None


@dataclass(frozen=True)
class VectorArguments:
    """Arguments that every vector environment has in addition to its own."""

    num_envs: int = 1

    def __post_init__(self) -> None:
        check_integer("num_envs", self.num_envs, at_least=1)


def built_from(
    arguments: Callable[_P, _Arguments],
) -> Callable[[Callable[[_Env, _Arguments], None]], Callable[Concatenate[_Env, _P], None]]:
    """Decorator of a constructor that takes one dataclass: callers give its fields, under their names, instead."""

    def decorate(construct: Callable[[_Env, _Arguments], None]) -> Callable[Concatenate[_Env, _P], None]:
        @wraps(construct)
        def __init__(self: _Env, *args: _P.args, **kwargs: _P.kwargs) -> None:
            given = arguments(*args, **kwargs)
            self._given = given  # type: ignore[attr-defined]  # by `Pickled`
            construct(self, given)

        owner = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        signature = inspect.signature(arguments)
        __init__.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[owner, *signature.parameters.values()], return_annotation=None
        )
        return cast(Callable[Concatenate[_Env, _P], None], __init__)

    return decorate


def documented(**tables: Sequence[Feature] | Sequence[Reward] | int) -> Callable[[type[_Env]], type[_Env]]:
    """Class decorator: put tables of features and of rewards in place of `{name}` in the docstring, and numbers too."""

    def decorate(cls: type[_Env]) -> type[_Env]:
        text = cls.__doc__ or ""
        for name, table in tables.items():
            text = text.replace(f"{{{name}}}", str(table) if isinstance(table, int) else _indented(table))
        cls.__doc__ = text
        return cls

    return decorate


def _indented(table: Sequence[Any]) -> str:
    if isinstance(table[0], Reward):
        rows = [f"| `{reward.name}` | {reward.meaning} | {reward.unit} |" for reward in table]
    else:
        rows = markdown_table(table).splitlines()
    return "\n    ".join(rows)
