"""Selection: the slot scorer with and without torch, discounts in time, and a tiny training that is resumed."""

from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.save_util import load_from_zip_file

import llmsched_env as ls
from agents.config import Training
from agents.sb3.algorithms import make_model
from agents.sb3.callbacks import NoteSeconds
from agents.sb3.environment import normalized
from agents.sb3.slot_policy import SlotScorer
from agents.sb3.time_buffer import MaskableTimeDiscounted
from agents.training import train
from agents.training_budget import TrainingBudget
from llmsched_env.envs.as_scheduler import as_scheduler
from llmsched_env.envs.batch_queue import NUM_FEATURES, ORDERS, parametric
from llmsched_env.envs.request_selection import BATCH_FEATURES, SLOT_FEATURES
from llmsched_env.sb3.mlp_policies import network_of_model
from llmsched_env.sb3.policy_file import read_description
from llmsched_env.sb3.vec_env import SB3VecEnv

GLOBAL, PER_SLOT = NUM_FEATURES + len(BATCH_FEATURES), len(SLOT_FEATURES)
STEPS = 4 * 32  # of one update
TINY = Training(
    env="RequestSelection", load=(0.5,), horizon=3.0, steps=2 * STEPS, num_envs=4, validations=2, tuning_seeds=1,
    trials=0, seeds=2, learner={"n_steps": 32, "batch_size": 64, "n_epochs": 2, "net_arch": 8},
)  # fmt: skip


@pytest.fixture
def small_selection(small):
    return {name: small[name] for name in ("workload", "engine", "load")} | {"horizon": 3.0, "slots": 4}


def model_of(config, num_envs, arguments):
    """An untrained model and its environment."""
    env = gym.make_vec(config.env_id, num_envs=num_envs, vectorization_mode="vector_entry_point", **arguments)
    env = normalized(env, config)
    return make_model(config, env, TrainingBudget(10**6), seed=0), env


def test_the_logit_of_a_slot_does_not_depend_on_its_place():
    torch.manual_seed(0)
    scorer = SlotScorer(GLOBAL + 5 * PER_SLOT, hidden=8, shortest_first=3.0)
    torch.nn.init.normal_(scorer.score[-1].weight)
    features = torch.rand(2, GLOBAL + 5 * PER_SLOT)
    order = torch.tensor([3, 0, 4, 1, 2])
    slots = features[:, GLOBAL:].reshape(2, 5, PER_SLOT)
    moved = torch.cat([features[:, :GLOBAL], slots[:, order].reshape(2, -1)], dim=1)
    logits, shuffled = scorer.forward_actor(features), scorer.forward_actor(moved)
    torch.testing.assert_close(shuffled, torch.cat([logits[:, order], logits[:, 5:]], dim=1))
    torch.testing.assert_close(scorer.forward_critic(moved), scorer.forward_critic(features))
    assert logits[0, :5].std() > 0.1


@pytest.mark.parametrize("start", ["tuned", "scratch"])
def test_numpy_decides_as_torch_does(small_selection, start):
    model, env = model_of(replace(TINY, start=start), 2, small_selection)
    torch.manual_seed(1)
    with torch.no_grad():
        for weights in model.policy.parameters():
            weights.normal_()
    network, rng = network_of_model(model), np.random.default_rng(0)
    for _ in range(200):
        observation = rng.random(env.observation_space.shape, np.float32)
        mask = rng.random(5) < 0.7
        mask[rng.integers(5)] = True
        assert int(network(observation, mask)) == int(
            model.predict(observation, deterministic=True, action_masks=mask)[0]
        )


def test_the_first_policy_is_the_shortest_prompt_first(small_selection):
    choices = {"slots": 512, "token_budget": 300}
    model, _ = model_of(TINY, 1, small_selection | choices)
    workload = small_selection["workload"].at_load(1.0, small_selection["engine"])
    agent = as_scheduler(model, TINY.env_id, **choices)
    rule = parametric(token_budget=300, order=ORDERS.index("shortest_prompt"))
    ours, theirs = (ls.simulate(s, workload, small_selection["engine"], seed=3) for s in (agent, rule))
    assert len(ours.requests) > 50
    assert ours.requests.tobytes() == theirs.requests.tobytes()


def test_discounts_count_the_time_of_each_step():
    rng = np.random.default_rng(0)
    box, actions = gym.spaces.Box(0, 1, (3,)), gym.spaces.Discrete(2)
    buffer = MaskableTimeDiscounted(6, box, actions, "cpu", gae_lambda=0.9, gamma=1.0, n_envs=2, time_constant=5.0)
    buffer.rewards[:], buffer.values[:] = rng.normal(size=(2, 6, 2))
    buffer.seconds[:] = rng.choice([0.0, 1.0, 7.0], size=(6, 2))
    buffer.episode_starts[:] = 0
    buffer.episode_starts[3, 1] = 1
    last = rng.normal(size=2).astype(np.float32)
    buffer.compute_returns_and_advantage(torch.tensor(last), np.array([False, True]))
    for env in range(2):
        ends = [step + 1 for step in range(5) if buffer.episode_starts[step + 1, env]] + ([6] if env == 1 else [])
        values = np.append(buffer.values[:, env], last[env])
        for step in range(6):
            expected, weight = 0.0, 1.0
            for k in range(step, 6):  # the sum that defines the estimate
                discount = np.exp(-buffer.seconds[k, env] / 5.0) * (k + 1 not in ends)
                expected += weight * (buffer.rewards[k, env] + discount * values[k + 1] - values[k])
                weight *= 0.9 * discount
            assert buffer.advantages[step, env] == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_the_adapter_knows_how_long_steps_took_and_what_is_allowed(small_selection):
    adapter = SB3VecEnv(gym.make_vec("llmsched/RequestSelection-v0", num_envs=3, **small_selection))
    adapter.seed(4)
    adapter.reset()
    rng = np.random.default_rng(0)
    passed, ended = np.zeros(3), 0
    begun = adapter._times.copy()
    for _ in range(300):
        masks = np.stack(adapter.env_method("action_masks"))
        np.testing.assert_array_equal(masks, adapter.env.action_masks())
        _, rewards, dones, _ = adapter.step([int(rng.choice(np.flatnonzero(mask))) for mask in masks])
        assert ((adapter.seconds > 0) | (rewards == 0)).all()
        passed += adapter.seconds
        for i in np.flatnonzero(dones):
            ended += 1
            assert begun[i] + passed[i] == pytest.approx(3.0)
            passed[i], begun[i] = 0.0, adapter._times[i]
    assert ended >= 3
    with pytest.raises(NotImplementedError, match="'render'"):
        adapter.env_method("render")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A training of two updates, resumed for two more."""
    folder = tmp_path_factory.mktemp("selection") / "run"
    said = []
    train(TINY, folder, said.append)
    first = read_description(folder / "last.zip").training
    optimizer = load_from_zip_file(folder / "last.zip", device="cpu")[1]["policy.optimizer"]
    problem = train(replace(TINY, steps=4 * STEPS), folder, said.append)
    return folder, problem, first, optimizer, said


def test_resuming_goes_on_where_training_stopped(trained):
    folder, _, first, before, said = trained
    state = read_description(folder / "last.zip").training
    assert (first["steps"], state["steps"]) == (2 * STEPS, 4 * STEPS)
    after = load_from_zip_file(folder / "last.zip", device="cpu")[1]["policy.optimizer"]
    counts = [{float(s["step"]) for s in saved["state"].values()} for saved in (before, after)]
    assert counts == [{8.0}, {16.0}]  # 2 updates of 2 epochs of 2 minibatches, then as many again
    assert state["reward_statistics"]["count"] > first["reward_statistics"]["count"]
    assert "Going on from 256 steps." in said
    assert list((folder / "tensorboard").rglob("events*"))


def test_the_report_is_that_of_any_scheduler(trained):
    folder, problem, *_ = trained
    text = problem.report(folder / problem.best, folder, "llmsched train")
    assert all(name in text for name in ("agent", "neutral", "shortest_prompt"))
    assert "the agent has a Mean E2E latency" in " ".join(text.split())


def test_seconds_reach_the_buffer(small_selection):
    model, env = model_of(TINY, 2, small_selection)
    model.learn(64, NoteSeconds(env.unwrapped))
    seconds = model.rollout_buffer.seconds
    assert (seconds > 0).any() and (seconds == 0).any() and (seconds >= 0).all()
