"""The pages: their Python blocks run as they stand, and their links lead somewhere."""

import re
import runpy
from pathlib import Path
from textwrap import dedent

import pytest

from baselines.registry import SCHEDULERS

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/**/*.md"))]
BLOCK = re.compile(r"^( *```python\n.*?)^ *```$", re.DOTALL | re.MULTILINE)


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture
def run_blocks(tmp_path, monkeypatch):
    """A function of a page's name: runs its Python blocks as one script in `tmp_path`, returns the names it leaves."""
    monkeypatch.chdir(tmp_path)
    registered = dict(SCHEDULERS.rules)

    def run(name: str) -> dict:
        page = ROOT / name
        blocks = [dedent(block).partition("\n")[2] for block in BLOCK.findall(page.read_text())]
        script = tmp_path / f"{page.stem}.py"
        script.write_text("\n".join(blocks))
        return runpy.run_path(str(script))

    yield run
    SCHEDULERS.rules.clear()  # the same object that `baselines.REGISTRY` is
    SCHEDULERS.rules.update(registered)


def test_the_python_blocks_of_the_readme_run_as_they_stand(capsys, run_blocks):
    names = run_blocks("README.md")
    printed = capsys.readouterr().out
    assert "13.87" in printed
    assert "shortest_first" in printed
    assert names["result"].drained and len(names["results"]) == 20


def test_a_scheduler_added_in_both_ways_gives_the_same_rows(run_blocks):
    names = run_blocks("docs/adding_a_scheduler.md")
    assert names["one"].requests.tobytes() == names["other"].requests.tobytes()
    assert len(names["one"].batches) > 100


def test_the_recipes_work(run_blocks):
    names = run_blocks("CONTRIBUTING.md")  # which asserts what it claims
    assert names["policy"].name == "learned_budget"


@pytest.mark.parametrize(
    "name",
    [
        "ARCHITECTURE.md",
        "docs/bounds.md",
        "docs/learning.md",
        "docs/own_policies.md",
        pytest.param("docs/tuning.md", marks=pytest.mark.slow),  # a search
    ],
)
def test_the_python_blocks_of_other_pages_run(run_blocks, name):
    run_blocks(name)


def test_every_page_with_python_blocks_is_run():
    run = {"README.md", "docs/adding_a_scheduler.md", "CONTRIBUTING.md"}
    run |= {"ARCHITECTURE.md", "docs/bounds.md", "docs/learning.md", "docs/own_policies.md", "docs/tuning.md"}
    assert {name_of(page) for page in PAGES if BLOCK.search(page.read_text())} == run


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_between_pages_lead_somewhere(page):
    targets = re.findall(r"\]\(((?!http)[^)#]+)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_into_pages_lead_to_a_heading(page):
    for target, anchor in re.findall(r"\]\(((?!http)[^)#]*)#([^)]+)\)", page.read_text()):
        headings = re.findall(r"^#+ (.+)$", ((page.parent / target) if target else page).read_text(), re.MULTILINE)
        assert anchor in [re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings]
