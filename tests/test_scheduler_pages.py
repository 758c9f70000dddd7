"""The pages of docs/schedulers against the registry."""

import re
from pathlib import Path

import pytest

import baselines

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "schedulers"
HEADER = ["scheduler", "rule", "knows", "work-conserving", "throughput-optimal", "when to use it"]
KNOWS = {"no": "nothing", "distribution": "the mix", "predicted": "a prediction", "true": "the truth"}


def rows() -> dict[str, list[tuple[str, list[str]]]]:
    """By scheduler: the page and the cells of each row about it."""
    found: dict[str, list[tuple[str, list[str]]]] = {}
    for page in sorted(FOLDER.glob("*.md")):
        in_table = False
        for line in page.read_text().splitlines():
            cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
            in_table = line.startswith("|") and (in_table or cells == HEADER)
            if in_table and re.fullmatch(r"`\w+`", cells[0]):
                found.setdefault(cells[0].strip("`"), []).append((page.name, cells))
    return found


ROWS = rows()


@pytest.mark.parametrize("name", baselines.REGISTRY)
def test_every_scheduler_has_one_row_that_says_what_it_declares(name):
    scheduler = baselines.get(name)
    assert len(ROWS.get(name, [])) == 1, [page for page, _ in ROWS.get(name, [])]
    page, row = ROWS[name][0]
    assert page == f"{scheduler.compose.__module__.split('.')[1]}.md", "the page of its family"
    cells = dict(zip(HEADER, row, strict=True))
    assert cells["rule"] and cells["when to use it"]
    assert cells["knows"] == KNOWS[scheduler.needs_lengths]
    assert cells["work-conserving"] == ("yes" if scheduler.work_conserving else "no")
    assert cells["throughput-optimal"] == ("yes" if scheduler.throughput_optimal else "no")


def test_no_row_is_about_a_scheduler_that_is_not_there():
    assert ROWS.keys() <= baselines.REGISTRY.keys()
