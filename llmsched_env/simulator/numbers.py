"""Which numbers are those of requests: what the primitives check before they read or write anything.

Compiled code does not check indices of arrays. A number that is none of a request, or that of a request at another
engine, is refused as a request that does not fit is: nothing is taken, preempted or rejected.
"""

from llmsched_env.compiled import compiled


@compiled(inline=True)
def exists(view, i):
    """Whether there is a request of number `i`, at whatever engine."""
    return i >= 0 and i < len(view.req.phase)


@compiled(inline=True)
def may_be_here(view, i):
    """Whether request `i` exists and may be at this engine: then its `phase` says how it stands here."""
    own = view.own
    return i >= 0 and own.first <= i and i < own.end and (own.shared == 0 or own.engine[i] == view.engine)
