"""What one engine is: its batch-time law and its hard limits."""

from dataclasses import dataclass, replace
from typing import Any

from llmsched_env.machine.batch_time import BatchTime
from llmsched_env.machine.profiles import GPUProfile, gpu_profile
from llmsched_env.validation import check_choice, check_integer, check_number

FIRST_TOKEN = ("with_prefill", "separate")
MOST = 2**40  # of any limit: no machine comes near it, and times the largest block it still is a 64-bit integer
MOST_NOISE = 2.0  # of step_noise; at 2 one step in a hundred takes more than 14 times its mean


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """One GPU (or tensor-parallel group) that works in batches.

    Limits are those of the machine: a scheduler's own parameters apply as the minimum of both.

    Args:
        batch_time: seconds of a batch by its composition.
        token_budget: most tokens in a batch (b_max of arXiv 2504.07347).
        max_num_seqs: most requests in a batch (k_max); None for no limit.
        kv_blocks: blocks of the KV cache; None for unlimited memory.
        block_size: tokens per KV block.
        first_token: "with_prefill": the batch that completes a prompt yields the first output token, as real engines
            do; "separate": every output token takes a decode batch of its own, the model of arXiv 2504.07347.
        schedule_ahead: 1: a batch is decided while the one before it runs, as vLLM's asynchronous scheduling does; an
            engine then knows that a request's last token is being computed, as with an output length set in advance.
        host_overhead: host seconds added (per batch, per request in it).
        step_noise: standard deviation of the logarithm of step times. Each step's time, host included, is multiplied
            by a lognormal factor of mean 1 that follows from the seed and the number of the step alone, so it is the
            same under every scheduler. 0: steps last exactly as long as the law says.
        believed_batch_time: the law that schedulers, policies and routers predict with; None: the engine's own.
        believed_host_overhead: the host seconds that they predict with; None: the engine's own.
        max_model_len: tokens of prompt and output that a request may have in all, as in vLLM; a longer one is turned
            away as it arrives. None for no limit.
        prefix_caching: blocks of KV outlive their requests, and prompts that begin with the same tokens reuse them.
        swap_blocks: KV blocks that the host has room for; preempted requests move there instead of losing them.
        swap_block_time: seconds that moving one block to the host or back adds to a batch.
        name: what reports call it.

    Raises:
        ValueError: naming the field, its value and what is allowed.
    """

    batch_time: BatchTime
    token_budget: int = 16384
    max_num_seqs: int | None = None
    kv_blocks: int | None = None
    block_size: int = 16
    first_token: str = "with_prefill"
    schedule_ahead: int = 0
    host_overhead: tuple[float, float] = (0.0, 0.0)
    step_noise: float = 0.0
    believed_batch_time: BatchTime | None = None
    believed_host_overhead: tuple[float, float] | None = None
    max_model_len: int | None = None
    prefix_caching: bool = False
    swap_blocks: int = 0
    swap_block_time: float = 0.0
    name: str = "engine"

    def __post_init__(self) -> None:
        for name in ("batch_time", "believed_batch_time"):
            law = getattr(self, name)
            if not isinstance(law, BatchTime) and not (law is None and name != "batch_time"):
                raise ValueError(f"{name} must be a Staircase, Hinge, Roofline or TabulatedLaw, got {law!r}")
        check_integer("token_budget", self.token_budget, at_least=1, at_most=MOST, unit="tokens")
        if self.max_num_seqs is not None:
            check_integer("max_num_seqs", self.max_num_seqs, at_least=1, at_most=MOST, unit="requests")
        if self.kv_blocks is not None:
            check_integer("kv_blocks", self.kv_blocks, at_least=1, at_most=MOST, unit="blocks")
        check_integer("block_size", self.block_size, at_least=1, at_most=2**20, unit="tokens")
        check_choice("first_token", self.first_token, FIRST_TOKEN)
        check_integer("schedule_ahead", self.schedule_ahead, at_least=0, at_most=1, unit="batches")
        _check_host("host_overhead", self.host_overhead)
        if self.believed_host_overhead is not None:
            _check_host("believed_host_overhead", self.believed_host_overhead)
        check_number("step_noise", self.step_noise, at_least=0, at_most=MOST_NOISE)
        if self.max_model_len is not None:
            check_integer("max_model_len", self.max_model_len, at_least=2, at_most=MOST, unit="tokens")
        if not isinstance(self.prefix_caching, bool):
            raise ValueError(f"prefix_caching must be True or False, got {self.prefix_caching!r}")
        check_integer("swap_blocks", self.swap_blocks, at_least=0, at_most=MOST, unit="blocks")
        check_number("swap_block_time", self.swap_block_time, at_least=0, unit="s")
        if self.swap_blocks > 0 and self.prefix_caching:
            raise ValueError(
                f"swap_blocks must be 0 with prefix_caching=True, got {self.swap_blocks}: a preempted request finds "
                "its blocks in the prefix cache"
            )

    @classmethod
    def for_gpu(
        cls,
        profile: str | None = None,
        gpu_memory_utilization: float = 0.9,
        swap_space: float = 0.0,
        host_bandwidth: float = 25e9,
        *,
        model: str | None = None,
        system: str | None = None,
        tp: int = 1,
        ep: int = 1,
        backend: str = "vllm",
        **overrides: Any,
    ) -> "EngineConfig":
        """The engine of a GPU profile, or of a model on a GPU: its law, its KV blocks and its context length.

        Of a calibrated profile also host time, noise, and what schedulers believe.

        Args:
            profile: a name from `gpu_profiles()` or `kept_profiles()`, or the path of a profile file.
            gpu_memory_utilization: share of the GPU's memory the engine may use, as in vLLM.
            swap_space: bytes of host memory per engine for preempted requests.
            host_bandwidth: bytes/s between all its GPUs and the host; about 25e9 over one PCIe 4.0 x16.
            model: instead of a profile, a model as on Hugging Face or the folder of its config.json; see
                `make_profile`, which makes its profile.
            system: GPU type that it runs on, such as "h100_sxm".
            tp: GPUs of the engine.
            ep: of these, how many the experts are spread over.
            backend: the engine whose kernels were measured.
            overrides: any other field of `EngineConfig`.

        Raises:
            ValueError: naming the field, its value and what is allowed.
            ImportError: `model` has no kept profile yet, and aiconfigurator-core is not installed.
        """
        gpu = _profile_of(profile, model, system, tp, ep, backend)
        block_size = overrides.get("block_size", 16)
        check_number("swap_space", swap_space, at_least=0, unit="bytes")
        check_number("host_bandwidth", host_bandwidth, above=0, unit="bytes/s")
        known: dict[str, Any] = {
            "batch_time": gpu.batch_time,
            "host_overhead": gpu.host_overhead,
            "step_noise": gpu.step_noise,
            "believed_batch_time": gpu.believed,
            "believed_host_overhead": None if gpu.believed is None else gpu.believed_host_overhead,
            "kv_blocks": gpu.kv_blocks(gpu_memory_utilization, block_size),
            "max_model_len": gpu.max_model_len,
            "name": gpu.name if profile is None else profile,
        }
        if swap_space > 0:
            if gpu.kv_bytes_per_token is None:
                raise ValueError(f"swap_space must be 0 for {gpu.name}, which does not say how large its KV cache is")
            block_bytes = gpu.kv_bytes_per_token * block_size
            known |= {"swap_blocks": int(swap_space // block_bytes), "swap_block_time": block_bytes / host_bandwidth}
        if "believed_batch_time" in overrides:  # the profile's belief in host time belongs to its own
            known["believed_host_overhead"] = None
        return cls(**{**known, **overrides})

    def believing(self, what: str | float) -> "EngineConfig":
        """The engine, under schedulers that predict with another law.

        Args:
            what: a factor on the engine's own batch and host times (also as text), or a profile as in `for_gpu`.

        Raises:
            ValueError: a factor that is not above 0, or an unknown profile.
            FileNotFoundError: there is no such profile file.
        """
        try:
            factor = check_number("believed", float(what), above=0)
        except ValueError:
            if not isinstance(what, str) or _is_number(what):
                raise
            profile = gpu_profile(what)
            return replace(self, believed_batch_time=profile.batch_time, believed_host_overhead=profile.host_overhead)
        host = self.host_overhead[0] * factor, self.host_overhead[1] * factor
        return replace(self, believed_batch_time=self.batch_time.scaled(factor), believed_host_overhead=host)

    @property
    def separate(self) -> bool:
        """Whether the first output token needs a decode batch of its own."""
        return self.first_token == "separate"

    def law(self) -> Any:
        """LAW[1]: the batch-time law, and seconds of the host and of swapping."""
        return self._record(self.batch_time, self.host_overhead)

    def believed_law(self) -> Any:
        """LAW[1]: what schedulers take `law` for."""
        return self._record(self.believed_batch_time or self.batch_time, self.believed_host)

    @property
    def believed_host(self) -> tuple[float, float]:
        """Host seconds (per batch, per request in it) that schedulers predict with."""
        return self.host_overhead if self.believed_host_overhead is None else self.believed_host_overhead

    def _record(self, batch_time: BatchTime, host: tuple[float, float]) -> Any:
        law = batch_time.record()
        law[0].host_batch, law[0].host_request = host
        law[0].swap_block = self.swap_block_time
        return law


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _check_host(name: str, value: Any) -> None:
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise ValueError(f"{name} must be (s per batch, s per request), got {value!r}")
    for part, seconds in zip(("batch", "request"), value, strict=True):
        check_number(f"{name} per {part}", seconds, at_least=0, unit="s")


def _profile_of(
    profile: str | None, model: str | None, system: str | None, tp: int, ep: int, backend: str
) -> GPUProfile:
    if (profile is None) == (model is None):
        raise ValueError(f"for_gpu takes either a profile or a model with its system, got {profile=} and {model=}")
    if profile is not None:
        if (system, tp, ep, backend) != (None, 1, 1, "vllm"):
            raise ValueError(f"system, tp, ep and backend go with model=..., not with the profile {profile!r}")
        return gpu_profile(profile)
    if system is None:
        raise ValueError(f"system must say which GPU {model} runs on, such as 'h100_sxm', got None")
    from llmsched_env.machine.make_profile import make_profile  # only who asks for a model waits for it

    return make_profile(str(model), system, tp, ep, backend)
