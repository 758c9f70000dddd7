"""The examples run, here on less than they show."""

import runpy
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def test_rollout_search_is_never_worse_than_the_best_constant_action(capsys):
    rows = runpy.run_path(str(EXAMPLES / "rollout_search.py"))["main"](seconds=20.0, episodes=2)
    assert all(found <= constant <= neutral for neutral, constant, found in rows)
    assert sum(found for *_, found in rows) < sum(constant for _, constant, _ in rows)
    assert "% fewer" in capsys.readouterr().out


def test_every_example_is_run():
    assert [path.name for path in EXAMPLES.glob("*.py")] == ["rollout_search.py"]
