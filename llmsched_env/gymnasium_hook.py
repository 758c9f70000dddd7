"""Registers the environments with Gymnasium, which has no entry points for plugins, without importing it.

If Gymnasium is there already, they are registered at once; otherwise as soon as it is imported.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType

_REGISTRY = "gymnasium.envs.registration"
_ENVS = "llmsched_env.envs"  # registers them when it is imported, and imports nothing but the registry


class _AfterRegistry:
    """Finds Gymnasium's registry as the other finders do, and has our environments imported after it."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != _REGISTRY:
            return None
        others = (finder.find_spec(name, path, target) for finder in sys.meta_path if finder is not self)
        spec = next((spec for spec in others if spec is not None), None)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                import_module(_ENVS)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def install() -> None:
    """Register the environments now or as soon as Gymnasium is imported."""
    if _REGISTRY in sys.modules:
        import_module(_ENVS)
    else:
        sys.meta_path.insert(0, _AfterRegistry())
