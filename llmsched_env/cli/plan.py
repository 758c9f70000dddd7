"""llmsched plan: how many replicas of which GPU serve your traffic within its targets, and what that costs."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts import Parameter

from llmsched_env.cli.answers import Answer
from llmsched_env.cli.inputs import engine_of, workloads_of
from llmsched_env.cli.options import (
    DEFAULT_ENGINE,
    Engine,
    EngineOptions,
    Horizon,
    MostReplicas,
    Out,
    PrintOptions,
    Rate,
    Router,
    Scheduler,
    Seeds,
    Target,
    WorkloadOptions,
)
from llmsched_env.cli.run_file import command_line, write_run_file

if TYPE_CHECKING:
    from llmsched_env.planning import FleetPlan, Option
    from llmsched_env.simulator.router import Router as RouterRule


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class PlanOptions(PrintOptions, EngineOptions, WorkloadOptions):
    """The traffic, the machines and the rules."""

    horizon: Horizon = 60.0
    rate: Rate = None
    engine: Engine = (f"{DEFAULT_ENGINE}=2.9",)
    scheduler: Scheduler = ("vllm_v1",)
    router: Router = "join_shortest_queue"
    target: Target = 0.95
    seeds: Seeds = 5
    most_replicas: MostReplicas = 256
    out: Out = Path("runs/plan")


_DEFAULTS = PlanOptions()


def plan(*, options: PlanOptions = _DEFAULTS) -> Answer:
    """Find the fewest replicas of each machine, and the cheapest fleet."""
    from llmsched_env.files import write_text
    from llmsched_env.planning.report import text_table, write_plan

    answer = make_plan(options)
    command = command_line("plan", options)
    answer.save(options.out / "plan.json")
    report = write_plan(answer, options.out / "report.html", command)
    write_text(options.out / "table.txt", text_table(answer))
    rows = [{name: value for name, value in row.items() if name != "points"} for row in answer.rows()]
    facts = {"command": command, "report": str(report.resolve()), "cheapest": answer.cheapest}
    return Answer(f"{text_table(answer)}Report: {report.resolve()}", rows, facts)


def make_plan(options: PlanOptions) -> "FleetPlan":
    """The plan that the options ask for.

    Raises:
        ValueError: naming the option, its value and what is allowed.
    """
    from tqdm import tqdm

    from llmsched_env.evaluation.naming import schedulers_by_name
    from llmsched_env.planning import plan as plan_fleet

    if len(options.workload) != 1:
        raise ValueError(f"--workload {','.join(options.workload)}: a plan is for one workload")
    machines = [machine(item, options) for item in options.engine]
    schedulers, router = schedulers_by_name(options.scheduler), router_by_name(options.router)
    (workload,) = workloads_of(options).values()
    workload = workload if options.rate is None else workload.scaled(rate=options.rate)
    write_run_file("plan", options, options.out)
    with tqdm(desc="simulated", unit=" fleets", leave=False, disable=None) as bar:
        return plan_fleet(
            machines,
            schedulers,
            workload,
            router,
            options.target,
            report=lambda machine, scheduler, point: bar.update(),
            seeds=options.seeds,
            most_seeds=4 * options.seeds,
            most_replicas=options.most_replicas,
        )


def machine(item: str, options: EngineOptions) -> "Option":
    """The machine of `NAME=PRICE`, the price per hour.

    Raises:
        ValueError: for an unknown profile, or a price that is not above 0.
    """
    from llmsched_env.planning import Option

    name, _, price = item.rpartition("=")
    try:
        number = float(price)
    except ValueError:
        name = ""
    if not name:
        raise ValueError(f"--engine {item!r}; a plan needs the price per hour of each machine: NAME=PRICE")
    return Option(name, engine_of(name, options), number)


def router_by_name(name: str) -> "RouterRule":
    """The registered router of this name; `pretrained`: the trained one.

    Raises:
        ValueError: for an unknown name, with the closest known ones.
    """
    from baselines import routers
    from llmsched_env.policies import pretrained
    from llmsched_env.validation import check_choice

    if name == "pretrained":
        return pretrained.router()
    return routers.get(check_choice("router", name, (*routers.ROUTERS, "pretrained")))
