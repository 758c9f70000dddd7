"""How long a scheduler idles for a threshold to be met: until a time limit, its patience, has passed."""

from llmsched_env.compiled import compiled


@compiled
def idle_until(view, memory, met, patience):
    """The time until which to idle (s): now if the threshold is met, or has not been for `patience` seconds.

    Args:
        view: the view.
        memory: the scheduler's record with a field `met`, the time at which the threshold was last met (s).
        met: whether the threshold is met now.
        patience: s.
    """
    first = len(view.running) == 0 and len(view.waiting) == len(view.arrived)  # the engine was empty before
    if met or first:
        memory.met = view.clock
    return view.clock if met else max(view.clock, memory.met + patience)
