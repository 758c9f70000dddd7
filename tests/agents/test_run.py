"""The loop of a training: when it validates, what it keeps, and how it goes on."""

import pytest

from agents import run
from agents.problem import Problem, Validation
from agents.run import Learner
from agents.training_budget import TrainingBudget


class Values(Problem):
    """Its value is what a list says of each step."""

    def __init__(self, values, larger_is_better):
        self.values, self._larger_is_better = values, larger_is_better

    @property
    def larger_is_better(self):
        return self._larger_is_better

    def references(self):
        return {"constant": {"value": 1.0}}

    def validate(self, policy):
        value = self.values[policy]
        return Validation(value, {"value": value}, f"value {value}", self.larger_is_better)

    def report(self, best, folder, command):
        raise AssertionError("training reports nothing by itself")


class Climber(Learner):
    """It validates every second step."""

    def __init__(self, folder, values, steps=4, larger_is_better=True):
        self.lines = []
        super().__init__(Values(values, larger_is_better), folder, TrainingBudget(steps), self.lines.append)
        self.now, self.saved, self.logged, self.closed = 0, [], [], False
        self.fresh = self.improved = False  # since the last checkpoint: validated, and better than before

    @property
    def step(self):
        return self.now

    def due(self):
        return self.now % 2 == 0

    def update(self):
        if self.problem.values[self.now] is None:
            raise KeyboardInterrupt
        self.now += 1

    def policy(self):
        return self.now

    def log(self, numbers):
        self.logged.append(numbers)

    def save_best(self, found):
        self.improved = True

    def validated_now(self):
        self.fresh = True

    def save(self):
        self.saved.append((self.now, self.fresh, self.improved))
        self.fresh = self.improved = False

    def close(self):
        self.closed = True


@pytest.mark.parametrize(("larger_is_better", "best", "improved"), [(True, 3.0, [0, 4]), (False, 1.0, [0, 2])])
def test_the_best_and_the_last_are_kept(tmp_path, larger_is_better, best, improved):
    learner = Climber(tmp_path, [2.0, 9.0, 1.0, 9.0, 3.0], larger_is_better=larger_is_better)
    learner.train()
    assert (learner.best, learner.validated, learner.closed) == (best, 4, True)
    assert learner.saved == [(step, True, step in improved) for step in (0, 2, 4)]
    assert [line.split(": ")[1] for line in learner.lines[1:]] == ["value 2.0", "value 1.0", "value 3.0"]
    assert learner.logged[-1] == {"serve/value": 3.0, "serve/best": best}
    assert (tmp_path / "tensorboard/baseline_constant").is_dir()


def test_the_end_is_validated_once_and_what_is_over_is_left_alone(tmp_path):
    learner = Climber(tmp_path, [0.0, 1.0, 2.0, 3.0], steps=3)
    learner.train()
    assert [step for step, *_ in learner.saved] == [0, 2, 3]
    learner.train()
    assert len(learner.saved) == 3 and "over after 3 steps" in learner.lines[-1]


def test_it_is_saved_between_validations(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "SAVE_EVERY", -1.0)
    learner = Climber(tmp_path, [0.0] * 5)
    learner.train()
    assert [step for step, validated, _ in learner.saved if not validated] == [1, 2, 3, 4]


@pytest.mark.parametrize("whole", [True, False])
def test_an_interrupted_one_is_saved_where_its_state_is_whole(tmp_path, whole):
    learner = Climber(tmp_path, [0.0, None])
    learner.save_when_interrupted = whole
    with pytest.raises(KeyboardInterrupt):
        learner.train()
    assert learner.saved == [(0, True, True)] + [(1, False, False)] * whole and learner.closed
