"""The heap of requests against a sorted list."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmsched_env.compiled import interpreted
from llmsched_env.simulator.ordering import heapify, pop, push

KERNELS = pytest.mark.parametrize("mode", [lambda kernel: kernel, interpreted], ids=["compiled", "interpreted"])
KEYS = st.lists(st.integers(0, 5) | st.floats(-10, 10), min_size=1, max_size=30)  # with many ties


@KERNELS
@given(keys=KEYS, pops=st.lists(st.booleans(), max_size=90))
def test_requests_come_out_by_key_then_number(mode, keys, pops):
    """All requests are pushed in an order of no meaning; True pops in between."""
    keys = np.array(keys, np.float64)
    order = np.random.default_rng(0).permutation(len(keys)).tolist()
    heap, inside = np.zeros(len(keys), np.int64), []
    for wants_pop in [*pops, *[False] * len(keys), *[True] * len(keys)]:
        if wants_pop and inside:
            first = min(inside, key=lambda i: (keys[i], i))
            assert heap[0] == first
            assert mode(pop)(heap, len(inside), keys) == first
            inside.remove(first)
        elif not wants_pop and order:
            i = order.pop()
            mode(push)(heap, len(inside), i, keys)
            inside.append(i)
        assert sorted(heap[: len(inside)]) == sorted(inside)
    assert not inside and not order


@KERNELS
@given(keys=KEYS)
def test_heapify_then_pop_sorts(mode, keys):
    keys = np.array(keys, np.float64)
    heap = np.random.default_rng(1).permutation(len(keys))
    mode(heapify)(heap, len(keys), keys)
    popped = [mode(pop)(heap, n, keys) for n in range(len(keys), 0, -1)]
    assert popped == np.lexsort((np.arange(len(keys)), keys)).tolist()


@given(keys=KEYS)
def test_requests_in_order_are_a_heap_already(keys):
    keys = np.sort(np.array(keys, np.float64))
    heap = np.arange(len(keys))
    assert [pop(heap, n, keys) for n in range(len(keys), 0, -1)] == list(range(len(keys)))
