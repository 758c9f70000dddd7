"""The settings of a vLLM run: what the simulator takes of them, what it assumes, and what it leaves out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from llmsched_env.files import read_object
from llmsched_env.machine.profiles import GPUProfile, gpu_profile, gpu_profiles
from llmsched_env.validation import check_integer, check_number, shown

_GROUPS = ("scheduler_config", "cache_config", "parallel_config", "model_config")  # of resolved_config
_OTHER_NAMES = {
    "policy": "scheduling_policy",
    "cache_dtype": "kv_cache_dtype",
    "num_gpu_blocks_override": "num_gpu_blocks",
}
_SIXTEEN_BITS = ("auto", "half", "float16", "bfloat16", "torch.float16", "torch.bfloat16")
_USED = (
    "model",
    "max_num_batched_tokens",
    "max_num_seqs",
    "max_num_scheduled_tokens",
    "num_gpu_blocks",
    "num_kv_tokens",
    "block_size",
    "gpu_memory_utilization",
    "enable_prefix_caching",
    "async_scheduling",
    "enable_chunked_prefill",
    "long_prefill_token_threshold",
    "scheduler_reserve_full_isl",
    "watermark",
    "scheduling_policy",
    "tensor_parallel_size",
    "pipeline_parallel_size",
    "data_parallel_size",
    "speculative_config",
    "dtype",
    "kv_cache_dtype",
    "quantization",
    "max_model_len",
    "device_name",
)
_NOT_SIMULATED = {  # what is said of a setting that is on
    "enable_expert_parallel": "the batch times must hold it; ranks run on their own here, in vLLM they step together",
    "enforce_eager": "the batch times must be those of eager mode",
    "enable_dbo": "the batch times must hold it",
    "decode_context_parallel_size": "the batch times must hold it",
    "prefill_context_parallel_size": "the batch times must hold it",
    "sliding_window": "KV memory is that of full attention",
    "scheduler_cls": "the rules of vLLM's own scheduler are simulated",
    "kv_transfer_config": "KV moves and outside caches are not simulated",
    "kv_offloading_size": "KV offloading is not simulated",
    "cpu_offload_gb": "the batch times must hold it",
    "enable_lora": "the batch times must hold it",
    "lora_config": "the batch times must hold it",
    "max_num_partial_prefills": "any number of prompts may be cut",
    "stream_interval": "every token counts as it is computed",
}
_OFF = (None, False, 0, 1, "", "none")
_NO_INFLUENCE = {"seed", "tokenizer", "served_model_name", "trust_remote_code", "download_dir", "load_format"}
_NO_INFLUENCE |= {"disable_log_stats", "disable_log_requests", "host", "port", "revision", "tokenizer_mode", "hf_token"}
_FACTS = {"schema_version", "vllm_version", "dataset_path", "dataset_hash", "num_requests", "started_at", "finished_at"}
_FACTS |= {"tick_seconds", "model", "engine_kwargs", "kv_cache", "hardware", "resolved_config"}


class Note(NamedTuple):
    """What is said of a setting.

    Attributes:
        kind: "assumed": no setting says so, or the profile differs; "left out": set, and without effect here.
        text: the setting, and what follows.
    """

    kind: Literal["assumed", "left out"]
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


@dataclass(frozen=True, slots=True)
class VllmSettings:
    """The settings of one run.

    Attributes:
        path: the file.
        model: as vLLM names it; None: not said.
        device: name of the GPU; None: not said.
        tensor_parallel: GPUs of one engine.
        requests: how many were sent; None: not said.
        replicas: engines behind vLLM's own balancing, its `data_parallel_size`.
        gpu_memory_utilization: share of GPU memory; it counts where the KV blocks are not said.
        numerics: `dtype`, `kv_cache_dtype` and `quantization` where they are not the 16 bits of shipped profiles.
        engine: arguments of `EngineConfig`.
        scheduler: parameters of `vllm_v1` beside the limits.
        notes: what is assumed and left out.
    """

    path: str
    model: str | None
    device: str | None
    requests: int | None
    tensor_parallel: int
    replicas: int
    gpu_memory_utilization: float
    numerics: dict[str, str]
    engine: dict[str, Any]
    scheduler: dict[str, float]
    notes: tuple[Note, ...]

    @classmethod
    def read(cls, path: str | Path) -> VllmSettings:
        """Read JSON of the groups `engine_kwargs`, `kv_cache`, `hardware`, and vLLM's `resolved_config` if it is there.

        Every group may be missing. What `resolved_config` says counts more than what was asked for.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: a value is not allowed, or cannot be simulated; naming file, setting and value.
        """
        found = _Found(str(path), read_object(path))
        depth, speculation = found.integer("pipeline_parallel_size", 1), found["speculative_config"]
        if depth != 1:
            raise ValueError(f"{path}: pipeline_parallel_size must be 1, got {depth}: pipelines are not simulated")
        if speculation is not None:
            raise ValueError(f"{path}: speculative_config must be off, got {speculation!r}: a decode yields one token")
        numerics = {name: str(found[name]) for name in ("dtype", "kv_cache_dtype") if found[name] is not None}
        numerics = {name: value for name, value in numerics.items() if value not in _SIXTEEN_BITS}
        if found["quantization"] is not None:
            numerics["quantization"] = str(found["quantization"])
        utilization = found["gpu_memory_utilization"]
        if utilization is not None:
            check_number(f"{path}: gpu_memory_utilization", utilization, above=0, at_most=1)
        engine, scheduler = _engine(found), _scheduler(found)
        return cls(
            path=str(path),
            model=found.text("model"),
            device=found.text("device_name"),
            requests=found.integer("num_requests", 0) or None,
            tensor_parallel=found.integer("tensor_parallel_size", 1),
            replicas=found.integer("data_parallel_size", 1),
            gpu_memory_utilization=0.9 if utilization is None else float(utilization),
            numerics=numerics,
            engine=engine,
            scheduler=scheduler,
            notes=(*found.notes, *_left_out(found)),
        )

    def limits(self) -> dict[str, int]:
        """`token_budget` and `max_num_seqs`.

        Raises:
            ValueError: one is not said: vLLM's default depends on its version and the GPU.
        """
        for name, key in (("token_budget", "max_num_batched_tokens"), ("max_num_seqs", "max_num_seqs")):
            if name not in self.engine:
                raise ValueError(f"{self.path}: engine_kwargs.{key} must be given; vLLM's default depends on the GPU")
        return {name: self.engine[name] for name in ("token_budget", "max_num_seqs")}

    def shipped_profile(self) -> str:
        """The one shipped GPU profile of model, device and tensor parallel degree.

        Raises:
            ValueError: the settings name no model or device, or not exactly one profile fits.
        """
        for name, value in (("model", self.model), ("hardware.device_name", self.device)):
            if value is None:
                raise ValueError(f"--engine must be given: {self.path} has no {name}")
        if self.numerics:
            said = ", ".join(f"{name}={value}" for name, value in self.numerics.items())
            raise ValueError(f"--engine must be given: {self.path} has {said}, shipped profiles have 16-bit weights")
        fitting = [p.name for p in map(gpu_profile, gpu_profiles()) if not any(self._differences(p))]
        if len(fitting) != 1:
            raise ValueError(
                f"--engine must be given: {', '.join(fitting) or 'no shipped profile'} fits {self.model} on "
                f"{self.tensor_parallel} x {self.device}; llmsched profiles lists what there is"
            )
        return fitting[0]

    def engine_of(self, profile: GPUProfile) -> tuple[dict[str, Any], list[Note]]:
        """Arguments of `EngineConfig` on a profile, and what is assumed because of it.

        Raises:
            ValueError: the profile's memory leaves no room for KV.
        """
        holds = f"the batch times of {profile.name} hold"
        notes = [Note("assumed", f"{holds}, though {each}") for each in self._differences(profile)]
        notes += [Note("assumed", f"{holds} {name}={value}") for name, value in self.numerics.items()]
        engine = dict(self.engine)
        if "kv_blocks" not in engine:
            engine["kv_blocks"] = profile.kv_blocks(self.gpu_memory_utilization, engine["block_size"])
            size = "unlimited" if engine["kv_blocks"] is None else f"{engine['kv_blocks']}"
            where = f"by the memory of {profile.name} at gpu_memory_utilization {self.gpu_memory_utilization:g}"
            notes.append(Note("assumed", f"{size} KV blocks {where}; the settings have no kv_cache.num_gpu_blocks"))
        return engine, notes

    def _differences(self, profile: GPUProfile) -> Iterator[str]:
        """In which points the run was made with something else than the profile is of."""
        model = None if self.model is None else self.model.rstrip("/").split("/")[-1].lower()
        theirs = profile.model.rstrip("/").split("/")[-1].lower()
        if model is not None and not re.fullmatch(re.escape(theirs) + r"(-.*)?", model):
            yield f"the run is of {self.model}, and the profile of {profile.model}"
        if self.device is not None and _plain(re.split("[-_]", profile.gpu)[0]) not in _plain(self.device):
            yield f"the run is on {self.device}, and the profile of {profile.gpu}"
        if self.tensor_parallel != profile.tensor_parallel:
            yield f"tensor_parallel_size is {self.tensor_parallel}, and {profile.tensor_parallel} in the profile"


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


class _Found:
    """The values of a settings file by name, wherever they stand, and what is said of them."""

    def __init__(self, path: str, settings: dict[str, Any]) -> None:
        self.path, self.settings, self.notes = path, settings, list[Note]()
        resolved = settings.get("resolved_config") or {}
        if not isinstance(resolved, dict):
            raise ValueError(f"{path}: resolved_config must be an object, got {shown(resolved)}")
        groups = {f"resolved_config.{name}": resolved.get(name) for name in _GROUPS}
        groups |= {"resolved_config": resolved} | {name: settings.get(name) for name in ("kv_cache", "engine_kwargs")}
        groups |= {"hardware": settings.get("hardware"), "": settings}
        for name, group in groups.items():
            if group is not None and not isinstance(group, dict):
                raise ValueError(f"{path}: {name} must be an object, got {shown(group)}")
        self.values: dict[str, tuple[str, Any]] = {}
        for group, values in groups.items():
            for key, value in values.items() if isinstance(values, dict) else ():
                known = str(_OTHER_NAMES.get(key, key))
                if value is not None and known not in self.values:
                    self.values[known] = (f"{group}.{key}".lstrip("."), value)

    def __getitem__(self, name: str) -> Any:
        """None if it stands nowhere."""
        return self.values[name][1] if name in self.values else None

    def integer(self, name: str, default: int, at_least: int = 1) -> int:
        if name not in self.values:
            return default
        place, value = self.values[name]
        return check_integer(f"{self.path}: {place}", value, at_least=at_least)

    def flag(self, name: str, default: bool) -> bool:
        """Whether a switch is on; what is assumed is noted."""
        if name not in self.values:
            self.notes.append(Note("assumed", f"{name} is {'on' if default else 'off'}, as by default in vLLM"))
            return default
        place, value = self.values[name]
        if not isinstance(value, bool):
            raise ValueError(f"{self.path}: {place} must be true or false, got {value!r}")
        return value

    def text(self, name: str) -> str | None:
        if name not in self.values:
            return None
        place, value = self.values[name]
        if not isinstance(value, str):
            raise ValueError(f"{self.path}: {place} must be a name, got {value!r}")
        return value


def _engine(found: _Found) -> dict[str, Any]:
    engine: dict[str, Any] = {}
    for name, key in (("token_budget", "max_num_batched_tokens"), ("max_num_seqs", "max_num_seqs")):
        if found[key] is not None:
            engine[name] = found.integer(key, 1)
    if found["max_num_scheduled_tokens"] is not None and "token_budget" in engine:
        engine["token_budget"] = min(engine["token_budget"], found.integer("max_num_scheduled_tokens", 1))
    if found["block_size"] is None:
        found.notes.append(Note("assumed", "blocks of 16 tokens, as by default in vLLM"))
    engine["block_size"] = found.integer("block_size", 16)
    if found["num_gpu_blocks"] is not None:
        engine["kv_blocks"] = found.integer("num_gpu_blocks", 2, at_least=2) - 1  # vLLM keeps one for itself
    elif found["num_kv_tokens"] is not None:
        engine["kv_blocks"] = max(1, found.integer("num_kv_tokens", 1) // engine["block_size"] - 1)
    if found["max_model_len"] is not None:
        engine["max_model_len"] = found.integer("max_model_len", 2, at_least=2)
    engine["prefix_caching"] = found.flag("enable_prefix_caching", True)
    engine["schedule_ahead"] = int(found.flag("async_scheduling", True))
    return engine


def _scheduler(found: _Found) -> dict[str, float]:
    """Parameters of `vllm_v1` that the settings name, those of vLLM's default where it has been the same for long."""
    own: dict[str, float] = {"enable_chunked_prefill": int(found.flag("enable_chunked_prefill", True))}
    for name in ("long_prefill_token_threshold", "watermark"):
        if found[name] is not None:
            own[name] = float(check_number(f"{found.path}: {name}", found[name], at_least=0))
    own["scheduler_reserve_full_isl"] = int(found.flag("scheduler_reserve_full_isl", True))
    policy = found["scheduling_policy"] or "fcfs"
    if policy not in ("fcfs", "priority"):
        raise ValueError(f"{found.path}: scheduling_policy must be fcfs or priority, got {policy!r}")
    own["priority"] = int(policy == "priority")
    if policy == "priority":
        found.notes.append(Note("assumed", "equal priorities: scheduling_policy is priority, and requests name none"))
    return own


def _left_out(found: _Found) -> Iterator[Note]:
    for name, text in _NOT_SIMULATED.items():
        switch = name.startswith(("enable", "enforce"))
        if bool(found[name]) if switch else found[name] not in _OFF:
            yield Note("left out", f"{name}={shown(found[name])}: {text}")
    kwargs = found.settings.get("engine_kwargs") or {}
    known = {*_USED, *_NOT_SIMULATED, *_NO_INFLUENCE}
    others = [key for key in kwargs if _OTHER_NAMES.get(key, key) not in known and kwargs[key] is not None]
    yield from (
        Note("left out", f"engine_kwargs.{key}={shown(kwargs[key])}: nothing here stands for it") for key in others
    )
    for key in sorted(found.settings.keys() - _FACTS - known):
        yield Note("left out", f"{key}: nothing here stands for it")
    silent = sorted(key for key in kwargs if key in _NO_INFLUENCE and kwargs[key] is not None)
    if silent:
        yield Note("left out", f"{', '.join(silent)}: no influence on times")
    resolved = sorted(set(found.settings.get("resolved_config") or {}) - {*_GROUPS, *known})
    if resolved:
        yield Note("left out", f"resolved_config: {', '.join(resolved)}")


def engine_settings(path: str | Path) -> dict[str, Any]:
    """Arguments of `EngineConfig` from the settings of a vLLM run: limits, KV blocks, prefix caching and the like.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a value is not allowed, or cannot be simulated; naming file, setting and value.
    """
    return VllmSettings.read(path).engine
