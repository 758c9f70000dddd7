"""Published schedulers, one family a file, and the registry of them all."""

from baselines.andes import andes
from baselines.dong_cao_1 import dong_cao_1
from baselines.fastertransformer import fastertransformer
from baselines.fastertransformer_static import fastertransformer_static
from baselines.fastserve import fastserve
from baselines.learning_to_rank import learning_to_rank
from baselines.network.autellix import atlas, plas
from baselines.network.class_priority import class_priority, fbfs, lbfs
from baselines.network.critical_path import critical_path
from baselines.network.justitia import justitia
from baselines.network.max_pressure import max_pressure
from baselines.orca import orca
from baselines.orca_reserved import orca_reserved
from baselines.sarathi import sarathi
from baselines.sarathi_paged import sarathi_paged
from baselines.sglang import sglang
from baselines.shortest_first import sjf, srpt, srpt_predicted, ssjf
from baselines.trail import trail
from baselines.vllm_prefill_first import vllm_prefill_first
from baselines.vllm_v0 import vllm_v0
from baselines.vllm_v1 import vllm_v1
from baselines.vtc import vtc
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.validation import check_choice

REGISTRY: dict[str, Scheduler] = {
    scheduler.name: scheduler
    for scheduler in (
        # the stylised four of arXiv 2504.07347
        fastertransformer,
        vllm_prefill_first,
        orca,
        sarathi,
        # the systems themselves
        fastertransformer_static,
        orca_reserved,
        vllm_v0,
        vllm_v1,
        sarathi_paged,
        sglang,
        # by size, preemptive, fair
        sjf,
        ssjf,
        srpt,
        srpt_predicted,
        learning_to_rank,
        trail,
        fastserve,
        vtc,
        andes,
        # flow control
        dong_cao_1,
        # classes and tasks
        class_priority,
        fbfs,
        lbfs,
        max_pressure,
        critical_path,
        plas,
        atlas,
        justitia,
    )
}


def get(name: str) -> Scheduler:
    """The scheduler registered under `name`.

    Raises:
        ValueError: for an unknown name, with the closest known ones.
    """
    return REGISTRY[check_choice("scheduler", name, tuple(REGISTRY))]


__all__ = [
    "REGISTRY",
    "andes",
    "atlas",
    "class_priority",
    "critical_path",
    "dong_cao_1",
    "fastserve",
    "fastertransformer",
    "fastertransformer_static",
    "fbfs",
    "get",
    "justitia",
    "lbfs",
    "learning_to_rank",
    "max_pressure",
    "orca",
    "orca_reserved",
    "plas",
    "sarathi",
    "sarathi_paged",
    "sglang",
    "sjf",
    "srpt",
    "srpt_predicted",
    "ssjf",
    "trail",
    "vllm_prefill_first",
    "vllm_v0",
    "vllm_v1",
    "vtc",
]
