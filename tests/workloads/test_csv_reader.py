"""The fast reader of CSV files: the same numbers as Python's own parsers, whatever the block size."""

import json
import tracemalloc

import numpy as np
import pytest

from llmsched_env.workloads import load_trace
from llmsched_env.workloads.formats import csv_parser, csv_reader
from llmsched_env.workloads.formats.csv_reader import LABEL, TIME_STAMP, cell_of, label, nanoseconds

PLAIN = "arrival,prompt_tokens,output_tokens"


def column(tmp_path, cell, cells):
    path = tmp_path / "column.csv"
    path.write_text("x,y\n" + "".join(f"{text},1\n" for text in cells))
    log = csv_reader.RowLog()
    return csv_reader.read_csv(path, ["x", "y"], {"x": cell, "y": cell_of("client")}, log)["x"]


def test_numbers_are_pythons_to_the_last_bit(tmp_path):
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.random(2000) * 10.0 ** rng.integers(-30, 30, 2000), rng.random(500), [0.0, 1e300]])
    cells = [repr(float(value)) for value in values]
    cells += [f"{value:.7f}" for value in 1e6 * rng.random(1000)] + [
        "1.",
        ".5",
        "+2.5",
        "007.250",
        "0.000000",
        " 3.5 ",
        "1e3",
    ]
    cells += ["9007199254740993", "123456789012345678901234567890", "0.1234567890123456789", "1E-5", "5e-324"]
    assert column(tmp_path, cell_of("arrival"), cells).tolist() == [float(cell) for cell in cells]


def test_time_stamps_are_pythons_in_every_month(tmp_path):
    stamps = np.datetime64("1999-12-31T23:59:59.123456789") + np.arange(2000) * np.timedelta64(123_456_789, "ms")
    cells = [str(stamp).replace("T", " ") for stamp in stamps]
    for zone in ("", "Z", "+05:30", "-11:00"):
        read = column(tmp_path, TIME_STAMP, [cell + zone for cell in cells])
        exact = np.array([nanoseconds(cell + zone) for cell in cells])
        assert np.array_equal(read, (exact - exact[0]) / 1e9)
    for day in ("2023-02-29", "2024-02-30", "1900-02-29", "2024-04-31", "2024-00-10", "2024-13-01", "2024-01-00"):
        with pytest.raises(
            ValueError, match=f"line 3, column x must be an existing date and time, got '{day} 00:00:00'"
        ):
            column(tmp_path, TIME_STAMP, ["2000-02-29 00:00:00", f"{day} 00:00:00"])
    leap = ["2024-02-28 00:00:00", "2024-02-29 00:00:00.5", "2024-03-01T00:00:00"]
    assert column(tmp_path, TIME_STAMP, leap).tolist() == [0.0, 86400.5, 172800.0]


def test_labels_have_the_same_hash_on_both_paths(tmp_path):
    read = column(tmp_path, LABEL, ["GPT-4", '"GPT-4"', "ChatGPT", "", "größer"])
    assert read.tolist() == [label(text) for text in ("GPT-4", "GPT-4", "ChatGPT", "", "größer")]


@pytest.mark.parametrize("block", [7, 64, 1000])
@pytest.mark.parametrize("rows", [3, 1 << 17])
def test_blocks_do_not_show(tmp_path, monkeypatch, block, rows):
    rng = np.random.default_rng(1)
    arrival = np.cumsum(rng.random(500))
    text = (
        PLAIN
        + "\r\n"
        + "".join(f"{t!r},{i + 1},{2 * i + 1}\r\n{chr(10) * (i % 7 == 0)}" for i, t in enumerate(arrival.tolist()))
    )
    path = tmp_path / "trace.csv"
    path.write_bytes(text.encode())
    whole = load_trace(path).sample(0)
    monkeypatch.setattr(csv_reader, "_BLOCK", block)
    monkeypatch.setattr(csv_reader, "_ROWS", rows)
    pieces = load_trace(path).sample(0)
    for name in ("arrival", "prompt_tokens", "output_tokens"):
        assert np.array_equal(getattr(whole, name), getattr(pieces, name))
    assert whole.arrival.tolist() == arrival.tolist()
    bad = text.replace(",100,", ",1OO,")
    path.write_bytes(bad.encode())
    line = 1 + bad[: bad.index("1OO")].count("\n")
    with pytest.raises(ValueError, match=f"line {line}, column prompt_tokens must be .* got '1OO'"):
        load_trace(path)


def test_the_kernel_leaves_odd_rows_to_the_slow_path(tmp_path):
    text = np.frombuffer(b'1,2\n"3",4\n5,6\n', np.uint8)
    ints, rows = np.zeros((9, 2), np.int64), np.zeros((9, 4), np.int64)
    kinds, optional = np.full(2, csv_parser.INTEGER), np.zeros(2, np.uint8)
    arguments = (kinds, optional, ints, np.zeros((9, 2)), np.zeros(2), rows, np.zeros((9, 4), np.int64))
    assert csv_parser.parse_rows(text, *arguments) == (3, 0, 3, len(text))
    assert rows[:3, 0].tolist() == [csv_parser.CLEAN, csv_parser.ODD, csv_parser.CLEAN]
    path = tmp_path / "trace.csv"
    path.write_text(PLAIN + '\n"0.5","2",3\n')
    assert load_trace(path).sample(0).arrival.tolist() == [0.5]


def test_the_first_bad_line_is_the_one_reported(tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text(PLAIN + "\n0,1,1\n1,0,1\n2,x,1\n")  # a value that is not allowed, then one that is no number
    with pytest.raises(ValueError, match="line 3, column prompt_tokens must be .* got 0"):
        load_trace(path)


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_memory_grows_with_the_numbers_and_not_with_the_text(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(csv_reader, "_BLOCK", 1 << 16)
    monkeypatch.setattr(csv_reader, "_ROWS", 1 << 12)
    names, padding = PLAIN.split(","), " " * 60

    def most_bytes(rows):
        path = tmp_path / f"trace{rows}"
        with path.open("w") as file:
            if kind == "csv":
                file.write(PLAIN + "\n")
                file.writelines(f"{i}.5,{padding}{i + 1},{i + 1}\n" for i in range(rows))
            else:
                file.writelines(
                    json.dumps(dict(zip(names, (i, i + 1, i + 1), strict=True))) + padding + "\n" for i in range(rows)
                )
        tracemalloc.start()
        assert len(load_trace(path).sample(0)) == rows
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    most_bytes(10)  # imports and compiles
    per_row = (most_bytes(40_000) - most_bytes(10_000)) / 30_000
    assert per_row < 60  # three columns of 8 bytes, one of them twice while it is put together, and room to spare
