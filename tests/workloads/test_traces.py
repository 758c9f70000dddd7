"""Trace files: what is read, and how errors point at the cell."""

import math

import numpy as np
import pytest

from llmsched_env.workloads import load_trace

AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens"
PLAIN = "arrival,prompt_tokens,output_tokens"


@pytest.fixture
def trace_file(tmp_path):
    def write(text):
        path = tmp_path / "trace.csv"
        path.write_bytes(text.encode())
        return path

    return write


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("end", [True, False])
def test_azure_2023_keeps_all_seven_decimals(trace_file, newline, end):
    lines = [
        AZURE,
        "2023-11-16 18:59:59.9999999,374,44",
        "2023-11-16 19:00:00.0000001,396,109",
        "2023-11-16 19:00:01.9999999,1,2",
    ]
    table = load_trace(trace_file(newline.join(lines) + (newline if end else ""))).sample(0)
    assert table.arrival.tolist() == [0.0, 2e-7, 2.0]
    assert table.prompt_tokens.tolist() == [374, 396, 1] and table.output_tokens.tolist() == [44, 109, 2]


def test_azure_2024_stamps_with_offsets_and_without_decimals(trace_file):
    rows = ["2024-05-10 00:00:00.009930+00:00,1,2", "2024-05-10 00:00:01+00:00,3,4", "2024-05-10 02:00:02.5+02:00,5,6"]
    assert load_trace(trace_file("\n".join([AZURE, *rows]))).sample(0).arrival.tolist() == [0.0, 0.99007, 2.49007]


def test_azure_slices_are_read_as_they_are(shared):
    for kind, rows in (("conv", "rows00001-10000"), ("code", "rows00001-04500")):
        name = f"AzureLLMInferenceTrace_{kind}.{rows}"
        path = shared / "traces/azure_2023" / f"{name}.csv"
        workload = load_trace(path)
        cells = [line.split(",") for line in path.read_text().splitlines()[1:]]
        table = workload.sample(0)
        assert workload.name == name and workload.slo is None
        assert table.prompt_tokens.tolist() == [int(row[1]) for row in cells]
        assert table.output_tokens.tolist() == [int(row[2]) for row in cells]
        stamps = np.array([row[0] for row in cells], dtype="datetime64[ns]")
        assert np.array_equal(table.arrival, (stamps - stamps[0]).astype(np.int64) / 1e9)
        assert workload.rate == pytest.approx((len(cells) - 1) / table.arrival[-1])


def test_plain_csv_reads_columns_by_name(trace_file):
    text = (
        "session,output_tokens,arrival,prompt_tokens,client,klass,priority,predicted_output,ttft_slo,tpot_slo\n"
        "7,2,0.5,10,1,3,-2,4.5,0.5,0.05\n"
        "\n"
        ",3, 1e1 ,20,,,,,,inf\n"
    )
    table = load_trace(str(trace_file(text))).sample(0)
    assert table.arrival.tolist() == [0.5, 10.0]  # as written, not shifted
    assert table.prompt_tokens.tolist() == [10, 20] and table.output_tokens.tolist() == [2, 3]
    assert table.session.tolist() == [7, -1] and table.client.tolist() == [1, 0]
    assert table.klass.tolist() == [3, 0] and table.priority.tolist() == [-2, 0]
    assert table.predicted_output[0] == 4.5 and math.isnan(table.predicted_output[1])
    assert table.ttft_slo.tolist() == [0.5, math.inf] and table.tpot_slo.tolist() == [0.05, math.inf]


def test_ties_keep_file_order_and_a_byte_order_mark_is_ignored(trace_file):
    table = load_trace(trace_file("\ufeff" + PLAIN + "\n1,1,1\n1,2,1\n1,3,1")).sample(0)
    assert table.prompt_tokens.tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1 must be a header with columns .*TIMESTAMP.* or arrival.*, got nothing"),
        ("\n", "line 1 must be a header .* got nothing"),
        (PLAIN + "\n", "at least one request"),
        ("a,b,c\n1,2,3\n", "line 1 must be a header .* got a,b,c"),
        ("arrival,prompt_tokens\n1,2\n", "line 1 lacks column output_tokens"),
        ("TIMESTAMP,GeneratedTokens\n", "line 1 lacks column ContextTokens"),
        (PLAIN + ",priorty\n1,2,3,4\n", "line 1 has unknown column 'priorty'; did you mean 'priority'"),
        (PLAIN + ",arrival\n1,2,3,4\n", "line 1 must name each column once, got 'arrival' 2 times"),
        (PLAIN + "\n0,1,1\n1,2\n", "line 3 must have 3 cells like the header, got 2: 1,2"),
        (PLAIN + "\n0,1,1\n\n1,x,1\n", "line 4, column prompt_tokens must be an integer >= 1 .*, got 'x'"),
        (PLAIN + "\n0,1.5,1\n", "line 2, column prompt_tokens must be an integer .*, got '1.5'"),
        (PLAIN + "\n0,1_0,1\n", "line 2, column prompt_tokens must be an integer .*, got '1_0'"),
        (PLAIN + "\n0,1,\n", "line 2, column output_tokens must be an integer .*, got ''"),
        (PLAIN + "\n,1,1\n", "line 2, column arrival must be a finite number >= 0 .*, got ''"),
        (PLAIN + "\n0,1,0\n", "line 2, column output_tokens must be an integer >= 1 .*, got 0"),
        (PLAIN + "\n0,1,99999999999999999999\n", "line 2, column output_tokens must be an integer .*<= 1e9"),
        (PLAIN + "\n-1,1,1\n", "line 2, column arrival must be a finite number >= 0 .*, got -1.0"),
        (PLAIN + "\n0,1,1\nnan,1,1\n", "line 3, column arrival must be a finite number >= 0 .*, got nan"),
        (
            PLAIN + "\n0,1,1\n5,1,1\n4,1,1\n",
            r"line 4, column arrival must be >= the arrival before it \(5.0 s\), got 4.0",
        ),
        (PLAIN + ",tpot_slo\n0,1,1,0\n", "line 2, column tpot_slo must be a number > 0 .*, got 0.0"),
        (AZURE + "\n2023-11-16 18:15:46.68,0,44\n", "line 2, column ContextTokens must be an integer >= 1 .*, got 0"),
        (AZURE + "\n18:15:46,3,44\n", "line 2, column TIMESTAMP must be a time like .*, got '18:15:46'"),
        (AZURE + "\n2023-13-16 18:15:46,3,44\n", "line 2, column TIMESTAMP must be an existing date and time, got"),
        (
            AZURE + "\n2023-11-16 18:15:46,3,4\n2023-11-16 18:15:45,3,4\n",
            "line 3, column TIMESTAMP must be .* the cell is '2023-11-16 18:15:45'",
        ),
        (PLAIN + '\n0,1,"' + "1" * 200_000 + '"\n', "line 2 must be CSV text: field larger"),
    ],
)
def test_errors_name_file_line_column_value_and_what_is_allowed(trace_file, text, message):
    path = trace_file(text)
    with pytest.raises(ValueError, match=message) as error:
        load_trace(path)
    assert str(error.value).startswith(str(path))


def test_a_missing_file_is_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.csv"):
        load_trace(tmp_path / "nowhere.csv")
