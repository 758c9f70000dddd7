import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def run_blocks(page: Path, folder: Path) -> dict:
    """Run the python blocks of a page as one script in `folder`; returns the names it leaves."""
    script = folder / f"{page.stem}.py"
    script.write_text("\n".join(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)))
    return runpy.run_path(str(script))


def test_the_python_blocks_of_the_readme_run_as_they_stand(capsys, tmp_path):
    names = run_blocks(ROOT / "README.md", tmp_path)
    printed = capsys.readouterr().out
    assert "13.87" in printed
    assert "shortest_first" in printed
    assert names["result"].drained and len(names["results"]) == 20


def test_a_scheduler_added_in_both_ways_gives_the_same_rows(tmp_path):
    names = run_blocks(ROOT / "docs" / "adding_a_scheduler.md", tmp_path)
    assert names["one"].requests.tobytes() == names["other"].requests.tobytes()
    assert len(names["one"].batches) > 100


@pytest.mark.parametrize("page", sorted(ROOT.glob("docs/**/*.md")), ids=lambda page: page.stem)
def test_links_between_pages_lead_somewhere(page):
    targets = re.findall(r"\]\(((?!http)[^)#]+)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []
