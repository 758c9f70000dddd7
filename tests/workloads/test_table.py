"""RequestTable refuses what is not a table of requests, and names the place."""

import math

import numpy as np
import pytest

from llmsched_env.tables.request_table import COLUMNS, ColumnError, RequestTable

GOOD = {"arrival": [0.0, 0.0, 1.5], "prompt_tokens": [3, 4, 5], "output_tokens": [1, 2, 3]}


def test_defaults_and_types():
    table = RequestTable.from_columns(**GOOD)
    assert len(table) == 3
    for name, column in COLUMNS.items():
        assert getattr(table, name).dtype == column.dtype
    assert table.client.tolist() == [0, 0, 0] and table.session.tolist() == [-1, -1, -1]
    assert np.isnan(table.predicted_output).all() and np.isinf(table.ttft_slo).all() and np.isinf(table.tpot_slo).all()


def test_columns_are_read_only_copies():
    arrival = np.array([0.0, 1.0, 2.0])
    table = RequestTable.from_columns(**{**GOOD, "arrival": arrival})
    arrival[0] = 1.0
    assert table.arrival[0] == 0.0
    with pytest.raises(ValueError, match="read-only"):
        table.prompt_tokens[0] = 7


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("arrival", [0.0, math.nan, 1.0], r"arrival\[1\] must be a finite number >= 0 \(s\), got nan"),
        ("arrival", [0.0, 1.0, math.inf], r"arrival\[2\] must be a finite number >= 0 \(s\), got inf"),
        ("arrival", [-0.5, 1.0, 2.0], r"arrival\[0\] must be .* got -0.5"),
        ("arrival", [0.0, 2.0, 1.0], r"arrival\[2\] must be >= the arrival before it \(2.0 s\), got 1.0"),
        ("arrival", [[0.0, 1.0, 2.0]], r"arrival must be a one-dimensional array, got shape \(1, 3\)"),
        ("prompt_tokens", [3, 0, 5], r"prompt_tokens\[1\] must be an integer >= 1 .* got 0"),
        ("prompt_tokens", [3, 2.5, 5], r"prompt_tokens\[1\] must be an integer .* got 2.5"),
        ("prompt_tokens", [3, 2**40, 5], r"prompt_tokens\[1\] must be an integer .*<= 1e9"),
        ("prompt_tokens", [3, 4], "prompt_tokens must have one value per arrival, that is 3, got 2"),
        ("output_tokens", [1, 2, -3], r"output_tokens\[2\] must be .* got -3"),
        ("output_tokens", ["1", "2", "3"], "output_tokens must hold numbers"),
        ("output_tokens", [True, True, True], "output_tokens must hold numbers"),
        ("output_tokens", [1, None, 3], "output_tokens must hold numbers"),
        ("predicted_output", [1.0, 0.0, math.nan], r"predicted_output\[1\] must be .* > 0"),
        ("client", [0, -1, 0], r"client\[1\] must be an integer >= 0"),
        ("klass", [0, math.nan, 0], r"klass\[1\] must be an integer"),
        ("session", [-1, -2, 0], r"session\[1\] must be an integer >= -1"),
        ("ttft_slo", [1.0, 1.0, 0.0], r"ttft_slo\[2\] must be a number > 0 \(s; inf: none\), got 0"),
        ("tpot_slo", [math.nan, 1.0, 1.0], r"tpot_slo\[0\] must be a number > 0"),
        ("timeout", [1.0, 0.0, 1.0], r"timeout\[1\] must be a number > 0 \(s; inf: its client waits for ever\), got 0"),
        ("parent", [-1, 1, -1], r"parent\[1\] must be the number of a request before 1, or -1, got 1"),
        ("shared_tokens", [0, 1, 0], r"shared_tokens\[1\] must be <= 0, .* got 1"),
    ],
)
def test_bad_columns_are_named_with_index_value_and_range(column, values, message):
    with pytest.raises(ColumnError, match=message) as error:
        RequestTable.from_columns(**{**GOOD, column: values})
    assert error.value.column == column


def test_whole_floats_are_integers():
    assert RequestTable.from_columns(**{**GOOD, "prompt_tokens": np.array([3.0, 4.0, 5.0])}).prompt_tokens.dtype == int


def test_window_is_half_open_and_counts_from_its_start():
    table = RequestTable.from_columns([0.0, 1.0, 1.0, 2.0, 4.0], [1, 2, 3, 4, 5], [1] * 5, client=[0, 1, 2, 3, 4])
    part = table.window(1.0, 4.0, 3.0)
    assert part.arrival.tolist() == [0.0, 0.0, 1.0]
    assert part.prompt_tokens.tolist() == [2, 3, 4] and part.client.tolist() == [1, 2, 3]
    assert part.horizon == 3.0
    assert len(table.window(2.5, 3.5, 1.0)) == 0


def test_stretching_multiplies_times_and_keeps_the_rest():
    table = RequestTable.from_columns(**GOOD, horizon=2.0).stretched(4.0)
    assert table.arrival.tolist() == [0.0, 0.0, 6.0]
    assert table.horizon == 8.0 and table.output_tokens.tolist() == [1, 2, 3]


def test_shared_tokens_end_with_the_own_prompt_and_with_what_the_parent_has():
    table = {**GOOD, "parent": [-1, 0, 1]}
    assert RequestTable.from_columns(**table, shared_tokens=[0, 4, 5]).shared_tokens.tolist() == [0, 4, 5]
    with pytest.raises(ColumnError, match=r"shared_tokens\[1\] must be <= 4"):  # its prompt; the parent has 3 + 1
        RequestTable.from_columns(**table, shared_tokens=[0, 5, 0])
    with pytest.raises(ColumnError, match=r"shared_tokens\[1\] must be <= 4"):  # the parent's 3 + 1 tokens
        RequestTable.from_columns(**{**table, "prompt_tokens": [3, 9, 5]}, shared_tokens=[0, 5, 0])


def test_a_window_drops_parents_before_it():
    table = RequestTable.from_columns(**GOOD, parent=[-1, 0, 1], shared_tokens=[0, 2, 3])
    cut = RequestTable.from_columns([0.0, 1.0, 2.0], [3, 4, 5], [1, 2, 3], parent=[-1, 0, 1], shared_tokens=[0, 2, 3])
    part = cut.window(1.0, 3.0, 2.0)
    assert part.parent.tolist() == [-1, 0] and part.shared_tokens.tolist() == [0, 3]
    assert table.window(0.0, 9.0, 9.0).parent.tolist() == [-1, 0, 1]


def test_columns_that_nobody_can_write_to_are_not_copied():
    arrival = np.array([0.0, 1.0, 2.0])
    arrival.flags.writeable = False
    table = RequestTable.from_columns(**{**GOOD, "arrival": arrival})
    assert np.shares_memory(table.arrival, arrival)
    assert np.shares_memory(table.window(0.0, 9.0, 9.0).prompt_tokens, table.prompt_tokens)
    view = np.array([0.0, 1.0, 2.0])[:]
    view.flags.writeable = False  # its base can still be written to
    assert not np.shares_memory(RequestTable.from_columns(**{**GOOD, "arrival": view}).arrival, view)


def test_absent_columns_take_no_memory():
    table = RequestTable.from_columns(np.zeros(1000), np.ones(1000), np.ones(1000))
    assert table.timeout.strides == (0,) and len(table.timeout) == 1000
    assert table.window(0.0, 1.0, 1.0).parent.tolist() == [-1] * 1000
