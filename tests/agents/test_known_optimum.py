"""PPO, DQN, MaskablePPO and evolution strategies, each from scratch, against the optimum of a small problem.

Eight prompts are there at time 0 and a batch takes 0.1 s and 0.02 s for each 64 tokens, so that many small batches cost
as much as serving the long prompts first. The sum of latencies is least in some sequence of batches of whole prompts:
if tokens of a prompt are moved to the batch in which it finishes, no batch ends later from that one on, and those
before end earlier. So the optimum over all schedules is that over partitions of the prompts into batches in sequence,
which dynamic programming over the subsets still to be served finds. What a learner has learned is its place between the
mean of random actions (0) and that optimum (1).
"""

from functools import cache
from math import inf

import numpy as np
import pytest

import llmsched_env as ls
from agents.config import Training
from agents.problems.engine import EngineProblem
from agents.problems.workload_split import Split
from agents.search.network_policy import NetworkSearch
from agents.training import learner_of
from llmsched_env.envs.batch_queue import BatchQueueEnv
from llmsched_env.envs.request_selection import RequestSelectionEnv
from llmsched_env.sb3.policy_file import read_network

UNIT, START, EACH = 64, 0.1, 0.02
PROMPTS = [8, 1, 6, 2, 4, 1, 3, 1]
ENGINE = ls.EngineConfig(ls.Staircase(c=START, a=EACH, b0=UNIT))
WORKLOAD = ls.Workload.from_arrays([0.0] * 8, [UNIT * n for n in PROMPTS], [1] * 8)
PROBLEM = {"workload": WORKLOAD, "engine": ENGINE, "load": None, "horizon": None}
BUDGETS = (128, 256, 512, 640, 1024)
LEVELS = {"token_budgets": BUDGETS}
ARMS = [[budget, 5, order, 0] for budget in range(len(BUDGETS)) for order in (0, 1)]
CHOICES = {"slots": 8, "token_budget": 4096}
ENOUGH = 0.95


@cache
def least_total_latency(left=(0, 1, 2, 3, 4, 5, 6, 7)):
    """Of the prompts left, over all sequences of batches of whole prompts."""
    if not left:
        return 0.0
    totals = []
    for chosen in range(1, 2 ** len(left)):
        batch = [PROMPTS[i] for k, i in enumerate(left) if chosen >> k & 1]
        rest = tuple(i for k, i in enumerate(left) if not chosen >> k & 1)
        totals.append(len(left) * (START + EACH * sum(batch)) + least_total_latency(rest))
    return min(totals)


def total_latency(env, act):
    """Of one episode."""
    obs, info = env.reset(seed=0)
    total, over = 0.0, False
    while not over:
        obs, reward, over, _, info = env.step(act(obs, info))
        total -= reward
    return total


def learned(env, act):
    """0: as good as random actions, 1: optimal."""
    rng = np.random.default_rng(0)

    def random(obs, info):
        mask = info.get("action_mask", np.ones(env.action_space.n))
        return int(rng.choice(np.flatnonzero(mask)))

    chance = np.mean([total_latency(env, random) for _ in range(400)])
    return (chance - total_latency(env, act)) / (chance - least_total_latency())


def arms_env():
    return BatchQueueEnv(**PROBLEM, **LEVELS, arms=ARMS)


def test_the_optimum_is_reached_by_some_actions_and_by_no_constant_one():
    assert least_total_latency() == pytest.approx(8 * 0.26 + 3 * 0.3 + 0.26)  # 1 1 1 2 3, then 4 6, then 8
    env = arms_env()
    plan = iter([ARMS.index([2, 5, 1, 0]), ARMS.index([3, 5, 1, 0]), ARMS.index([4, 5, 1, 0])])
    assert total_latency(env, lambda obs, info: next(plan)) == pytest.approx(least_total_latency())
    constants = [learned(env, lambda obs, info, arm=arm: arm) for arm in range(len(ARMS))]
    assert max(constants) < 0.85
    selection = RequestSelectionEnv(**PROBLEM, **CHOICES)
    picks = iter([1, 4, 5, 2, 3, 8, 1, 1, 8, 0])  # of the slots, those behind a picked one having moved up; 8: run
    assert total_latency(selection, lambda obs, info: next(picks)) == pytest.approx(least_total_latency())
    assert learned(selection, lambda obs, info: int(np.argmax(info["action_mask"]))) < 0.3  # all in one batch


def trained(folder, **config):
    """How well the best policy of a training of this problem does, by the training that everything is trained by."""
    if config.get("env", "BatchQueue") == "BatchQueue":
        config["env"] = "BatchQueue-v0"  # whose levels can be chosen
    about = Training(
        load=("recorded",), train_load=(), horizon=inf, interval=0.0, start="scratch", tuning_seeds=1, trials=0,
        reward="latency", validations=10, **config,
    )  # fmt: skip
    problem = EngineProblem(about, lambda line: None, Split(WORKLOAD, WORKLOAD, WORKLOAD, recorded=True), ENGINE)
    learns = NetworkSearch(problem) if about.searches else problem
    learner_of(learns, folder, lambda line: None).train()
    policy = read_network(folder / learns.best)
    if about.env == "BatchQueue":
        return learned(arms_env(), lambda obs, info: int(policy(obs)))
    return learned(RequestSelectionEnv(**PROBLEM, **CHOICES), lambda obs, info: int(policy(obs, info["action_mask"])))


ARMS_OF_KNOBS = {"arms": ARMS, **LEVELS, "admission_limits": arms_env().knobs.admission_limits}


@pytest.mark.slow
def test_ppo_learns_it(tmp_path):
    settings = {"n_steps": 64, "batch_size": 256, "learning_rate": 2e-3, "ent_coef": 0.02}
    found = trained(tmp_path, steps=60_000, num_envs=16, learner=settings, env_arguments=ARMS_OF_KNOBS)
    assert found >= ENOUGH


@pytest.mark.slow
def test_dqn_learns_it(tmp_path):
    settings = {
        "buffer_size": 20_000, "learning_starts": 1000, "batch_size": 128, "train_freq": 2, "gradient_steps": 4,
        "learning_rate": 2e-3, "target_update_interval": 500, "exploration_fraction": 0.7,
    }  # fmt: skip
    found = trained(tmp_path, algo="dqn", steps=40_000, num_envs=8, learner=settings, env_arguments=ARMS_OF_KNOBS)
    assert found >= ENOUGH


@pytest.mark.slow
def test_maskable_ppo_learns_it(tmp_path):
    settings = {"n_steps": 128, "batch_size": 512, "ent_coef": 0.02, "learning_rate": 2e-3, "time_constant": inf}
    found = trained(
        tmp_path, env="RequestSelection", steps=250_000, num_envs=16, learner=settings, env_arguments=CHOICES
    )
    assert found >= ENOUGH


@pytest.mark.slow
def test_evolution_strategies_learn_it(tmp_path):
    settings = {"generations": 300, "runs": 1, "noise": 0.5, "learning_rate": 0.15, "decay": 1.0}
    assert trained(tmp_path, algo="es", learner=settings, env_arguments=ARMS_OF_KNOBS) >= ENOUGH
