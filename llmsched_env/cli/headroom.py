"""llmsched headroom: how much there is to win in environments, from random actions to a bound."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts import Parameter

from llmsched_env.cli.answers import Answer
from llmsched_env.cli.options import All, Out, Policy
from llmsched_env.cli.run_file import command_line, write_run_file
from llmsched_env.cli.train import ProblemOptions

if TYPE_CHECKING:
    from agents.headroom import Headroom


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class HeadroomOptions(ProblemOptions):
    """Of what, and where the best known policy is."""

    all: All = False
    policy: Policy = None
    out: Out = Path("runs/headroom")


_DEFAULTS = HeadroomOptions()


def headroom(*, options: HeadroomOptions = _DEFAULTS) -> Answer:
    """Measure what random, neutral and constant actions, baselines and known policies reach in an environment."""
    from agents.config import ENVIRONMENTS
    from agents.headroom import headroom as measured

    if options.all and options.policy is not None:
        raise ValueError("--policy must be left out with --all: it is of one environment")
    names = ENVIRONMENTS if options.all else (options.env,)
    configs = [replace(options, env=name).training(0) for name in names]
    write_run_file("headroom", options, options.out)
    rows = [measured(config, options.out, options.policy) for config in configs]
    return Answer(_table(rows), [row.record() for row in rows], {"command": command_line("headroom", options)})


def _table(rows: list["Headroom"]) -> str:
    from agents.headroom import COLUMNS
    from llmsched_env.evaluation.rendering import rich_text
    from llmsched_env.evaluation.text_tables import TextColumn, fitting_tables

    own = [f"{row.env}\n{row.objective.title}, {row.objective.unit}\n{row.site}" for row in rows]
    columns = [TextColumn(column, [row.cells[column].text(row.objective) for row in rows]) for column in COLUMNS]
    caption = (
        "Means over the loads on test requests, with the half widths of 95 % intervals over seeds; – is not known."
    )
    return rich_text(*fitting_tables("Headroom", TextColumn("Environment", own), columns, caption))
