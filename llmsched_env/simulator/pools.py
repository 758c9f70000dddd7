"""Disaggregated engines: which only prefill, which only decode, and what handing a request over costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llmsched_env.machine.config import EngineConfig
from llmsched_env.machine.profiles import gpu_profile
from llmsched_env.validation import check_choice, check_number

ROLES = ("both", "prefill", "decode")
FIRST_TOKEN = ("prefill", "decode")
VLLM_SCHEDULING = 0.0325
"""S of scheduling at both ends together behind vLLM's proxy.

What one measured run leaves unexplained of its mean TTFT of 128.9 ms (Llama-3.1-70B, one engine of four H100 for each
role, 10 requests/s; docs/measured.md), simulated with a host overhead of 5 ms a step. The two ends cannot be told apart
there.
"""


@dataclass(frozen=True, slots=True)
class Pools:
    """Disaggregated engines: some only prefill, others only decode, and the KV cache moves between them.

    A request is handed over when the batch that completes its prompt ends. It joins the queue of the other engine
    after `prefill_scheduling`, the move of its KV cache and `decode_scheduling`. The blocks of the first engine are
    free at once.

    Attributes:
        roles: of each engine, one of "both", "prefill" and "decode".
        transfer_per_call: s that every move takes.
        transfer_per_token: s for each token of KV: bytes per token over the bandwidth of the link.
        prefill_scheduling: s between the end of the prompt and the start of the move: the answer of the prefill engine
            goes through a proxy, which sends the request to the other engine.
        decode_scheduling: s between the end of the move and the arrival in the queue of the other engine.
        first_token: "prefill": the batch that completes the prompt yields the first token, as in DistServe; "decode":
            that token is dropped, and the other engine computes the last prompt token again (one token recomputed, in
            the rows), as one decode, which yields the first. So it is behind vLLM's proxy: it asks the prefill engine
            for one token, and then sends the same request to the decode engine. A request of one output token is
            handed over too.

    Raises:
        ValueError: naming the field, its value and what is allowed.
    """

    roles: tuple[str, ...]
    transfer_per_call: float = 0.0
    transfer_per_token: float = 0.0
    prefill_scheduling: float = 0.0
    decode_scheduling: float = 0.0
    first_token: str = "prefill"

    def __post_init__(self) -> None:
        if not isinstance(self.roles, tuple | list):
            raise ValueError(f"pools.roles must be one of {ROLES} for each engine, got {self.roles!r}")
        for role in self.roles:
            check_choice("pools.roles", role, ROLES)
        for name in ("transfer_per_call", "transfer_per_token", "prefill_scheduling", "decode_scheduling"):
            check_number(f"pools.{name}", getattr(self, name), at_least=0, unit="s")
        check_choice("pools.first_token", self.first_token, FIRST_TOKEN)

    @classmethod
    def for_gpu(
        cls,
        roles: Sequence[str],
        profile: str,
        link_bandwidth: float,
        transfer_per_call: float = 0.0,
        prefill_scheduling: float = VLLM_SCHEDULING,
        decode_scheduling: float = 0.0,
        first_token: str = "decode",
    ) -> Pools:
        """Pools of engines of a GPU profile: a token's move takes its KV bytes over the bandwidth.

        Args:
            roles: of each engine.
            profile: name or file of a GPU profile that says how large a token's KV cache is.
            link_bandwidth: bytes/s from one engine to another, over all of its GPUs.
            transfer_per_call: as for `Pools`, like the following.
            prefill_scheduling: by default all that was measured for both ends, see `VLLM_SCHEDULING`.
            decode_scheduling: the same for the other end.
            first_token: "decode", as vLLM's proxy has it, or "prefill".

        Raises:
            ValueError: naming the argument, its value and what is allowed.
        """
        check_number("link_bandwidth", link_bandwidth, above=0, unit="bytes/s")
        size = gpu_profile(profile).kv_bytes_per_token
        if size is None:
            raise ValueError(f"profile must say how large its KV cache is, {profile} does not; give transfer_per_token")
        own = (transfer_per_call, size / link_bandwidth, prefill_scheduling, decode_scheduling)
        return cls(tuple(roles), *own, first_token)

    @property
    def handover_per_call(self) -> float:
        """S of a handover that do not depend on the prompt."""
        return self.prefill_scheduling + self.transfer_per_call + self.decode_scheduling

    def hands_over(self, g: int) -> bool:
        """Whether every request of engine `g` goes on at another engine, which yields its first token."""
        return self.roles[g] == "prefill" and self.first_token == "decode"

    def check_engines(self, engines: Sequence[EngineConfig]) -> None:
        """Refuse roles that do not fit the engines.

        Raises:
            ValueError: naming the field, its value and what is allowed.
        """
        roles = self.roles
        if len(roles) != len(engines):
            raise ValueError(f"pools.roles must be one of {ROLES} for each of {len(engines)} engines, got {roles}")
        if "prefill" in roles and not {"decode", "both"} & set(roles):
            raise ValueError(f"pools.roles must have an engine that decodes, got {roles}")
        if "decode" in roles and not {"prefill", "both"} & set(roles):
            raise ValueError(f"pools.roles must have an engine that prefills, got {roles}")
        if set(roles) != {"both"} and any(engine.separate for engine in engines):
            raise ValueError('first_token must be "with_prefill" where prefill and decode have engines of their own')
