"""PPO, DQN, MaskablePPO and evolution strategies, each from scratch, against the optimum of a small problem.

Eight prompts are there at time 0 and a batch takes 0.1 s and 0.02 s for each 64 tokens, so that many small batches cost
as much as serving the long prompts first. The sum of latencies is least in some sequence of batches of whole prompts:
if tokens of a prompt are moved to the batch in which it finishes, no batch ends later from that one on, and those
before end earlier. So the optimum over all schedules is that over partitions of the prompts into batches in sequence,
which dynamic programming over the subsets still to be served finds. What a learner has learned is its place between the
mean of random actions (0) and that optimum (1).
"""

from functools import cache
from math import exp, inf, log

import numpy as np
import pytest

import llmsched_env as ls
from agents.problems.selection import make_env as make_selection_env
from agents.sb3.dqn import DQNSettings, make_dqn
from agents.sb3.environment import make_training_env
from agents.sb3.maskable_ppo import MaskablePPOSettings, make_maskable_ppo
from agents.sb3.ppo import PPOSettings, make_model
from agents.sb3.slot_policy import NoteSeconds
from agents.search.evolution import EvolutionStrategy
from agents.training_budget import TrainingBudget
from llmsched_env.envs.batch_queue import BatchQueueEnv
from llmsched_env.envs.request_selection import RequestSelectionEnv

UNIT, START, EACH = 64, 0.1, 0.02
PROMPTS = [8, 1, 6, 2, 4, 1, 3, 1]
ENGINE = ls.EngineConfig(ls.Staircase(c=START, a=EACH, b0=UNIT))
WORKLOAD = ls.Workload.from_arrays([0.0] * 8, [UNIT * n for n in PROMPTS], [1] * 8)
PROBLEM = {"workload": WORKLOAD, "engine": ENGINE, "load": None, "horizon": None}
KNOBS = BatchQueueEnv(**PROBLEM).knobs
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


@pytest.mark.slow
def test_ppo_learns_it():
    settings = PPOSettings(n_steps=64, batch_size=256, learning_rate=2e-3, ent_coef=0.02, gae_lambda=0.98)
    env = make_training_env(16, None, settings.time_constant, **PROBLEM, **LEVELS, arms=ARMS)
    model = make_model(env, None, settings, TrainingBudget(60_000), seed=0)
    model.learn(60_000)
    assert learned(arms_env(), lambda obs, info: int(model.predict(obs, deterministic=True)[0])) >= ENOUGH


@pytest.mark.slow
def test_dqn_learns_it():
    settings = DQNSettings(
        buffer_size=20_000, learning_starts=1000, batch_size=128, train_freq=2, gradient_steps=4,
        learning_rate=2e-3, target_update_interval=500, exploration_fraction=0.7,
    )  # fmt: skip
    env = make_training_env(8, None, settings.time_constant, **PROBLEM, **LEVELS, arms=ARMS)
    model = make_dqn(env, 1.0, settings, TrainingBudget(40_000), seed=0)
    model.learn(40_000)
    assert learned(arms_env(), lambda obs, info: int(model.predict(obs, deterministic=True)[0])) >= ENOUGH


@pytest.mark.slow
def test_maskable_ppo_learns_it():
    settings = MaskablePPOSettings(
        n_steps=128, batch_size=512, ent_coef=0.02, learning_rate=2e-3, time_constant=inf, shortest_first=0.0
    )
    env = make_selection_env(16, **PROBLEM, **CHOICES)
    model = make_maskable_ppo(env, settings, TrainingBudget(250_000), seed=0)
    model.learn(250_000, NoteSeconds(env.unwrapped))

    def act(obs, info):
        return int(model.predict(obs, deterministic=True, action_masks=info["action_mask"])[0])

    assert learned(RequestSelectionEnv(**PROBLEM, **CHOICES), act) >= ENOUGH


def linear(view):
    """Whole prompts by a weight of their length and of their place, until the batch is as long as they call for."""
    weights, n = view.mem.params, len(view.waiting)
    if n == 0:
        return inf
    work = 0.0
    for i in view.waiting:
        work += view.req.prompt_tokens[i]
    enough = exp(5.0 + 5.0 * weights[0] + weights[1] * log(n) + weights[2] * log(work / 64))
    keys = weights[3] * np.log(view.req.prompt_tokens[view.waiting] / 64) + weights[4] * np.arange(n) / n
    tokens = 0.0
    for i in view.waiting[np.argsort(keys, kind="mergesort")]:
        if tokens < enough:
            ls.take(view, i, ls.ALL)
            tokens += view.req.prompt_tokens[i]
    return inf


@pytest.mark.slow
def test_evolution_strategies_learn_it():
    def cost(weights):
        scheduler = ls.Scheduler("linear", linear, weights=tuple(weights.tolist()))
        rows = ls.simulate(scheduler, WORKLOAD, ENGINE, record="requests").requests
        return float((rows.finish - rows.arrival).sum())

    strategy = EvolutionStrategy(np.zeros(5), noise=0.2, learning_rate=0.05, pairs=12, seed=0)
    chance = np.mean([cost(weights) for weights in np.random.default_rng(0).normal(0, 1, (400, 5))])
    for _ in range(120):
        strategy.learning_rate *= 0.985
        strategy.tell(-np.array([cost(weights) for weights in strategy.ask()]))
    assert (chance - cost(strategy.center)) / (chance - least_total_latency()) >= ENOUGH
