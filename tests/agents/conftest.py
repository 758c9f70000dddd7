import pytest
import torch
from stable_baselines3 import PPO

import llmsched_env as ls
from agents.sb3.checkpoint import AgentMeta
from llmsched_env.envs.batch_queue import BatchQueueVectorEnv, Knobs
from llmsched_env.sb3.vec_env import SB3VecEnv


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
def model(small):
    """An untrained PPO model whose decisions vary with the observation."""
    env = SB3VecEnv(BatchQueueVectorEnv(2, **small, decision_interval=0.1))
    model = PPO("MlpPolicy", env, n_steps=8, batch_size=16, seed=1, device="cpu")
    with torch.no_grad():
        model.policy.action_net.weight.normal_(0.0, 3.0)
        model.policy.action_net.bias.normal_(0.0, 0.3)
    return model


@pytest.fixture(params=[0.1, None], ids=["ticks", "batches"])
def meta(knobs, request):
    """The description of that model, deciding at ticks or before every batch."""
    return AgentMeta("toy", knobs, request.param, {"steps": 16})
