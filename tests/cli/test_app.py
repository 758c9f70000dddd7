"""What all commands have in common: one table of options, quick help, config files, and errors in one line."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from cyclopts import Parameter

from llmsched_env.cli import app, formats, options
from llmsched_env.cli.app import COMMANDS, build_app, main
from llmsched_env.slo import SLO

ROOT = Path(__file__).resolve().parents[2]
HERE = [name for name in COMMANDS if (ROOT / f"llmsched_env/cli/{name}.py").is_file()]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("llmsched_env/policies/pretrained/*.md")]
HEAVY = {"numpy", "numba", "scipy", "torch", "gymnasium", "matplotlib", "tqdm"}


def arguments_of(command):
    """The arguments of a command, but for the data class that holds them."""
    return [a for a in build_app()[command].assemble_argument_collection() if a.parse and not a.children]


def entry_of(name):
    """The type of an option in the table of `options`; None if it is not there."""
    return getattr(options, "".join(part.capitalize() for part in name.removeprefix("--").split("-")), None)


def blocks_in(page):
    """Every `llmsched ...` of the code blocks of a page, as words."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line.strip() for block in re.findall(r"```\w*\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    return words_of(line.removeprefix(".venv/bin/") for line in lines)


def mentions_in(page):
    """Every `llmsched ...` within the sentences of a page, as words; values may be left out."""
    return words_of(re.findall(r"`(llmsched [a-z][^`]*)`", page.read_text(encoding="utf-8")))


def words_of(lines):
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("llmsched ")]


@pytest.mark.parametrize("command", HERE)
def test_options_are_those_of_the_table(command):
    for argument in arguments_of(command):
        entry = entry_of(argument.name)
        if entry is None:
            assert command == "train", f"{argument.name} of llmsched {command} is not in llmsched_env/cli/options.py"
            continue
        told = next(part for part in entry.__metadata__ if isinstance(part, Parameter))
        assert (argument.parameter.help, argument.parameter.metavar) == (told.help, told.metavar), argument.name
        assert argument.parameter.converter == told.converter, argument.name


@pytest.mark.parametrize("command", HERE)
def test_help_is_quick_because_nothing_of_the_simulator_is_imported(command):
    code = f"import sys, llmsched_env.cli.{command}; print(*sys.modules)"
    blank = "import sys, llmsched_env; print(*sys.modules)"
    loaded, before = (
        {name.split(".")[0] for name in subprocess.check_output([sys.executable, "-c", c], text=True).split()}
        for c in (code, blank)
    )
    assert not (loaded - before) & HEAVY


def test_help_fits_100_columns(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    for command in HERE:
        assert main([command, "--help"]) == 0
        printed = capsys.readouterr().out
        assert COMMANDS[command].help in printed and max(map(len, printed.splitlines())) <= 100
    assert main([]) == main(["--help"]) == 0
    assert all(name in capsys.readouterr().out for name in [*COMMANDS][:1])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_of_the_pages_parses(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for words in blocks_in(page):
        assert words[0] in COMMANDS
        if "--config" in words:
            config = Path(words[words.index("--config") + 1])
            config.parent.mkdir(parents=True, exist_ok=True)
            config.touch()
        if words[0] in HERE:
            build_app().parse_args(words, exit_on_error=False, print_error=False)
    for words in mentions_in(page):
        assert words[0] in COMMANDS
        if words[0] in HERE:
            known = {"--help", *(name for argument in arguments_of(words[0]) for name in argument.names)}
            assert {word for word in words[1:] if word.startswith("--")} <= known


def test_the_pages_show_every_command_and_the_examples_parse():
    shown = {words[0] for page in PAGES for words in [*blocks_in(page), *mentions_in(page)]}
    assert set(COMMANDS) <= shown
    for name in HERE:
        for example in COMMANDS[name].examples.splitlines():
            build_app().parse_args(shlex.split(example)[1:], exit_on_error=False, print_error=False)


def test_no_page_shows_an_old_script():
    old = re.compile(
        r"python (evaluate|benchmark|plan|calibrate|reproduce)\.py|-m (experiments.measured_|baselines.vllm_)"
    )
    found = [
        page.name for page in PAGES if page.name != "CHANGELOG.md" and old.search(page.read_text(encoding="utf-8"))
    ]
    assert found == []


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (formats.names, "orca,sarathi(token_budget=256,x=1)", ("orca", "sarathi(token_budget=256,x=1)")),
        (formats.loads, "0.8,recorded", (0.8, "recorded")),
        (formats.limits, "ttft=1,tpot=0.05", SLO(ttft=1.0, tpot=0.05)),
        (formats.quality, "kendall=0.56", {"kendall": 0.56}),
        (formats.pairs, "a=b,c=runs/x.npz", {"a": "b", "c": "runs/x.npz"}),
    ],
)
def test_values_are_written_as_they_are_read(parse, text, value):
    assert parse(text) == value and formats.text_of(value) == text


def test_lists_and_tables_of_toml_are_options(llmsched, tmp_path):
    config = tmp_path / "mine.toml"
    config.write_text('load = [0.5, "recorded"]\nscheduler = ["orca"]\nskip_bad_rows = true\n[slo]\nttft = 1\n')
    _, bound, _ = build_app().parse_args(["evaluate", "--config", str(config), "--seeds", "3"])
    read = bound.kwargs["options"]
    assert (read.load, read.scheduler, read.skip_bad_rows) == ((0.5, "recorded"), ("orca",), True)
    assert (read.slo, read.seeds) == (SLO(ttft=1.0), 3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("schedulr = 'orca'", "did you mean 'scheduler'"),
        ("load = 'high'", "must be numbers"),
        ("seeds = 'many'", "[seeds] from"),
        ("load = ", "must be TOML"),
    ],
)
def test_a_bad_config_is_refused_in_one_line(llmsched, tmp_path, content, message):
    config = tmp_path / "mine.toml"
    config.write_text(content)
    status, _, error = llmsched("evaluate", "--config", config)
    assert status == 2 and message in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["evalute"], "did you mean 'evaluate'"),
        (["evaluate", "--seed", "3"], "Did you mean --seeds?"),
        (["evaluate", "--config", "none.toml"], "none.toml"),
        (["replay", "a"], "--recorded-trace"),
        (["replay", "a", "b"], "a: No such file"),
    ],
)
def test_errors_are_one_line(llmsched, words, message):
    status, printed, error = llmsched(*words)
    assert (status, printed) == (2, "") and message in error and error.count("\n") == 1 and error.startswith("error: ")


def test_a_missing_package_is_told_with_what_to_do(llmsched, monkeypatch):
    monkeypatch.setitem(sys.modules, "experiments.report", None)
    monkeypatch.setitem(sys.modules, "experiments", None)
    status, _, error = llmsched("reproduce")
    assert status == 2 and error.startswith("error: llmsched reproduce is used from a clone") and error.count("\n") == 1


def test_an_error_of_our_own_has_its_traceback(monkeypatch):
    monkeypatch.setattr(app, "build_app", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["evaluate"])


@pytest.mark.parametrize("clean_up_fails", [False, True])
def test_an_interrupted_command_says_how_to_go_on(llmsched, monkeypatch, clean_up_fails):
    def interrupted(command, args, kwargs):
        try:
            raise KeyboardInterrupt
        finally:
            if clean_up_fails:  # as numba's does
                raise RuntimeError("no compiled object yet")

    monkeypatch.setattr(app, "_run", interrupted)
    status, printed, error = llmsched("profiles")
    assert (status, printed) == (130, "") and error.strip() == (
        "Interrupted. The same command goes on where this one stopped."
    )


def test_faults_of_ours_keep_their_traceback(llmsched, monkeypatch):
    def broken(command, args, kwargs):
        raise KeyError("a fault")

    monkeypatch.setattr(app, "_run", broken)
    with pytest.raises(KeyError, match="a fault"):
        llmsched("profiles")
