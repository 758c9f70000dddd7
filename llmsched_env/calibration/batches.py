"""Measured batches: what was in each, and how long it took."""

from __future__ import annotations

import csv
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from llmsched_env.tables.request_table import ColumnSpec
from llmsched_env.workloads.formats.csv_parser import NUMBER
from llmsched_env.workloads.formats.csv_reader import LABEL, CsvCell, label, read_csv
from llmsched_env.workloads.formats.row_log import RowLog
from llmsched_env.workloads.formats.trace_format import CsvHeader, head_of

_LARGEST = float(np.finfo(float).max)
_COUNT = CsvCell(NUMBER, ColumnSpec(np.float64, 0.0, _LARGEST, 0.0, "a finite number >= 0"))
_TIME = CsvCell(NUMBER, ColumnSpec(np.float64, np.nextafter(0.0, 1.0), _LARGEST, 0.0, "a finite number > 0 (ms)"))
_COMPOSITION = ("total_tokens", "decode_kv_tokens", "prefill_attn_pairs", "prefill_context_tokens")
_REQUIRED = (*_COMPOSITION, "iter_ms")
_OTHER = ("profile", "n_prefill_seqs", "prefill_tokens", "n_decode_seqs")


@dataclass(frozen=True, slots=True, eq=False)
class Batches:
    """Compositions and times of n batches, f8[n] each.

    Attributes:
        total_tokens: tokens in the batch (b).
        decode_kv_tokens: context tokens that its decodes read (S).
        prefill_attn_pairs: query-key pairs of its prefill chunks (Q).
        prefill_context_tokens: context tokens before these chunks (C).
        seconds: time of the batch.
    """

    total_tokens: np.ndarray
    decode_kv_tokens: np.ndarray
    prefill_attn_pairs: np.ndarray
    prefill_context_tokens: np.ndarray
    seconds: np.ndarray

    def __post_init__(self) -> None:
        sizes = {field.name: len(getattr(self, field.name)) for field in fields(self)}
        if len(set(sizes.values())) > 1:
            raise ValueError(f"batches must have arrays of one length, got {sizes}")

    def __len__(self) -> int:
        return len(self.seconds)

    @property
    def composition(self) -> tuple[np.ndarray, ...]:
        """Arguments of `BatchTime.seconds`."""
        return self.total_tokens, self.decode_kv_tokens, self.prefill_attn_pairs, self.prefill_context_tokens


def read_batches(path: str | Path, skip_bad_rows: bool = False) -> dict[str, Batches]:
    """Read a CSV of batches, times in ms.

    Columns `total_tokens`, `decode_kv_tokens`, `prefill_attn_pairs`, `prefill_context_tokens`, `iter_ms`, and maybe
    `profile`; others are passed over.

    Args:
        path: the file.
        skip_bad_rows: leave out malformed rows, with a warning that lists the first of them.

    Returns:
        Batches by the name in their column `profile`; without that column, all under the file's stem.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the header lacks a column, or a row is malformed; naming file, line, column, value and what is
            expected.
    """
    path = Path(path)
    titles, log = head_of(path).titles, RowLog(skip_bad_rows)
    CsvHeader(_REQUIRED, (*_REQUIRED, *_OTHER)).check(path, titles)
    cells = {title: _TIME if title == "iter_ms" else _COUNT for title in _REQUIRED}
    if "profile" in titles:
        cells["profile"] = LABEL
    columns = read_csv(path, titles, cells, log)
    log.skipped()
    whole = Batches(**{title: columns[title] for title in _COMPOSITION}, seconds=columns["iter_ms"] / 1e3)
    if "profile" not in titles:
        return {path.stem: whole}
    return {name: _part(whole, columns["profile"] == label(name)) for name in _names(path, columns["profile"])}


def _names(path: Path, kept: np.ndarray) -> list[str]:
    """Profiles in order of appearance; `kept` holds the hashes of those with a row that is not bad."""
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        names = dict.fromkeys((row["profile"] or "").strip() for row in csv.DictReader(file, skipinitialspace=True))
    known = set(kept.tolist())
    return [name for name in names if label(name) in known]


def _part(batches: Batches, rows: np.ndarray) -> Batches:
    return Batches(*(getattr(batches, field.name)[rows] for field in fields(batches)))
