"""llmsched plan: how many replicas of which GPU serve your traffic within its targets, and what that costs."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts import Parameter

from llmsched_env.cli.answers import Answer
from llmsched_env.cli.inputs import closed, engine_of, workloads_of
from llmsched_env.cli.options import (
    DEFAULT_ENGINE,
    Engine,
    EngineOptions,
    Horizon,
    MostReplicas,
    Out,
    PrintOptions,
    Rate,
    Replicas,
    Router,
    Scheduler,
    Seeds,
    Target,
    Users,
    WorkloadOptions,
)
from llmsched_env.cli.run_file import command_line, write_run_file

if TYPE_CHECKING:
    from llmsched_env.planning import FleetPlan, Option
    from llmsched_env.simulator.router import Router as RouterRule
    from llmsched_env.workloads import Workload


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
    users: Users = None
    replicas: Replicas = 1
    out: Out = Path("runs/plan")


_DEFAULTS = PlanOptions()


def plan(*, options: PlanOptions = _DEFAULTS) -> Answer:
    """Find the fewest replicas of each machine, and the cheapest fleet; or, with --users, the most users of a fleet."""
    from llmsched_env.files import write_text
    from llmsched_env.planning.report import text_table, write_plan

    if options.users is not None:
        return _most_users(options, options.users)
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

    if options.replicas != _DEFAULTS.replicas:
        raise ValueError(f"--replicas {options.replicas}: that is what a plan finds; give it with --users")
    if options.rate is not None and options.concurrency is not None:
        raise ValueError(f"--rate {options.rate:g}: users in a closed loop (--concurrency) have no rate; leave it out")
    machines = [machine(item, options) for item in options.engine]
    schedulers, router = schedulers_by_name(options.scheduler), router_by_name(options.router)
    requests = _workload(options)
    requests = requests if options.rate is None else requests.scaled(rate=options.rate)
    workload = closed(requests, options.concurrency, options.horizon, repeats=True)
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


def _workload(options: PlanOptions) -> "Workload":
    if len(options.workload) != 1:
        raise ValueError(f"--workload {','.join(options.workload)}: a plan is for one workload")
    (workload,) = workloads_of(options).values()
    return workload


def _most_users(options: PlanOptions, limits: Mapping[str, float]) -> Answer:
    """The most users that fleets of so many replicas serve, by machine and scheduler."""
    from llmsched_env.evaluation.naming import schedulers_by_name
    from llmsched_env.files import write_json, write_text
    from llmsched_env.planning import most_users
    from llmsched_env.planning.report import users_table
    from llmsched_env.planning.users import check_limits
    from llmsched_env.validation import check_integer
    from llmsched_env.workloads import ClosedLoop

    for name in ("rate", "concurrency"):
        if getattr(options, name) is not None:
            raise ValueError(f"--{name} {getattr(options, name):g}: the number of users is sought; leave it out")
    check_integer("--replicas", options.replicas, at_least=1)
    check_limits(limits)
    schedulers, router = schedulers_by_name(options.scheduler), router_by_name(options.router)
    engines = {item.rpartition("=")[0] or item: None for item in options.engine}
    fleets = {name: (engine_of(name, options),) * options.replicas for name in engines}
    loop = closed(_workload(options), 1, options.horizon, repeats=True)
    assert isinstance(loop, ClosedLoop)  # as a number of users is given
    write_run_file("plan", options, options.out)
    found = {
        (name, label): most_users(fleet, scheduler, loop, router, limits, options.seeds, 4 * options.seeds)
        for name, fleet in fleets.items()
        for label, scheduler in schedulers.items()
    }
    text = users_table(found, options.replicas, options.workload[0])
    rows = [{"machine": name, "scheduler": label, **each.row()} for (name, label), each in found.items()]
    command = command_line("plan", options)
    write_json(options.out / "users.json", rows, indent=1)
    write_text(options.out / "table.txt", text)
    return Answer(text.rstrip(), rows, {"command": command})


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
