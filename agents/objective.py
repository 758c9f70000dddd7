"""What an agent is trained for, and how schedulers are scored by it."""

from dataclasses import replace

from llmsched_env.objectives import OBJECTIVES as _MEASURES

# By the name of the environment's reward. The goodput reward counts the requests that meet their SLO; of those that
# arrive, that is `slo_attainment`.
OBJECTIVES = {
    "latency": replace(_MEASURES["mean_e2el"], name="latency"),
    "goodput": replace(_MEASURES["slo_attainment"], name="goodput", title="Goodput (requests within SLO)"),
}
