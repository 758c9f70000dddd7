"""The registry of schedulers."""

import pytest

import baselines
import llmsched_env as ls
from baselines import routers
from baselines.registry import Registry
from llmsched_env.simulator.scheduler import compiled_compose

PAPER = {  # work-conserving, mixes phases, chunks prefill: Table 1 of arXiv 2504.07347
    "fastertransformer": (False, False, False),
    "vllm_prefill_first": (False, False, False),
    "orca": (True, True, True),
    "sarathi": (True, True, True),
}


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_four_are_there_as_table_1_has_them(name):
    scheduler = baselines.get(name)
    assert scheduler is baselines.REGISTRY[name] is getattr(baselines, name)
    assert (scheduler.work_conserving, scheduler.mixes_phases, scheduler.chunks_prefill) == PAPER[name]


@pytest.mark.parametrize("name", baselines.REGISTRY)
def test_every_entry_is_complete(name):
    scheduler = baselines.REGISTRY[name]
    assert scheduler.name == name
    assert scheduler.reference
    assert compiled_compose(scheduler.compose) is not None, "numba cannot compile it"
    for param in scheduler.params.values():
        assert param.low <= param.default <= param.high


def test_schedulers_are_attributes_of_the_package_in_order_of_their_families():
    assert set(baselines.REGISTRY) <= set(dir(baselines)) and set(baselines.REGISTRY) < set(baselines.__all__)
    assert all(getattr(baselines, name) is scheduler for name, scheduler in baselines.REGISTRY.items())
    families = [scheduler.compose.__module__.split(".")[1] for scheduler in baselines.REGISTRY.values()]
    assert list(dict.fromkeys(families)) == list(baselines.FAMILIES)
    assert families == sorted(families, key=baselines.FAMILIES.index)
    assert list(baselines.REGISTRY)[:5] == [*PAPER, "fastertransformer_static"]
    with pytest.raises(AttributeError, match="'baselines' has no attribute 'sarathy'"):
        _ = baselines.sarathy


def test_routers_are_attributes_of_their_package():
    assert routers.random_router is routers.ROUTERS["random"] is routers.get("random")
    assert all(getattr(routers, name) is router for name, router in routers.ROUTERS.items())
    assert {"round_robin", "br_0", "distserve_pools", "random_router"} <= set(dir(routers)) & set(routers.__all__)
    with pytest.raises(AttributeError, match=r"'baselines\.routers' has no attribute 'robin'"):
        _ = routers.robin
    with pytest.raises(ValueError, match="router must be one of the known names, got 'robin'"):
        routers.get("robin")


def test_a_name_is_registered_once():
    registry = Registry("scheduler")
    assert registry.register(baselines.sarathi) is baselines.sarathi is registry.get("sarathi")
    with pytest.raises(ValueError, match="scheduler 'sarathi' is registered already"):
        registry.register(baselines.sarathi(token_budget=128))


@pytest.mark.parametrize("name", ["Sarathi", "sarathy", "", None, 3])
def test_unknown_names_are_refused_with_what_exists(name):
    with pytest.raises(ValueError, match="scheduler must be one of the known names, got .*sarathi") as error:
        baselines.get(name)
    assert repr(name) in str(error.value)


def test_calling_a_scheduler_binds_parameters_of_a_copy():
    bound = baselines.sarathi(token_budget=128)
    assert isinstance(bound, ls.Scheduler) and bound.name == "sarathi"
    assert dict(bound.values) == {"token_budget": 128} and dict(baselines.sarathi.values) == {}
    assert dict(bound(max_num_seqs=7).values) == {"token_budget": 128, "max_num_seqs": 7}
    assert bound.param_values().tolist() == [128.0, float("inf")]
    assert repr(bound) == "sarathi(token_budget=128)"
    assert hash(bound) == hash(baselines.sarathi(token_budget=128)) and bound == baselines.sarathi(token_budget=128)
