"""Rules written by hand after what training found, to see how much of it can be said in a few sentences."""

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
"""For SLO attainment: the prompt with the least product of length and slack goes first, among the most that can be on
time; what cannot be waits until no decode has a target to meet. There, prefill is taken to last 1.2 times as long as
the law says. A prompt is not begun where it is expected to make another late. Prompts join a batch while it ends within
0.9 of the time that the most urgent one in it has, and while hardly anybody who comes meanwhile is late for it. Steps
last 0.95 of the tightest TPOT target, or 0.9 of the time until a decode falls behind its own if that is longer, and
seven times as long as without prefill at most."""

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
"""For the mean latency: the prompt with the least product of length and predicted service goes first, and no target
matters. Prefill beside decodes lasts one and a half times as long as an empty step, the less, the longer the step is
already; further prompts join up to three times what it is without prefill. A fiftieth of the KV blocks stays free."""
