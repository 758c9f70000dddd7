"""Functions and models as schedulers: environments by name, what is refused, networks, comparisons and stored runs."""

import numpy as np
import pytest

import baselines
import baselines.routers
import llmsched_env as ls
from llmsched_env.envs.as_scheduler import features_of
from llmsched_env.evaluation import compare
from llmsched_env.evaluation.run_cache import scheduler_digest
from tests.sb3.models import CASES, KNOBS, SLOTS, same_rows, train

SARATHI = np.array([2, 1, 0, 0])  # a budget of 256, no limit


def sarathi(observation):
    return SARATHI


LEVELS = {"budget": 2}


def through_a_comprehension(observation):
    return np.array([LEVELS["budget"] if k == 0 else 0 for k in range(4)])


def first(observation, mask):
    return int(np.argmax(mask))


def simulate(scheduler, runs, **options):
    return ls.simulate(scheduler, runs["workload"], runs["engine"], seed=2, record="entries", **options)


def test_a_function_is_a_scheduler(runs):
    expected = simulate(baselines.sarathi(token_budget=256), runs)
    assert same_rows(simulate(ls.as_scheduler(sarathi, "BatchQueue", **KNOBS), runs), expected)
    every_batch = KNOBS | {"decision_interval": None}
    assert same_rows(simulate(ls.as_scheduler(sarathi, "llmsched/BatchQueue-v0", **every_batch), runs), expected)


@pytest.mark.parametrize("interpreted", [False, True])
def test_a_function_with_masks_chooses_within_batches(runs, interpreted):
    scheduler = ls.as_scheduler(first, "RequestSelection-v0", **SLOTS)
    requests = (
        runs | {"workload": ls.Workload.from_table(runs["workload"].sample(2).rows(0, 40), "few")}
        if interpreted
        else runs
    )
    expected = simulate(baselines.sarathi(token_budget=200), requests)
    assert same_rows(simulate(scheduler, requests, interpreted=interpreted), expected)
    assert scheduler.name == "first"


def test_a_function_without_masks_may_choose_what_is_not_allowed(runs):
    scheduler = ls.as_scheduler(lambda observation: 5, "RequestSelection", work_conserving=True, **SLOTS)
    assert same_rows(simulate(scheduler, runs), simulate(baselines.sarathi(token_budget=200), runs))


def test_models_and_functions_of_them_give_the_same_rows(runs):
    case = CASES["MaskablePPO"]
    model = train(case, runs)

    def choose(observation, mask):
        return model.predict(observation, deterministic=True, action_masks=mask)[0]

    class Wrapped:
        def predict(self, observation, deterministic, action_masks):
            assert deterministic
            return choose(observation, action_masks), None

    expected = simulate(ls.as_scheduler(model, case.env, **SLOTS), runs)
    assert not same_rows(expected, simulate(baselines.sarathi(token_budget=200), runs))
    for policy in (choose, Wrapped()):
        assert same_rows(simulate(ls.as_scheduler(policy, case.env, **SLOTS), runs), expected)


def test_choices_within_batches_are_made_in_networks_too(runs):
    table = runs["workload"].sample(2)
    workload = ls.Workload.from_table(table, "requests")
    one = ls.simulate_network(
        ls.as_scheduler(first, "RequestSelection", **SLOTS), workload, [runs["engine"]], baselines.routers.round_robin
    )
    other = ls.simulate_network(
        baselines.sarathi(token_budget=200), workload, [runs["engine"]], baselines.routers.round_robin
    )
    assert one.requests.tobytes() == other.requests.tobytes() and one.batches.tobytes() == other.batches.tobytes()


def test_a_choosing_scheduler_without_a_policy_is_refused(runs):
    from llmsched_env.envs.request_selection import selected

    with pytest.raises(ValueError, match=r"'selected' asks for a choice within a batch.*as_scheduler"):
        simulate(selected, runs)
    with pytest.raises(ValueError, match=r"'selected' asks for a choice within a batch"):
        ls.simulate_network(selected, runs["workload"], [runs["engine"]], baselines.routers.round_robin)
    steered = ls.as_scheduler(sarathi, "BatchQueue", **KNOBS)
    with pytest.raises(ValueError, match="interval must be None"):
        ls.Scheduler("mine", selected.compose, params=selected.params, asks=True, controller=steered.controller)


def test_the_environment_is_inferred_from_the_spaces_of_a_model(runs, tmp_path):
    model = train(CASES["A2C"], runs, steps=16)
    model.save(tmp_path / "mine.zip")
    for policy in (model, tmp_path / "mine.zip"):
        assert ls.as_scheduler(policy).controller.steering.interval is None
        found = ls.as_scheduler(policy, decision_interval=0.1)
        assert (
            found.controller.digest == ls.as_scheduler(policy, "IndexPolicy", decision_interval=0.1).controller.digest
        )
    assert ls.as_scheduler(tmp_path / "mine.zip").name == "mine"
    assert ls.as_scheduler(model, name="other").name == "other"


@pytest.mark.parametrize(
    ("policy", "arguments", "message"),
    [
        (sarathi, {}, "policy sarathi: env must be given, one of llmsched/BatchQueue-v0, "),
        (sarathi, {"env": "BatchQeue"}, "did you mean 'llmsched/BatchQueue-v"),
        (sarathi, {"env": "Cluster"}, r"Cluster-v0 is a network of engines.*gymnasium\.make\('llmsched/Cluster-v0'\)"),
        (sarathi, {"env": "AgentNetwork-v0"}, "AgentNetwork-v0 is a network"),
        (sarathi, {"env": "BatchQueue", "token_budget": 3}, "got 'token_budget'; did you mean 'token_budgets'"),
        (sarathi, {"env": "BatchQueue", "workload": "azure-chat"}, "got 'workload'"),
        (sarathi, {"env": "BatchQueue", "token_budgets": 3}, "arguments of llmsched/BatchQueue-v0 must be"),
        (sarathi, {"env": "BatchQueue", "decision_interval": 0}, "decision_interval must be .* > 0"),
        (first, {"env": "BatchQueue"}, r"must take \(observation\), got a function of observation, mask"),
        (lambda a, b, c: 0, {"env": "RequestSelection"}, r"\(observation\) or \(observation, mask\), got .* a, b, c"),
        (3, {"env": "BatchQueue"}, "policy must be a path, a model with predict"),
    ],
)
def test_what_does_not_fit_is_refused(policy, arguments, message):
    with pytest.raises(ValueError, match=message):
        ls.as_scheduler(policy, **arguments)


def test_a_model_of_another_environment_is_refused(runs):
    model = train(CASES["PPO"], runs, steps=32)
    with pytest.raises(
        ValueError, match=r"model PPO: env must be given.*37 features and actions of .*fit none of them"
    ):
        ls.as_scheduler(model)
    with pytest.raises(ValueError, match=r"must observe the 152 features of llmsched/RequestSelection-v0, got 37"):
        ls.as_scheduler(model, "RequestSelection")
    with pytest.raises(
        ValueError, match=r"MultiDiscrete\(\[12  6  4  2\]\), got MultiDiscrete\(\[3 2 4 2\]\).*admission_limits"
    ):
        ls.as_scheduler(model, "BatchQueue")


@pytest.mark.parametrize("action", [np.zeros(3), [0, 0, 0, 0.5], [0, 0, 0, 9], [0, 0, 0, -1], [np.nan] * 4, None])
def test_actions_that_are_none_are_refused(runs, action):
    scheduler = ls.as_scheduler(lambda observation: action, "BatchQueue", **KNOBS)
    with pytest.raises(ValueError, match="the policy must return an element of MultiDiscrete"):
        simulate(scheduler, runs)


def test_a_recurrent_policy_is_refused(runs):
    class Recurrent:
        def predict(self, observation, deterministic):
            return SARATHI, "state"

    with pytest.raises(ValueError, match="must not keep a state"):
        simulate(ls.as_scheduler(Recurrent(), "BatchQueue", **KNOBS), runs)


def test_features_by_environment():
    assert features_of("BatchQueue")[0] == "waiting"
    assert len(features_of("RequestSelection", slots=3)) == len(features_of("RequestSelection", slots=2)) + 7


def test_the_digest_changes_with_anything_that_decides(monkeypatch):
    def of(budget, **arguments):
        def constant(observation):
            return budget * SARATHI

        return scheduler_digest(ls.as_scheduler(constant, "BatchQueue", name="x", **KNOBS | arguments))

    digests = [of(1), of(0), of(1, decision_interval=0.2), of(1, token_budgets=(32, 64, 512)), of(np.array([1]))]
    assert len(set(map(repr, digests))) == len(digests)
    assert of(1) == of(1)

    def of_global():
        return scheduler_digest(ls.as_scheduler(through_a_comprehension, "BatchQueue", name="x"))

    before = of_global()
    assert of_global() == before
    monkeypatch.setitem(LEVELS, "budget", 1)
    assert of_global() != before

    class Weighted:
        weights = 1.0

        def __call__(self, observation):
            return SARATHI

    class Named(Weighted):
        digest = "v1"

    weighted = Weighted()
    digests = {repr(scheduler_digest(ls.as_scheduler(weighted, "BatchQueue", name="x"))) for _ in range(2)}
    assert len(digests) == 2  # nobody knows what it depends on: its runs are not taken for those of another
    digests = {repr(scheduler_digest(ls.as_scheduler(Named(), "BatchQueue", name="x"))) for _ in range(2)}
    assert len(digests) == 1


def test_comparisons_take_policies(runs, tmp_path):
    schedulers = {
        "policy": ls.as_scheduler(sarathi, "BatchQueue", **KNOBS),
        "sarathi": baselines.sarathi(token_budget=256),
    }
    table = compare(
        schedulers,
        {"toy": runs["workload"]},
        ["recorded"],
        [1, 2],
        runs["engine"],
        folder=tmp_path,
        progress=False,
    )
    ours, theirs = (table.cells[name, "toy", "recorded"].metrics["mean_e2el_ms"] for name in ("policy", "sarathi"))
    assert ours == theirs and len(list((tmp_path / "cells").iterdir())) == 2
