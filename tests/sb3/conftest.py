import pytest
import torch

import llmsched_env as ls


@pytest.fixture(autouse=True)
def one_thread():
    """More threads only take turns on networks this small."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def runs():
    """Arguments of a small, busy environment: a toy engine, short requests, few seconds."""
    engine = ls.EngineConfig(ls.Staircase(c=0.01, a=0.02, b0=64), token_budget=2048)
    slo = ls.SLO(ttft=0.5, tpot=0.05)
    workload = ls.Workload.poisson(10.0, ls.dist.Uniform(1, 400), ls.dist.Geometric(20), horizon=20.0, slo=slo)
    return {"workload": workload, "engine": engine, "load": 0.9, "horizon": 10.0}


@pytest.fixture(scope="session")
def levels():
    """Few levels of the knobs of BatchQueue, all of which matter to that engine."""
    return {"token_budgets": (32.0, 64.0, 256.0), "admission_limits": (4.0, float("inf"))}


@pytest.fixture
def small(runs, levels):
    return runs | levels
