"""Simulate, schedule and learn to schedule the batches of an LLM inference engine.

A public name is imported from its module when it is first used, so `import llmsched_env` takes a few milliseconds and
needs no other package. `__init__.pyi` lists the names.
"""

import os
from importlib import import_module

from llmsched_env import gymnasium_hook

__version__ = "0.1.0"


def _listed() -> dict[str, str]:
    """The module of each name in `__init__.pyi`, whose lines read `from MODULE import NAME as NAME`."""
    with open(os.path.join(os.path.dirname(__file__), "__init__.pyi"), encoding="utf-8") as stub:
        lines = [line.split() for line in stub]
    return {line[3]: line[1] for line in lines if line[:1] == ["from"]}


_MODULES = _listed()
__all__ = sorted(_MODULES)


def __getattr__(name: str) -> object:
    module = _MODULES.get(name, __name__)
    if module != __name__:
        value = getattr(import_module(module), name)
    elif name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    else:
        value = _submodule(name)
    globals()[name] = value
    return value


def _submodule(name: str) -> object:
    path = f"{__name__}.{name}"
    try:
        return import_module(path)
    except ModuleNotFoundError as error:
        if error.name != path:
            raise  # the module is there; one that it needs is not
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


gymnasium_hook.install()
