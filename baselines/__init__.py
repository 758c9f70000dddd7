"""Published schedulers, one family a file, and the registry of them all."""

from baselines.dong_cao_1 import dong_cao_1
from baselines.fastertransformer import fastertransformer
from baselines.orca import orca
from baselines.sarathi import sarathi
from baselines.vllm_prefill_first import vllm_prefill_first
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.validation import check_choice

REGISTRY: dict[str, Scheduler] = {
    scheduler.name: scheduler for scheduler in (fastertransformer, vllm_prefill_first, orca, sarathi, dong_cao_1)
}


def get(name: str) -> Scheduler:
    """The scheduler registered under `name`.

    Raises:
        ValueError: for an unknown name, with the closest known ones.
    """
    return REGISTRY[check_choice("scheduler", name, tuple(REGISTRY))]


__all__ = ["REGISTRY", "dong_cao_1", "fastertransformer", "get", "orca", "sarathi", "vllm_prefill_first"]
