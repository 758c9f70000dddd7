"""Models of every algorithm run in `simulate` as in their environment, from a file and as an object."""

import numpy as np
import pytest
import torch
from stable_baselines3 import PPO

import llmsched_env as ls
from llmsched_env.sb3 import read_network
from tests.sb3.models import CASES, KNOBS, Case, episode, same_rows, train


@pytest.fixture(scope="module", params=CASES)
def case(request):
    return CASES[request.param]


@pytest.fixture(scope="module")
def model(case, runs):
    return train(case, runs)


@pytest.fixture
def path(case, model, tmp_path):
    """The model as Stable-Baselines3 saves it, with its statistics beside it if it has any."""
    model.save(tmp_path / "mine.zip")
    if case.normalized:
        model.get_vec_normalize_env().save(tmp_path / "mine.vecnormalize.pkl")
    return tmp_path / "mine.zip"


def test_the_network_in_a_file_decides_what_predict_decides(case, model, path):
    network, rng = read_network(path), np.random.default_rng(0)
    observations = rng.random((500, network.num_features), np.float32)
    if case.env == "RequestSelection":
        masks = rng.random((500, network.space.n)) < 0.5
        masks[:, -1] = True
        theirs = model.predict(observations, deterministic=True, action_masks=masks)[0]
        ours = [network(observation, mask) for observation, mask in zip(observations, masks, strict=True)]
    else:
        theirs = model.predict(observations, deterministic=True)[0]
        ours = [network(observation) for observation in observations]
    assert (np.ptp(theirs, axis=0) > 0).any()
    np.testing.assert_allclose(np.array(ours), theirs, atol=1e-5)  # torch sums in another order
    assert all(network.space.contains(np.asarray(action, network.space.dtype)) for action in ours)


def test_simulate_runs_it_as_the_environment_does(case, model, path, runs):
    workload, theirs, actions = episode(model, case, runs)
    assert len(np.unique(actions, axis=0)) > 1 and len(theirs.requests) > 50
    for policy in (path, model):
        scheduler = ls.as_scheduler(policy, case.env, **case.env_arguments)
        ours = ls.simulate(scheduler, workload, runs["engine"], horizon=runs["horizon"], record="entries")
        assert same_rows(ours, theirs)


def test_a_policy_that_numpy_cannot_evaluate_is_taken_as_a_model(runs, tmp_path):
    case = Case(PPO, "BatchQueue", KNOBS, {"n_steps": 16, "batch_size": 16}, {"activation_fn": torch.nn.Softplus})
    model = train(case, runs)
    model.save(tmp_path / "mine.zip")
    with pytest.raises(
        ValueError, match=r"mine\.zip is no trained policy: activation_fn .*Softplus.*as_scheduler\(model"
    ):
        ls.as_scheduler(tmp_path / "mine.zip", case.env, **case.env_arguments)
    workload, theirs, _ = episode(model, case, runs)
    scheduler = ls.as_scheduler(model, case.env, **case.env_arguments)
    with torch.no_grad():  # what training does after that changes nothing
        for weights in model.policy.parameters():
            weights *= -1.0
    ours = ls.simulate(scheduler, workload, runs["engine"], horizon=runs["horizon"], record="entries")
    assert same_rows(ours, theirs)
    many = ls.simulate_many(scheduler, runs["workload"], runs["engine"], [1, 1, 1, 1], 5.0, progress=False)
    assert len({run.requests.tobytes() for run in many}) == 1
