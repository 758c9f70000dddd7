"""The command: what it writes, its exit status, and that it goes on where it stopped."""

import re
import sys

import pytest

from experiments import registry
from experiments.check import exactly, pending
from experiments.experiment import Experiment, Outcome, Picture
from experiments.registry import EXPERIMENTS
from llmsched_env.cli.app import main
from llmsched_env.cli.reproduce import ReproduceOptions, experiments_of

QUICK = ("fig8", "batch_times", "theorem10")


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs the command line; its exit status and what it printed."""

    def run(*arguments, experiments=None):
        if experiments is not None:
            monkeypatch.setattr(registry, "EXPERIMENTS", {e.name: e for e in experiments})
        return main(["reproduce", *map(str, arguments)]), capsys.readouterr()

    return run


def experiment(name, *checks, log=None):
    def run():
        if log is not None:
            log.append(name)
        return Outcome(checks, (Picture("caption", "<svg xmlns='http://www.w3.org/2000/svg'></svg>"),))

    return Experiment(name, f"Title of {name}: more", f"About {name}.", run)


GOOD = exactly("good", 1.0, theory=1.0)
BAD = exactly("bad", 1.0, theory=2.0)
LATER = pending("later", "needs more")


def test_report_table_and_status_of_the_quick_experiments(command, tmp_path):
    status, printed = command("--only", ",".join(QUICK), "--out", tmp_path / "deeper")
    assert status == 0
    html = (tmp_path / "deeper/report.html").read_text("utf-8")
    assert "http" not in html and "<script" not in html and "<link" not in html
    links = re.findall(r'href="([^"]*)"', html)
    assert all(link.startswith("#") and f'id="{link[1:]}"' in html for link in links)
    assert [link[1:] for link in links] == ["overview", *(n for n in EXPERIMENTS if n in QUICK), "setup", "terms"]
    assert html.count('src="data:image/svg+xml;base64,') == html.count("<img ") == 3
    table = (tmp_path / "deeper/table.txt").read_text("utf-8")
    assert table in printed.out and "report.html" in printed.out
    for name in QUICK:
        for check in EXPERIMENTS[name].run().checks:
            assert check.verdict == "pass"
            assert name in table
    assert "ABC | ABCD* | BCDE* | BE" in html and "ABC | ABCD* | BCDE*" in table
    assert "llmsched reproduce --only" in html


@pytest.mark.parametrize(
    ("checks", "status"), [([GOOD], 0), ([GOOD, LATER], 0), ([GOOD, BAD], 1), ([LATER], 0), ([BAD], 1)]
)
def test_exit_status_is_that_of_the_worst_verdict(command, tmp_path, checks, status):
    assert command("--out", tmp_path, experiments=[experiment("one", *checks)])[0] == status


def test_undecided_is_a_failure(command, tmp_path):
    import dataclasses

    check = dataclasses.replace(GOOD, verdict="undecided")
    status, printed = command("--out", tmp_path, experiments=[experiment("one", GOOD, check)])
    assert status == 1
    assert "2 checks: 1 pass, 1 undecided" in printed.out


def test_goes_on_where_it_stopped(command, tmp_path):
    log = []

    def interrupted():
        raise KeyboardInterrupt

    first, last = experiment("first", GOOD, log=log), experiment("last", GOOD, log=log)
    status, printed = command(
        "--out", tmp_path, experiments=[first, Experiment("last", "Last: it", "About last.", interrupted)]
    )
    assert status == 130 and printed.err.count("\n") == 2 and "goes on where this one stopped" in printed.err
    assert command("--out", tmp_path, experiments=[first, last])[0] == 0
    assert log == ["first", "last"]
    kept = (tmp_path / "report.html").read_text("utf-8")
    assert command("--out", tmp_path, experiments=[first, last])[0] == 0
    assert log == ["first", "last"]
    assert re.sub(r"\d+ s, without", "", (tmp_path / "report.html").read_text("utf-8")) == re.sub(
        r"\d+ s, without", "", kept
    )


def test_other_sources_are_run_anew(command, tmp_path, monkeypatch):
    log = []
    assert command("--out", tmp_path, experiments=[experiment("one", GOOD, log=log)])[0] == 0
    monkeypatch.setattr(sys.modules["experiments.runner"], "_digest", lambda: "other")
    assert command("--out", tmp_path, experiments=[experiment("one", BAD, log=log)])[0] == 1
    assert log == ["one", "one"]


def test_outcomes_are_read_back_as_they_were(tmp_path):
    outcome = EXPERIMENTS["fig8"].run()
    outcome.save(tmp_path / "a/b.json")
    again = Outcome.from_file(tmp_path / "a/b.json")
    assert repr(again) == repr(outcome)  # half widths are nan
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["b.json"]


def test_unknown_experiments_are_refused_with_what_exists(command, tmp_path):
    status, printed = command("--only", "fig8,fig9", "--out", tmp_path)
    assert status == 2
    assert "fig9" in printed.err and "fig8" in printed.err
    assert not list(tmp_path.iterdir())


def test_only_keeps_the_order_of_the_report():
    assert list(experiments_of(ReproduceOptions(only=("theorem10", "fig8")))) == ["fig8", "theorem10"]
    assert experiments_of(ReproduceOptions()) == EXPERIMENTS
