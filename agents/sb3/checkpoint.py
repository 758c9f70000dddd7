"""Trained agents on disk: Stable-Baselines3's zip file with one more member that says what the agent is."""

import json
import math
import platform
import zipfile
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any, Self

import gymnasium
import numba
import numpy
import stable_baselines3
import torch
from stable_baselines3.common.base_class import BaseAlgorithm

import llmsched_env
from agents.sb3.controller import PolicyController, PolicyNetwork
from llmsched_env.envs.actions import Arms
from llmsched_env.envs.batch_queue import FEATURES, Knobs, parametric
from llmsched_env.files import write_bytes
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.validation import check_number

_MEMBER = "agent.json"
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class AgentMeta:
    """What an agent is beyond its weights.

    Attributes:
        name: what reports call it.
        knobs: levels of its actions.
        interval: time between its decisions, s; None decides before every batch.
        training: how it was trained (configuration, steps, seeds, versions, ...): anything that JSON holds.
        arms: settings of the knobs among which it chooses; None: it sets each knob.
    """

    name: str
    knobs: Knobs
    interval: float | None
    training: dict[str, Any] = field(default_factory=dict)
    arms: tuple[tuple[int, ...], ...] | None = None

    @property
    def actions(self) -> Knobs | Arms:
        """What its network chooses among."""
        return self.knobs if self.arms is None else Arms(self.knobs, self.arms)

    def to_json(self) -> str:
        """As text; an unlimited number of admitted requests is null."""
        record = {
            "format": _FORMAT,
            "name": self.name,
            "interval": self.interval,
            "token_budgets": self.knobs.token_budgets,
            "admission_limits": [None if math.isinf(limit) else limit for limit in self.knobs.admission_limits],
            "features": [feature.name for feature in FEATURES],
            "training": self.training,
        }
        if self.arms is not None:
            record["arms"] = self.arms
        return json.dumps(record, indent=1, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """What `to_json` wrote.

        Raises:
            ValueError: if the text is something else, or the agent observes other features than these.
        """
        try:
            record = json.loads(text)
            if record["format"] != _FORMAT:
                raise ValueError(f"its format is {record['format']!r}, this version reads {_FORMAT}")
            known = [feature.name for feature in FEATURES]
            if record["features"] != known:
                raise ValueError(f"its features must be those of this version, {known}, got {record['features']}")
            if record["interval"] is not None:
                check_number("interval", record["interval"], above=0, unit="s")
            limits = tuple(math.inf if limit is None else limit for limit in record["admission_limits"])
            knobs = Knobs(tuple(record["token_budgets"]), limits)
            arms = tuple(tuple(map(int, arm)) for arm in record["arms"]) if "arms" in record else None
            meta = cls(str(record["name"]), knobs, record["interval"], record["training"], arms)
            _ = meta.actions  # refuses arms that are no settings of the knobs
            return meta
        except (KeyError, TypeError) as error:
            raise ValueError(f"its description is malformed: {error!r}") from None


def versions() -> dict[str, str]:
    """Versions of what training depends on."""
    packages = (llmsched_env, stable_baselines3, torch, numpy, numba, gymnasium)
    return {"python": platform.python_version()} | {package.__name__: package.__version__ for package in packages}


def save_agent(model: BaseAlgorithm, path: str | Path, meta: AgentMeta) -> Path:
    """Write weights, optimizer state and description to one file, all or nothing.

    The file is also what `PPO.load`, or `DQN.load`, reads.

    Raises:
        ValueError: if the model's policy or action space is not one that `load_agent` could run.
    """
    if getattr(model.policy, "activation_fn", None) is not torch.nn.Tanh:
        raise ValueError(f"policy must be an MLP with tanh activation, got {type(model.policy).__name__}")
    PolicyNetwork.from_state(model.policy.state_dict(), meta.actions.sizes)
    return save_with(model, Path(path), _MEMBER, meta.to_json())


def save_with(model: BaseAlgorithm, path: Path, member: str, text: str) -> Path:
    """Write a model's file with one more member, all or nothing."""
    content = BytesIO()
    model.save(content)
    with zipfile.ZipFile(content, "a") as archive:
        archive.writestr(member, text)
    write_bytes(path, content.getvalue())
    return path


def read_meta(path: str | Path) -> AgentMeta:
    """The description of an agent.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is no agent that `save_agent` wrote.
    """
    return _read(Path(path))[0]


def read_weights(path: str | Path) -> dict[str, torch.Tensor]:
    """The weights of an agent, as the `state_dict` of its policy.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is no agent that `save_agent` wrote.
    """
    return _read(Path(path))[1]


def load_agent(path: str | Path) -> Scheduler:
    """The scheduler that an agent is: `parametric`, its parameters set by the policy's most probable actions.

    Only weights and JSON are read, no pickled code.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is no agent that `save_agent` wrote.
    """
    meta, state = _read(Path(path))
    try:
        network = PolicyNetwork.from_state(state, meta.actions.sizes)
        if network.num_features != len(FEATURES):
            raise ValueError(f"it observes {network.num_features} features, not {len(FEATURES)}")
    except ValueError as error:
        raise ValueError(f"{path} is no trained agent: {error}") from None
    controller = PolicyController(network, meta.actions, meta.interval)
    return replace(parametric, name=meta.name, controller=controller, reference=f"trained agent {path}")


def as_scheduler(model: BaseAlgorithm, meta: AgentMeta) -> Scheduler:
    """The scheduler that a model is now."""
    actions = meta.actions
    network = PolicyNetwork.from_state(model.policy.state_dict(), actions.sizes)
    return replace(parametric, name=meta.name, controller=PolicyController(network, actions, meta.interval))


def _read(path: Path) -> tuple[AgentMeta, dict[str, Any]]:
    if not path.is_file():
        raise FileNotFoundError(f"there is no agent at {path}")
    try:
        with zipfile.ZipFile(path) as archive:
            meta = AgentMeta.from_json(archive.read(_MEMBER).decode())
            state = torch.load(BytesIO(archive.read("policy.pth")), map_location="cpu", weights_only=True)
    except zipfile.BadZipFile:
        raise ValueError(f"{path} is no trained agent: not a zip file") from None
    except KeyError as error:
        raise ValueError(f"{path} is no trained agent: {error.args[0]}") from None
    except ValueError as error:
        raise ValueError(f"{path} is no trained agent: {error}") from None
    return meta, state
