"""Published schedulers, one family a file, and the registry of them all."""

from baselines.andes import andes
from baselines.dong_cao_1 import dong_cao_1
from baselines.dong_cao_2 import dong_cao_2
from baselines.eb import eb, eb_plus
from baselines.fastertransformer import fastertransformer
from baselines.fastertransformer_static import fastertransformer_static
from baselines.fastserve import fastserve
from baselines.gate_and_route import gate_and_route
from baselines.learning_to_rank import learning_to_rank
from baselines.mc_sf import alpha_protection, mc_benchmark, mc_sf
from baselines.network.autellix import atlas, plas
from baselines.network.class_priority import class_priority, fbfs, lbfs
from baselines.network.critical_path import critical_path
from baselines.network.justitia import justitia
from baselines.network.max_pressure import max_pressure
from baselines.orca import orca
from baselines.orca_reserved import orca_reserved
from baselines.rad import rad
from baselines.sarathi import sarathi
from baselines.sarathi_paged import sarathi_paged
from baselines.sglang import sglang
from baselines.shortest_first import sjf, srpt, srpt_predicted, ssjf
from baselines.slo.edf import edf, least_slack
from baselines.slo.fair_batching import fair_batching
from baselines.slo.mooncake_early_rejection import mooncake_early_rejection
from baselines.slo.qoserve import qoserve
from baselines.slo.slai import slai
from baselines.slo.slo_first import slo_first
from baselines.slo.slos_serve import slos_serve
from baselines.slo.sola import sola
from baselines.svf import sorted_f, svf
from baselines.trail import trail
from baselines.vllm_prefill_first import vllm_prefill_first
from baselines.vllm_v0 import vllm_v0
from baselines.vllm_v1 import vllm_v1
from baselines.vtc import vtc
from baselines.wait import nested_wait, wait
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
        # memory
        mc_sf,
        mc_benchmark,
        alpha_protection,
        svf,
        sorted_f,
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
        dong_cao_2,
        wait,
        nested_wait,
        rad,
        eb,
        eb_plus,
        gate_and_route,
        # latency targets
        slo_first,
        edf,
        least_slack,
        qoserve,
        sola,
        fair_batching,
        slai,
        mooncake_early_rejection,
        slos_serve,
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
    "alpha_protection",
    "andes",
    "atlas",
    "class_priority",
    "critical_path",
    "dong_cao_1",
    "dong_cao_2",
    "eb",
    "eb_plus",
    "edf",
    "fair_batching",
    "fastertransformer",
    "fastertransformer_static",
    "fastserve",
    "fbfs",
    "gate_and_route",
    "get",
    "justitia",
    "lbfs",
    "learning_to_rank",
    "least_slack",
    "max_pressure",
    "mc_benchmark",
    "mc_sf",
    "mooncake_early_rejection",
    "nested_wait",
    "orca",
    "orca_reserved",
    "plas",
    "qoserve",
    "rad",
    "sarathi",
    "sarathi_paged",
    "sglang",
    "sjf",
    "slai",
    "slo_first",
    "slos_serve",
    "sola",
    "sorted_f",
    "srpt",
    "srpt_predicted",
    "ssjf",
    "svf",
    "trail",
    "vllm_prefill_first",
    "vllm_v0",
    "vllm_v1",
    "vtc",
    "wait",
]
