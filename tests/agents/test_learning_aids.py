"""Learning aids: the reference, shared traces, the curriculum and the pull back to the start."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.save_util import load_from_zip_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from agents.config import Training
from agents.curriculum import Curriculum
from agents.problems.engine import EngineProblem
from agents.sb3.algorithms import BudgetedPPO, make_model
from agents.sb3.environment import normalized
from agents.sb3.group_baseline import GroupBaselineBuffer
from agents.sb3.pull_to_start import PullToStart, actor_weights
from agents.training import train
from agents.training_budget import TrainingBudget
from llmsched_env.envs.batch_queue import BatchQueueVectorEnv
from llmsched_env.envs.episodes import Episodes

STEPS = 4 * 16  # of one update, which is one full episode of each environment
LEARNER = {"n_steps": 16, "batch_size": 32, "n_epochs": 2, "net_arch": (8, 8), "target_kl": 100.0}
TINY = Training(
    load=(0.5,), train_load=(0.4, 1.2), steps=2 * STEPS, num_envs=4, horizon=4.0, tuning_seeds=1, trials=0, seeds=3,
    validations=1, learner=LEARNER, env_arguments={"actions": "knobs"}, reward="latency", workload="azure-chat",
)  # fmt: skip


class Stop(Exception):
    """Ends a training before its first step."""


def about_to_learn(config, folder, monkeypatch):
    """The model and the callbacks of a training that is about to begin or go on."""
    seen = {}

    def learn(self, steps, callbacks, **kwargs):
        seen.update(model=self, callbacks=callbacks)
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(BudgetedPPO, "learn", learn)
        with pytest.raises(Stop):
            train(config, folder, lambda line: None)
    return seen["model"], seen["callbacks"]


def small_model(small, settings=LEARNER):
    """An untrained model of two small environments."""
    config = Training(interval=0.1, num_envs=2, aids={"shared_traces": 1}, learner=settings)
    env = normalized(BatchQueueVectorEnv(2, **small, decision_interval=0.1), config)
    env.seed(0)
    return make_model(config, env, TrainingBudget(10**9), seed=0)


@pytest.mark.parametrize("reference", [True, False])
def test_the_static_baseline_is_the_reference(tmp_path, monkeypatch, quiet, reference):
    config = replace(TINY, aids={"reference": reference})
    model, _ = about_to_learn(config, tmp_path, monkeypatch)
    problem = EngineProblem(config, quiet)
    best = problem.static_best
    model.env.reset()
    totals = np.zeros(4)
    for _ in range(15):
        model.env.step(np.tile(best.action, (4, 1)))
        totals += model.env.get_original_reward()
    assert (totals == 0).all() if reference else (totals < 0).all()


def test_episodes_grow_to_their_full_size():
    curriculum = Curriculum(load=(0.6, 1.0), horizon=120.0, interval=0.25, share=0.5, start=0.25)
    for spent, size in [(0.0, 0.25), (0.25, 0.625), (0.4999, 0.985), (0.5, 1.0), (1.0, 1.0)]:
        (low, high), horizon = curriculum.at(spent)
        assert (low, high, horizon) == pytest.approx((0.6, 0.6 + size * 0.4, size * 120.0))
    assert curriculum.at(1.0) == ((0.6, 1.0), 120.0)
    assert replace(curriculum, share=0.0).at(0.0) == ((0.6, 1.0), 120.0)
    assert replace(curriculum, interval=50.0).at(0.0)[1] == 50.0


def test_training_begins_with_small_episodes_and_a_resumed_one_goes_on_there(tmp_path, monkeypatch, quiet):
    drawn, draw = [], Episodes.draw

    def noted(self, rng):
        drawn.append((self.load[1], self.horizon))
        return draw(self, rng)

    monkeypatch.setattr(Episodes, "draw", noted)
    config = replace(TINY, steps=4 * STEPS, aids={"curriculum": 0.75, "curriculum_start": 0.25})
    real, calls = BudgetedPPO.train, []

    def interrupted(self):
        calls.append(self.num_timesteps)
        if len(calls) == 2:
            raise KeyboardInterrupt
        real(self)

    monkeypatch.setattr(BudgetedPPO, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path, quiet)
    sizes = [(load[1], horizon) for load, horizon in (Curriculum.of(config).at(k / 4) for k in range(4))]
    assert sizes[0] == pytest.approx((0.6, 1.0)) and sizes[3] == (1.2, 4.0)
    assert drawn[:4] == sizes[:1] * 4
    assert set(drawn) == set(sizes[:2])  # as it was interrupted half of the budget was spent, and the third to come
    drawn.clear()
    train(config, tmp_path, quiet)
    assert drawn[:4] == sizes[2:3] * 4 and set(drawn) == set(sizes[2:])
    events = EventAccumulator(str(tmp_path / "tensorboard/agent"), size_guidance={"scalars": 0})
    events.Reload()
    logged = {e.step: e.value for e in events.Scalars("curriculum/highest_load")}
    assert logged[4 * STEPS] == pytest.approx(1.2) and logged[STEPS] == pytest.approx(0.6)


@pytest.mark.parametrize("pull", [0.0, 0.5, 1.0])
def test_the_pull_holds_the_policy(small, pull):
    model = small_model(small)  # hardly any of its budget will be spent
    start, value = actor_weights(model.policy.state_dict()), model.policy.value_net.weight.clone()
    before = {name: weights.clone() for name, weights in start.items()}
    model.learn(3 * 32, [PullToStart(pull, start, model.budget)])
    assert model._n_updates == 6 and not torch.equal(model.policy.value_net.weight, value)
    after = actor_weights(model.policy.state_dict())
    assert len(after) == 6
    away = max(float((after[name] - weights).abs().max()) for name, weights in before.items())
    assert away < 1e-8 if pull == 1 else away > 1e-4


def test_the_pull_decays_and_follows_each_update_once(small):
    model = small_model(small)
    start = {name: torch.zeros_like(w) for name, w in actor_weights(model.policy.state_dict()).items()}
    model.set_logger(Logger(None, []))
    anchor = PullToStart(0.8, start, TrainingBudget(100))
    model._n_updates = 7
    anchor.init_callback(model)
    biases = model.policy.action_net.bias
    with torch.no_grad():
        biases.fill_(1.0)
    anchor.on_rollout_start()  # a resumed training: nothing has been updated since
    assert (biases == 1.0).all()
    for updates, spent, expected in [(8, 0, 0.2), (8, 0, 0.2), (9, 50, 0.2 * 0.6), (10, 100, 0.2 * 0.6)]:
        model._n_updates, anchor.num_timesteps = updates, spent
        anchor.on_rollout_start()
        assert biases.detach().numpy() == pytest.approx(expected)


def test_a_resumed_anchor_is_tied_to_the_first_policy(tmp_path, monkeypatch, quiet):
    config = replace(TINY, aids={"anchor": 0.3, "shared_traces": 2})
    train(config, tmp_path, quiet)
    _, callbacks = about_to_learn(replace(config, steps=4 * STEPS), tmp_path, monkeypatch)
    anchor = next(callback for callback in callbacks if isinstance(callback, PullToStart))
    first, last = (load_from_zip_file(tmp_path / name)[1]["policy"] for name in ("first.zip", "last.zip"))
    for name, weights in anchor._start.items():
        assert torch.equal(weights, first[name])
    assert not torch.equal(last["action_net.bias"], first["action_net.bias"])


def test_advantages_are_relative_to_the_group():
    rng = np.random.default_rng(0)
    space = Box(0, 1, (2,))
    plain = RolloutBuffer(5, space, space, n_envs=6, gamma=0.9, gae_lambda=0.8)
    group = GroupBaselineBuffer(5, space, space, n_envs=6, gamma=0.9, gae_lambda=0.8, group=3)
    for _ in range(5):
        values, starts = torch.tensor(rng.normal(size=(6, 1))), rng.random(6) < 0.3
        row = rng.random((6, 2)), rng.random((6, 2)), rng.normal(size=6), starts, values, torch.zeros(6)
        plain.add(*row)
        group.add(*row)
    last = torch.tensor(rng.normal(size=(6, 1)))
    for buffer in (plain, group):
        buffer.compute_returns_and_advantage(last, np.zeros(6))
    np.testing.assert_array_equal(group.returns, plain.returns)
    for first in (0, 3):
        ours, theirs = (buffer.advantages[:, first : first + 3] for buffer in (group, plain))
        np.testing.assert_allclose(ours, theirs - theirs.mean(axis=1, keepdims=True), atol=1e-6)
        assert abs(theirs.mean(axis=1)).min() > 1e-3


def test_ppo_compares_environments_that_share_their_requests(tmp_path, monkeypatch):
    model, _ = about_to_learn(replace(TINY, aids={"shared_traces": 2}), tmp_path, monkeypatch)
    assert isinstance(model.rollout_buffer, GroupBaselineBuffer) and model.rollout_buffer.group == 2
    model.env.reset()
    tables = [table.arrival.tobytes() for table in model.env.unwrapped.env._runner.tables]
    assert tables[0] == tables[1] != tables[2] == tables[3]
