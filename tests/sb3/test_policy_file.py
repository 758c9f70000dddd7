"""Files of policies: what is saved comes back, foreign and tampered ones are refused, and nothing in them is run."""

import json
import os
import pickle
import subprocess
import sys
import zipfile
from math import inf
from pathlib import Path

import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete, MultiDiscrete
from stable_baselines3 import PPO

import llmsched_env as ls
from llmsched_env.envs.as_scheduler import features_of
from llmsched_env.sb3 import MLP, PolicyDescription, read_description, read_network, save_policy
from tests.sb3.models import CASES, Case, same_rows, train

BATCH_QUEUE = "llmsched/BatchQueue-v0"
KNOBS = {"token_budgets": (32.0, 64.0, 256.0), "admission_limits": (4.0, inf), "decision_interval": 0.1}


class Bomb:
    """What runs a command when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.fixture(scope="module")
def model(runs):
    return train(CASES["PPO"], runs)


@pytest.fixture
def description():
    return PolicyDescription("mine", BATCH_QUEUE, KNOBS, features_of(BATCH_QUEUE), {"steps": 64})


@pytest.fixture
def path(model, description, tmp_path):
    return save_policy(tmp_path / "deeper" / "mine.zip", description, model=model)


def network(space, features=3, squashed=False):
    rng, outputs = np.random.default_rng(0), {Discrete: 4, MultiDiscrete: 5, Box: 2}[type(space)]
    layers = [(rng.normal(size=(n, m)), rng.normal(size=n)) for m, n in ((features, 6), (6, outputs))]
    return MLP(layers, "relu", space, squashed=squashed)


def rewritten(path, target, **members):
    """A copy of a file with other members, named with _ for every dot."""
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(target, "w") as archive:
        for name, member in (content | {name.replace("_", "."): member for name, member in members.items()}).items():
            archive.writestr(name, member)
    return target


def test_the_description_comes_back_and_the_file_is_a_model(path, description, model):
    assert read_description(path) == description
    scheduler = ls.as_scheduler(path)
    assert (scheduler.name, scheduler.controller.interval) == ("mine", 0.1)
    again = PPO.load(path, device="cpu")
    obs = np.random.default_rng(1).random((50, len(description.features)), np.float32)
    np.testing.assert_array_equal(again.predict(obs, deterministic=True)[0], model.predict(obs, deterministic=True)[0])


def test_statistics_of_observations_are_saved_with_the_model(runs, tmp_path):
    case = CASES["PPO, normalized"]
    model = train(case, runs)
    path = save_policy(tmp_path / "mine.zip", PolicyDescription("mine", BATCH_QUEUE, KNOBS), model=model)
    digests = {ls.as_scheduler(policy, BATCH_QUEUE, **KNOBS).controller.digest for policy in (path, model)}
    assert len(digests) == 1
    assert ls.as_scheduler(path, vec_normalize=False).controller.digest not in digests


def test_statistics_are_found_beside_a_file_or_where_they_are_said_to_be(runs, tmp_path):
    case = CASES["PPO, normalized"]
    model = train(case, runs)
    model.save(tmp_path / "mine.zip")
    expected = ls.as_scheduler(model, BATCH_QUEUE, **KNOBS).controller.digest
    statistics = model.get_vec_normalize_env()
    (tmp_path / "elsewhere").mkdir()
    for place, given in (
        ("vecnormalize.pkl", None),
        ("mine.vecnormalize.pkl", None),
        ("elsewhere/any.pkl", tmp_path / "elsewhere" / "any.pkl"),
    ):
        statistics.save(tmp_path / place)
        found = ls.as_scheduler(tmp_path / "mine.zip", BATCH_QUEUE, vec_normalize=given, **KNOBS)
        assert found.controller.digest == expected, place
        (tmp_path / place).unlink()
    assert ls.as_scheduler(tmp_path / "mine.zip", BATCH_QUEUE, **KNOBS).controller.digest != expected
    by_object = ls.as_scheduler(tmp_path / "mine.zip", BATCH_QUEUE, vec_normalize=statistics, **KNOBS)
    assert by_object.controller.digest == expected
    statistics.norm_obs = False  # rewards alone
    statistics.save(tmp_path / "rewards.pkl")
    plain = ls.as_scheduler(tmp_path / "mine.zip", BATCH_QUEUE, vec_normalize=tmp_path / "rewards.pkl", **KNOBS)
    assert plain.controller.normalization is None


def test_statistics_of_other_observations_are_refused(model, path, runs):
    other = train(CASES["MaskablePPO, normalized"], runs, steps=32).get_vec_normalize_env()
    with pytest.raises(ValueError, match=r"vec_normalize must be of 37 features, got 75"):
        ls.as_scheduler(path, vec_normalize=other)
    with pytest.raises(ValueError, match="vec_normalize must be a VecNormalize"):
        ls.as_scheduler(path, vec_normalize=3)


@pytest.mark.parametrize(
    ("space", "squashed"),
    [(Discrete(4), False), (MultiDiscrete([2, 3]), False), (Box(-1, 2, (2,)), False), (Box(-1, 2, (2,)), True)],
)
def test_a_network_without_a_model_comes_back(tmp_path, space, squashed):
    given = network(space, squashed=squashed)
    path = save_policy(tmp_path / "mine.zip", PolicyDescription("mine", BATCH_QUEUE), network=given)
    read = read_network(path)
    assert read.digest == given.digest
    for observation in np.random.default_rng(1).normal(size=(20, 3)):
        np.testing.assert_array_equal(read(observation), given(observation))


def test_a_network_is_given_masks_as_any_policy_is(runs):
    features = len(features_of("RequestSelection", slots=5))
    last = MLP([(np.zeros((6, features)), np.arange(6.0))], "tanh", Discrete(6))
    one = ls.as_scheduler(last, "RequestSelection", slots=5, work_conserving=True)
    other = ls.as_scheduler(
        lambda observation, mask: np.flatnonzero(mask)[-1], "RequestSelection", slots=5, work_conserving=True
    )
    rows = [ls.simulate(each, runs["workload"], runs["engine"], seed=3, record="entries") for each in (one, other)]
    assert same_rows(*rows)


@pytest.mark.parametrize(
    ("layers", "activation", "space", "message"),
    [
        ([], "tanh", Discrete(2), "layers must hold one or more"),
        ([(np.zeros((2, 3)), np.zeros(3))], "tanh", Discrete(2), "layers must fit each other"),
        ([(np.zeros((2, 3)), np.zeros(2))], "tanh", Discrete(4), "must have 4 outputs .* got 2"),
        ([(np.full((2, 3), np.nan), np.zeros(2))], "tanh", Discrete(2), "finite"),
        ([(np.zeros((2, 3)), np.zeros(2))], "tahn", Discrete(2), "activation .* did you mean 'tanh'"),
        ([(np.zeros((2, 3)), np.zeros(2))], "tanh", Box(-1, np.inf, (2,)), "bounded Box"),
        ([(np.zeros((2, 3)), np.zeros(2))], "tanh", Discrete(2, start=1), "from 0"),
    ],
)
def test_a_network_that_is_none_is_refused(layers, activation, space, message):
    with pytest.raises(ValueError, match=message):
        MLP(layers, activation, space)


def test_saving_takes_one_policy_and_writes_all_or_nothing(model, tmp_path):
    description = PolicyDescription("mine", BATCH_QUEUE)
    for given in ({}, {"model": model, "network": network(Discrete(4))}):
        with pytest.raises(ValueError, match="a model or a network"):
            save_policy(tmp_path / "mine.zip", description, **given)
    with pytest.raises(ValueError, match="JSON"):
        save_policy(tmp_path / "mine.zip", PolicyDescription("mine", BATCH_QUEUE, training={"a": {1}}), model=model)
    assert not list(tmp_path.iterdir())


def test_foreign_files_are_refused(model, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.zip"):
        ls.as_scheduler(tmp_path / "nowhere.zip")
    text = tmp_path / "text.zip"
    text.write_text("hello")
    with pytest.raises(ValueError, match=r"text\.zip is no trained policy: not a zip file"):
        ls.as_scheduler(text)
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("readme", "hello")
    with pytest.raises(ValueError, match=r"other\.zip is no trained policy: it has no member 'data'"):
        ls.as_scheduler(tmp_path / "other.zip")


@pytest.mark.parametrize(
    ("part", "changed", "message"),
    [
        ('"format": 1', '"format": 99', "its format is 99"),
        ('"features"', '"fetures"', "no 'features'"),
        ('"waiting"', '"patience"', r"without \['waiting'\], and \['patience'\] besides"),
        ('"token_budgets"', '"levels"', "must be one of the known names, got 'levels'"),
        ('"decision_interval": 0.1', '"decision_interval": -1', "decision_interval must be .* got -1"),
        ('"decision_interval": 0.1', '"decision_interval": "x"', "decision_interval must be .* got 'x'"),
        ("BatchQueue-v0", "BatchQeue-v0", "did you mean 'llmsched/BatchQueue-v0'"),
        ("BatchQueue-v0", "Cluster-v0", "Cluster-v0 is a network of engines"),
        ('"name"', "name", "property name"),
        ('"name": "mine"', '"name": 3', "its name must be a str"),
    ],
)
def test_a_changed_description_is_refused(path, tmp_path, part, changed, message):
    with zipfile.ZipFile(path) as archive:
        text = archive.read("policy.json").decode()
    assert part in text
    other = rewritten(path, tmp_path / "other.zip", policy_json=text.replace(part, changed, 1))
    with pytest.raises(ValueError, match=rf"other\.zip.*: .*{message}"):
        ls.as_scheduler(other)


def test_weights_that_run_code_are_refused_and_run_none(path, tmp_path):
    marker = tmp_path / "ran"
    inner = tmp_path / "policy.pth"
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"a": Bomb(marker)}))
    other = rewritten(path, tmp_path / "other.zip", policy_pth=inner.read_bytes())
    with pytest.raises(
        ValueError, match=r"other\.zip is no trained policy: its weights cannot be read: it names \w+\.system"
    ):
        ls.as_scheduler(other)
    assert not marker.exists()


def test_statistics_that_run_code_are_refused_and_run_none(path, tmp_path):
    marker = tmp_path / "ran"
    other = tmp_path / "any.pkl"
    other.write_bytes(pickle.dumps(Bomb(marker)))
    with pytest.raises(ValueError, match=r"any\.pkl is no file of VecNormalize\.save: it holds \w+\.system"):
        ls.as_scheduler(path, vec_normalize=other)
    other.write_bytes(b"not a pickle")
    with pytest.raises(ValueError, match=r"any\.pkl is no file of VecNormalize\.save"):
        ls.as_scheduler(path, vec_normalize=other)
    assert not marker.exists()


def test_pickled_parts_of_the_data_are_not_read(path, tmp_path):
    import base64

    marker = tmp_path / "ran"
    with zipfile.ZipFile(path) as archive:
        data = json.loads(archive.read("data"))
    for value in data.values():
        if isinstance(value, dict) and ":serialized:" in value:
            value[":serialized:"] = base64.b64encode(pickle.dumps(Bomb(marker))).decode()
    other = rewritten(path, tmp_path / "other.zip", data=json.dumps(data))
    assert read_network(other).digest == read_network(path).digest
    assert not marker.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.pop("policy_class"), "not those of a model"),
        (lambda data: data["policy_class"].update(__module__="mine"), "policies of mine are not known to be MLPs"),
        (lambda data: data.update(use_sde=True), "use_sde may change"),
        (
            lambda data: data.update(policy_kwargs={"features_extractor_class": "x"}),
            "features_extractor_class may change",
        ),
        (lambda data: data["observation_space"].update(_shape=[3]), "37 inputs"),
        (lambda data: data["action_space"].update(nvec="[3 2 4]"), "must have 9 outputs"),
        (lambda data: data["action_space"].update(nvec="hello"), "could not convert"),
    ],
)
def test_data_that_do_not_fit_are_refused(path, tmp_path, change, message):
    with zipfile.ZipFile(path) as archive:
        data = json.loads(archive.read("data"))
    change(data)
    with pytest.raises(ValueError, match=rf"other\.zip is no trained policy: .*{message}"):
        read_network(rewritten(path, tmp_path / "other.zip", data=json.dumps(data)))


def test_a_file_that_was_cut_short_is_refused(path, tmp_path):
    with zipfile.ZipFile(path) as archive:
        weights = archive.read("policy.pth")
    for content in (b"", weights[: len(weights) // 2], weights.replace(b"FloatStorage", b"CharsStorage")):
        with pytest.raises(ValueError, match=r"other\.zip is no trained policy"):
            read_network(rewritten(path, tmp_path / "other.zip", policy_pth=content))


def test_layers_of_another_network_are_refused(runs, tmp_path):
    import torch

    model = train(Case(PPO, "BatchQueue", KNOBS, {"n_steps": 16, "batch_size": 16}), runs, steps=16)
    model.policy.extra = torch.nn.Linear(2, 2)
    model.save(tmp_path / "mine.zip")
    with pytest.raises(ValueError, match=r"unknown: \['extra.weight', 'extra.bias'\]"):
        read_network(tmp_path / "mine.zip")


def test_neither_torch_nor_stable_baselines3_is_imported(path, runs):
    script = f"""
import sys
import llmsched_env as ls
scheduler = ls.as_scheduler({str(path)!r})
engine = ls.EngineConfig(ls.Staircase(c=0.01, a=0.02, b0=64), token_budget=2048)
result = ls.simulate(scheduler, ls.Workload.from_arrays([0.0, 0.01], [40, 20], [5, 5]), engine)
assert (result.requests.status == "finished").all()
print([name for name in ("torch", "stable_baselines3", "sb3_contrib") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_network_alone_is_a_scheduler(tmp_path, runs):
    steer = ls.as_scheduler(lambda obs: np.array([2, 1, 0, 0]), BATCH_QUEUE, **KNOBS)
    features = len(features_of(BATCH_QUEUE))
    bias = np.zeros(11)
    bias[[2, 3 + 1, 5 + 0, 9 + 0]] = 1.0
    constant = MLP([(np.zeros((11, features)), bias)], "tanh", MultiDiscrete([3, 2, 4, 2]))
    path = save_policy(tmp_path / "constant.zip", PolicyDescription("constant", "BatchQueue", KNOBS), network=constant)
    one, other = (
        ls.simulate(each, runs["workload"], runs["engine"], seed=3, record="entries")
        for each in (steer, ls.as_scheduler(path))
    )
    assert same_rows(one, other) and len(one.requests) > 50
