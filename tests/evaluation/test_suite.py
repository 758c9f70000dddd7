import pytest

import baselines
from llmsched_env.evaluation.benchmark.options import BenchmarkOptions
from llmsched_env.evaluation.suite import HELD_OUT, TRAINING


def test_no_site_is_trained_on_and_held_out():
    names = [site.name for site in (*TRAINING, *HELD_OUT)]
    assert len(set(names)) == len(names)
    assert len({site.profile for site in TRAINING}) >= 2


@pytest.mark.parametrize("site", [*TRAINING, *HELD_OUT], ids=lambda site: site.name)
def test_sites_exist_and_have_targets(site):
    assert site.engine.kv_blocks
    for load in BenchmarkOptions().load:
        workload = site.at(load)
        assert workload.load == load
    table = workload.sample(0)
    assert len(table) and (table.ttft_slo < 1e9).all() and (table.tpot_slo < 1e9).all()


def test_a_site_whose_targets_cannot_be_met_is_told():
    feasible = {
        site.name: site.feasible(baselines.sarathi(token_budget=16384)) for site in HELD_OUT[:1] + HELD_OUT[5:6]
    }
    assert feasible == {"azure-code on h100-80gb": True, "azure-code on rtx4090-24gb": False}
