"""The reasons why the loops stop are told apart by their number, over both modules."""

import inspect
import re

from llmsched_env.simulator import loop, network_loop


def test_every_reason_has_a_number_of_its_own():
    source = inspect.getsource(loop) + inspect.getsource(network_loop)
    reasons = dict(re.findall(r"^([A-Z][A-Z_]*) = (\d+)  #", source, re.MULTILINE))
    reasons.pop("STARTS_AT_ONCE")  # a number of tasks
    assert {"PAUSED", "TASKS_LOW", "DRAINED", "ROUTE", "BAD_ROUTE"} <= set(reasons)
    assert len(set(reasons.values())) == len(reasons), reasons
