"""Rules written by hand from what training found, to see how much of it a few sentences can express."""

from dataclasses import replace

from llmsched_env.policies.index import index

length_times_slack = replace(
    index(
        by_length=1.0,
        by_urgency=1.3,
        outside=6.0,
        late=16.0,
        blocking=1.0,
        caution=1.1,
        margin=1.2,
        step_share=0.95,
        pace_share=0.9,
        due_share=0.9,
        victims=0.07,
        least_chunk=26,
        extra=6.0,
        late_share=0.0,
        spare=0.25,
    ),
    name="length_times_slack",
    reference="ours: written after pretrained_slo",
)
"""For SLO attainment.

Of the largest set of prompts that can be on time, the one with the least product of length and slack goes first; for
this set prefill is assumed to take 1.2 times as long as the batch-time law says. The others wait until no decode has a
target to meet. A prompt is not begun if it is expected to make another late. Prompts join a batch while it ends within
0.9 of the time that the most urgent prompt in it has left, and while few requests that arrive meanwhile are expected to
be late for it. Steps last at most 0.95 of the tightest TPOT target, or 0.9 of the time until a decode falls behind its
target if that is longer, and at most seven times as long as without prefill.
"""

length_and_work = replace(
    index(
        by_length=0.7,
        by_work=0.3,
        late=0.0,
        step_share=1e4,
        least_chunk=48,
        extra=1.5,
        extra_by_load=-0.5,
        join=3.0,
        spare=0.01,
        keep=0.02,
    ),
    name="length_and_work",
    reference="ours: written after pretrained_latency",
)
"""For the mean latency.

The prompt with the least product of length to the power 0.7 and predicted service to the power 0.3 goes first; targets
do not matter. Prefill in a step with decodes takes up to one and a half times as long as an empty step, less in steps
that are long without it; further prompts join up to three times the step without prefill. A fiftieth of the KV blocks
stays free.
"""
