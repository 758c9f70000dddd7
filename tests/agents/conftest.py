import pytest

import llmsched_env as ls
from llmsched_env.envs.batch_queue import Knobs


@pytest.fixture
def knobs():
    """Few levels, all of which matter to the toy engine."""
    return Knobs((32, 64, 256), (4, float("inf")))


@pytest.fixture
def small(knobs):
    """Arguments of a small, busy environment: a toy engine, short requests, few seconds."""
    engine = ls.EngineConfig(ls.Staircase(c=0.01, a=0.02, b0=64), token_budget=2048)
    slo = ls.SLO(ttft=0.5, tpot=0.05)
    workload = ls.Workload.poisson(10.0, ls.dist.Uniform(1, 400), ls.dist.Geometric(20), horizon=20.0, slo=slo)
    levels = {"token_budgets": knobs.token_budgets, "admission_limits": knobs.admission_limits}
    return {"workload": workload, "engine": engine, "load": 0.9, "horizon": 10.0, **levels}


@pytest.fixture
def quiet():
    """Says nothing."""
    return lambda line: None
