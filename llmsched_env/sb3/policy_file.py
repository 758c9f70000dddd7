"""Trained policies on disk: a zip file of Stable-Baselines3, or of an `MLP`, with a description of what it is.

Reading takes weights and JSON from it. Nothing in the file is run, and neither torch nor Stable-Baselines3 is needed.
"""

import json
import math
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, Self

import numpy as np
from gymnasium.spaces import Box, Discrete, MultiDiscrete, Space

from llmsched_env.files import parse_json, write_bytes
from llmsched_env.sb3.mlp import MLP
from llmsched_env.sb3.mlp_policies import ALTERNATIVE, Network, network_of
from llmsched_env.sb3.normalization import Normalization
from llmsched_env.sb3.unpickling import read_tensors

_DESCRIPTION, _NETWORK, _NORMALIZATION = "policy.json", "policy.npz", "normalization.npz"
_FORMAT = 1
_MALFORMED = zipfile.BadZipFile | zlib.error | EOFError | OSError | OverflowError | RuntimeError
"""What reading a member of a zip file that was tampered with may raise, `ValueError` besides."""


@dataclass(frozen=True)
class PolicyDescription:
    """What a policy is beyond its weights.

    Attributes:
        name: what reports call it.
        env: id of the environment that it was trained in.
        env_arguments: those arguments of the environment that decide what actions mean and when they are due.
        features: names of what it observes, in order; empty: not recorded.
        training: how it was trained (configuration, steps, versions, ...): anything that JSON holds.
        format: of the file.
    """

    name: str
    env: str
    env_arguments: Mapping[str, Any] = field(default_factory=dict)
    features: tuple[str, ...] = ()
    training: Mapping[str, Any] = field(default_factory=dict)
    format: int = _FORMAT

    def to_json(self) -> str:
        """As text. Lists stand for tuples and arrays, and "inf" for an infinite number."""
        record = {
            "format": self.format,
            "name": self.name,
            "env": self.env,
            "env_arguments": {name: _to_plain(value) for name, value in self.env_arguments.items()},
            "features": list(self.features),
            "training": dict(self.training),
        }
        try:
            return json.dumps(record, indent=1, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"a description must be of what JSON holds: {error}") from None

    @classmethod
    def from_json(cls, text: str) -> Self:
        """What `to_json` wrote.

        Raises:
            ValueError: if it is something else, or of another format.
        """
        try:
            record = parse_json(text, "its description")
            if record["format"] != _FORMAT:
                raise ValueError(f"its format is {record['format']!r}, this version reads {_FORMAT}")
            for name, kind in (("name", str), ("env", str), ("env_arguments", dict), ("features", list)):
                if not isinstance(record[name], kind):
                    raise ValueError(f"its {name} must be a {kind.__name__}, got {record[name]!r}")
            arguments = {name: _from_plain(value) for name, value in record["env_arguments"].items()}
            return cls(record["name"], record["env"], arguments, tuple(record["features"]), record["training"])
        except KeyError as error:
            raise ValueError(f"its description has no {error}") from None
        except TypeError as error:
            raise ValueError(f"its description is malformed: {error}") from None


def _to_plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_to_plain(item) for item in value]
    return "inf" if isinstance(value, float) and value == math.inf else value


def _from_plain(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_from_plain(item) for item in value)
    return math.inf if value == "inf" else value


def save_policy(
    path: str | Path, description: PolicyDescription, *, model: Any = None, network: MLP | None = None
) -> Path:
    """Write a policy and its description to one file, all or nothing; folders above it are created.

    Args:
        path: of the file.
        description: what the policy is.
        model: of Stable-Baselines3. The file is also what its `load` reads. The statistics of its `VecNormalize`, if it
            is trained with one, are stored with it.
        network: instead of a model.

    Raises:
        ValueError: if not exactly one of `model` and `network` is given, or the description is not of what JSON holds.
    """
    if (model is None) == (network is None):
        raise ValueError("save_policy takes a model or a network: one of both")
    members = {_DESCRIPTION: description.to_json().encode()}
    content = BytesIO()
    if network is not None:
        members[_NETWORK] = _network_bytes(network)
    else:
        model.save(content)
        normalization = normalization_of(model)
        if normalization is not None:
            members[_NORMALIZATION] = normalization.to_bytes()
    with zipfile.ZipFile(content, "a") as archive:
        for name, member in members.items():
            archive.writestr(name, member)
    write_bytes(Path(path), content.getvalue())
    return Path(path)


def normalization_of(model: Any) -> Normalization | None:
    """That of the `VecNormalize` that a model of Stable-Baselines3 is trained with, if there is one."""
    wrapper = model.get_vec_normalize_env() if hasattr(model, "get_vec_normalize_env") else None
    return None if wrapper is None else Normalization.of(wrapper)


@dataclass(frozen=True, slots=True)
class PolicyFile:
    """What a file holds.

    Attributes:
        description: None if it has none, as files that `model.save` of Stable-Baselines3 writes.
        network: what decides.
        normalization: of observations, before the network; None: as they are, or in a file of its own.
    """

    description: PolicyDescription | None
    network: Network
    normalization: Normalization | None


def read_policy(path: str | Path) -> PolicyFile:
    """Read a file of `save_policy`, or of `model.save` of Stable-Baselines3.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is another file, or its policy is not an `MlpPolicy`; naming the file.
    """
    with _Archive(path) as archive:
        normalization = archive.get(_NORMALIZATION)
        return PolicyFile(
            _description(archive),
            _network(archive),
            None if normalization is None else Normalization.from_bytes(normalization),
        )


def read_description(path: str | Path) -> PolicyDescription | None:
    """The description in a file, None if it has none; errors are those of `read_policy`."""
    with _Archive(path) as archive:
        return _description(archive)


def read_network(path: str | Path) -> Network:
    """The network in a file; errors are those of `read_policy`."""
    with _Archive(path) as archive:
        return _network(archive)


class _Archive:
    """The members of a zip file; errors within the `with` block are told with the file's name."""

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        if not self._path.is_file():
            raise FileNotFoundError(f"there is no policy at {path}")

    def __enter__(self) -> Self:
        try:
            self._zip = zipfile.ZipFile(self._path)
        except zipfile.BadZipFile:
            raise ValueError(f"{self._path} is no trained policy: not a zip file") from None
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: Any) -> None:
        self._zip.close()
        if isinstance(error, ValueError | _MALFORMED):
            raise ValueError(f"{self._path} is no trained policy: {error}") from None

    def get(self, name: str) -> bytes | None:
        """A member, None if there is none of this name."""
        return self._zip.read(name) if name in self._zip.namelist() else None

    def __getitem__(self, name: str) -> bytes:
        content = self.get(name)
        if content is None:
            raise ValueError(f"it has no member {name!r}")
        return content


def _description(archive: _Archive) -> PolicyDescription | None:
    content = archive.get(_DESCRIPTION)
    return None if content is None else PolicyDescription.from_json(content.decode(errors="replace"))


def _network(archive: _Archive) -> Network:
    content = archive.get(_NETWORK)
    return _read_model(archive) if content is None else _read_network(content)


def _read_model(archive: _Archive) -> Network:
    """The network in a file of Stable-Baselines3, of whose `data` only what is plain JSON is read."""
    data = parse_json(archive["data"].decode(errors="replace"), "its member 'data'")
    try:
        features = data["observation_space"]
        if not features[":type:"].endswith("box.Box'>") or len(_numbers(features["_shape"])) != 1:
            raise ValueError(f"it must observe a Box of one dimension, got {features[':type:']}; {ALTERNATIVE}")
        arguments = {k: v for k, v in (data["policy_kwargs"] or {}).items() if not k.startswith(":")}
        module, use_sde = data["policy_class"]["__module__"], bool(data.get("use_sde", False))
        network = network_of(
            module, arguments, use_sde, read_tensors(archive["policy.pth"]), _action_space(data["action_space"])
        )
        if [network.num_features] != _numbers(features["_shape"]).tolist():
            raise ValueError(f"its first layer has {network.num_features} inputs for {features['_shape']} features")
    except (KeyError, TypeError, AttributeError, OverflowError, IndexError, MemoryError) as error:
        raise ValueError(f"its data are not those of a model of stable-baselines3: {error!r}") from None
    return network


def _action_space(record: Mapping[str, Any]) -> Space[Any]:
    kind = record[":type:"].rpartition(".")[2].removesuffix("'>")
    if kind == "Box":
        return Box(_numbers(record["low"]).astype(np.float32), _numbers(record["high"]).astype(np.float32))
    if np.any(_numbers(record.get("start", 0))):
        raise ValueError(f"its actions must count from 0, got start={record['start']}; {ALTERNATIVE}")
    if kind == "Discrete":
        return Discrete(int(record["n"]))
    if kind == "MultiDiscrete":
        return MultiDiscrete(_numbers(record["nvec"]).astype(np.int64))
    raise ValueError(f"its actions must be Box, Discrete or MultiDiscrete, got {kind}; {ALTERNATIVE}")


def _numbers(value: Any) -> np.ndarray:
    """Numbers of a list, or of the text of an array: "[3 2]"."""
    return np.array(value.strip("[]").split() if isinstance(value, str) else value, np.float64)


def _network_bytes(network: MLP) -> bytes:
    content = BytesIO()
    arrays: dict[str, Any] = {
        f"{k}_{part}": array for k, layer in enumerate(network.layers) for part, array in zip("wb", layer, strict=True)
    }
    head = {"activation": network.activation, "squashed": network.squashed, "layers": len(network.layers)}
    space = network.space
    if isinstance(space, Box):
        head |= {"kind": "Box", "low": space.low.tolist(), "high": space.high.tolist()}
    elif isinstance(space, Discrete):
        head |= {"kind": "Discrete", "n": int(space.n)}
    else:
        assert isinstance(space, MultiDiscrete), "an MLP takes these three"
        head |= {"kind": "MultiDiscrete", "nvec": space.nvec.tolist()}
    np.savez(content, head=json.dumps(head), **arrays)
    return content.getvalue()


def _read_network(content: bytes) -> MLP:
    try:
        with np.load(BytesIO(content)) as file:
            head = parse_json(str(file["head"]), "the head of its network")
            layers = [(file[f"{k}_w"], file[f"{k}_b"]) for k in range(head["layers"])]
        space = _action_space(head | {":type:": f".{head['kind']}'>"})
        return MLP(layers, head["activation"], space, squashed=bool(head["squashed"]))
    except (KeyError, TypeError, OSError, EOFError, AttributeError, OverflowError, IndexError, MemoryError) as error:
        raise ValueError(f"its network is malformed: {error!r}") from None
