"""Cluster-v1: the scorer of engines with and without torch, discount and lambda in seconds, and a tiny training."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete

from agents.config import Training
from agents.sb3.engine_policy import OF_ALL, PER_ENGINE, EnginePolicy, EngineScorer
from agents.sb3.time_buffer import TimeDiscounted
from agents.training import train
from baselines.routers import ROUTERS
from llmsched_env.sb3.engine_network import EngineNetwork
from llmsched_env.sb3.policy_file import read_network

ENGINES = 3
WIDTH = ENGINES * PER_ENGINE + OF_ALL
TINY = Training(
    env="Cluster", engine=("llama-3.1-8b_h100-80gb_tp1_aic", "llama-3.1-8b_l40s-48gb_tp1_aic"), load=(0.5,),
    train_load=(0.5, 0.5), horizon=2.0, steps=256, num_envs=2, validations=2, tuning_seeds=1, trials=2, seeds=2,
    learner={"n_steps": 64, "batch_size": 64, "n_epochs": 2, "net_arch": 8},
)  # fmt: skip


def scorer(seed=0, sharpness=2.0):
    torch.manual_seed(seed)
    found = EngineScorer(WIDTH, hidden=8, sharpness=sharpness)
    for weights in found.score.parameters():
        torch.nn.init.normal_(weights)
    return found


def test_the_logit_of_an_engine_does_not_depend_on_its_place():
    network, features = scorer(), torch.rand(4, WIDTH)
    order = torch.tensor([2, 0, 1])
    engines = features[:, :-OF_ALL].reshape(4, ENGINES, PER_ENGINE)
    moved = torch.cat([engines[:, order].reshape(4, -1), features[:, -OF_ALL:]], dim=1)
    logits = network.forward_actor(features)
    torch.testing.assert_close(network.forward_actor(moved), logits[:, order])
    torch.testing.assert_close(network.forward_critic(moved), network.forward_critic(features))
    assert logits[0].std() > 0.1


def test_it_starts_with_the_engine_to_whose_calls_it_adds_least_or_without_preference():
    features = torch.rand(200, WIDTH)
    assert EngineScorer(WIDTH, 8, sharpness=0.0).forward_actor(features).abs().max() == 0.0
    logits = EngineScorer(WIDTH, 8, sharpness=3.0).forward_actor(features)
    engines = features[:, :-OF_ALL].reshape(200, ENGINES, PER_ENGINE)
    milliseconds = torch.expm1(engines[:, :, [2, 9, 10, 11, 3]] * np.log1p(1e6))
    cost = 1.0 + milliseconds @ torch.tensor([1.0, 1.0, 1.0, 1.0, 0.01])
    torch.testing.assert_close(logits, -3.0 * torch.log(cost), rtol=1e-4, atol=1e-4)


def test_numpy_decides_as_torch_does():
    space = Box(0, 1, (WIDTH,), np.float32)
    policy = EnginePolicy(space, Discrete(ENGINES), lambda _: 1e-3, hidden=8, sharpness=2.0)
    policy.mlp_extractor = scorer()
    network = EngineNetwork({k: v.detach().numpy() for k, v in policy.state_dict().items()}, Discrete(ENGINES))
    rng = np.random.default_rng(0)
    observations = rng.random((300, WIDTH), np.float32)
    theirs = policy.predict(observations, deterministic=True)[0]
    ours = [int(network(observation)) for observation in observations]
    assert ours == theirs.tolist() and len(set(ours)) == ENGINES
    assert network.num_features == WIDTH
    assert int(network(observations[0], np.arange(ENGINES) == (ours[0] + 1) % ENGINES)) == (ours[0] + 1) % ENGINES


def test_discount_and_lambda_count_seconds():
    """Two environments of three steps, worked by hand: half is discounted in 1 s, and lambda halves in 0.5 s."""
    per_second = 1 / np.log(2)
    buffer = TimeDiscounted(
        3, Box(0, 1, (1,)), Discrete(2), gamma=1.0, gae_lambda=1.0, n_envs=2, time_constant=per_second,
        lambda_seconds=0.5 * per_second,
    )  # fmt: skip
    starts = [[1, 1], [0, 0], [0, 1]]  # the second environment begins an episode at its last step
    for step in range(3):
        buffer.add(
            np.zeros((2, 1)), np.zeros((2, 1)), np.array([8.0, 4.0]), np.array(starts[step]), torch.tensor([2.0, 1.0]),
            torch.zeros(2),
        )  # fmt: skip
        buffer.seconds[step] = [1.0, 0.0] if step < 2 else [2.0, 1.0]
    buffer.compute_returns_and_advantage(torch.tensor([4.0, 6.0]), np.array([False, True]))
    # Environment 0, errors: 8 + 4/4 - 2 = 7 last, 8 + 2/2 - 2 = 7 before; a sum fades to 1/2 * 1/4 in a second.
    np.testing.assert_allclose(buffer.advantages[:, 0], [7 + (7 + 7 / 8) / 8, 7 + 7 / 8, 7], rtol=1e-6)
    np.testing.assert_allclose(buffer.returns[:, 0], [2 + 7 + (7 + 7 / 2) / 2, 2 + 7 + 7 / 2, 9], rtol=1e-6)
    # Environment 1: the last step ends an episode, and so does the one before; steps without time fade nothing.
    np.testing.assert_allclose(buffer.advantages[:, 1], [4 + 1 - 1 + 3, 3, 3], rtol=1e-6)
    np.testing.assert_allclose(buffer.returns[:, 1], [8, 4, 4], rtol=1e-6)


def test_advantages_may_be_relative_to_environments_of_the_same_requests():
    buffer = TimeDiscounted(2, Box(0, 1, (1,)), Discrete(2), n_envs=4, group=2)
    for rewards in ([1.0, 3.0, 5.0, 5.0], [0.0, 2.0, 1.0, 0.0]):
        buffer.add(np.zeros((4, 1)), np.zeros((4, 1)), np.array(rewards), np.zeros(4), torch.zeros(4), torch.zeros(4))
    buffer.compute_returns_and_advantage(torch.zeros(4), np.ones(4))
    np.testing.assert_allclose(buffer.advantages, [[-2, 2, 0.5, -0.5], [-1, 1, 0.5, -0.5]])
    np.testing.assert_allclose(buffer.returns, [[1, 5, 6, 5], [0, 2, 1, 0]])


def test_a_tiny_training_ends_with_a_policy_that_is_compared_with_tuned_rules(tmp_path, quiet):
    problem = train(TINY, tmp_path / "run", quiet)
    network = read_network(tmp_path / "run" / "best.zip")
    assert isinstance(network, EngineNetwork) and network.space.n == 2
    text = problem.report(tmp_path / "run" / problem.best, tmp_path, "llmsched train")
    assert all(name in text for name in ("agent", *ROUTERS, "least_outstanding_seconds (tuned)"))


@pytest.mark.parametrize("change", [{"version": 0}, {"env_arguments": {"routers": ("random",)}, "interval": 1.0}])
def test_only_policies_that_choose_engines_score_them(change):
    assert TINY.scores_engines and not replace(TINY, **change).scores_engines
