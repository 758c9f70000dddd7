"""Batches from a CSV file of measurements, or from a simulated run."""

from __future__ import annotations

import csv
import warnings
from pathlib import Path

import numpy as np

from llmsched_env.machine.batches import Batches
from llmsched_env.results.records import Result
from llmsched_env.tables.request_table import ColumnSpec
from llmsched_env.validation import check_choice
from llmsched_env.workloads.formats.csv_parser import NUMBER
from llmsched_env.workloads.formats.csv_reader import LABEL, CsvCell, label, read_csv
from llmsched_env.workloads.formats.row_log import RowLog
from llmsched_env.workloads.formats.trace_format import CsvHeader, head_of

_LARGEST = float(np.finfo(float).max)
_TOKENS = CsvCell(NUMBER, ColumnSpec(np.float64, 1.0, _LARGEST, 1.0, "a finite number >= 1"))
_COUNT = CsvCell(NUMBER, ColumnSpec(np.float64, 0.0, _LARGEST, 0.0, "a finite number >= 0"))
_TIME = CsvCell(NUMBER, ColumnSpec(np.float64, np.nextafter(0.0, 1.0), _LARGEST, 0.0, "a finite number > 0 (ms)"))
_COMPOSITION = ("total_tokens", "decode_kv_tokens", "prefill_attn_pairs", "prefill_context_tokens")
_REQUIRED = (*_COMPOSITION, "iter_ms")
_REQUESTS = ("n_prefill_seqs", "n_decode_seqs")
_OTHER = ("profile", *_REQUESTS, "num_seqs", "prefill_tokens")


def read_batches(path: str | Path, skip_bad_rows: bool = False) -> dict[str, Batches]:
    """Read a CSV of batches, times in ms.

    Columns `total_tokens`, `decode_kv_tokens`, `prefill_attn_pairs`, `prefill_context_tokens`, `iter_ms`; the requests
    in the batch as `num_seqs`, or as `n_prefill_seqs` and `n_decode_seqs`; maybe `profile`. Others are passed over.
    Without the requests, a batch of decodes alone has one for each token, and that of others is unknown (nan).

    Args:
        path: the file.
        skip_bad_rows: leave out malformed rows, with a warning that lists the first of them.

    Returns:
        Batches by the name in their column `profile`; without that column, all under the file's stem.

    Warns:
        UserWarning: the file does not say how many requests the batches with prefill have.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the header lacks a column, or a row is malformed; naming file, line, column, value and what is
            expected.
    """
    path = Path(path)
    titles, log = head_of(path).titles, RowLog(skip_bad_rows)
    CsvHeader(_REQUIRED, (*_REQUIRED, *_OTHER)).check(path, titles)
    counted = next((names for names in (("num_seqs",), _REQUESTS) if set(names) <= set(titles)), ())
    cells = dict.fromkeys((*_REQUIRED, *counted), _COUNT) | {"total_tokens": _TOKENS, "iter_ms": _TIME}
    if "profile" in titles:
        cells["profile"] = LABEL
    columns = read_csv(path, titles, cells, log)
    log.skipped()
    composition = {title: columns[title] for title in _COMPOSITION}
    if counted:
        num_seqs = sum((columns[name] for name in counted), np.zeros(len(columns["iter_ms"])))
    else:
        holds_prefill = columns["prefill_attn_pairs"] > 0
        num_seqs = np.where(holds_prefill, np.nan, columns["total_tokens"])
        if holds_prefill.any():
            warnings.warn(
                f"{path} has no column num_seqs, nor n_prefill_seqs and n_decode_seqs: no time per request is fitted "
                "to batches with prefill",
                UserWarning,
                stacklevel=2,
            )
    whole = Batches(**composition, num_seqs=num_seqs, seconds=columns["iter_ms"] / 1e3)
    if "profile" not in titles:
        return {path.stem: whole}
    return {name: whole.part(columns["profile"] == label(name)) for name in _names(path, columns["profile"])}


def holds_batches(path: str | Path) -> bool:
    """Whether a file is a CSV of batches."""
    titles = head_of(Path(path)).titles
    return titles is not None and {"total_tokens", "iter_ms"} <= set(titles)


def rows_of(path: str | Path, profile: str | None = None, skip_bad_rows: bool = False) -> tuple[str, Batches]:
    """The batches of one profile of a CSV file, and its name; see `read_batches`.

    Args:
        path: the file.
        profile: which profile; needed if the file has several.
        skip_bad_rows: leave out malformed rows, with a warning.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a malformed file, or an unknown profile.
    """
    by_name = read_batches(path, skip_bad_rows)
    if profile is None and len(by_name) > 1:
        raise ValueError(f"{path} holds batches of {len(by_name)} profiles: choose one of {', '.join(by_name)}")
    name = check_choice(f"profile of {path}", profile or next(iter(by_name)), by_name)
    return name, by_name[name]


def batches_of(result: Result) -> Batches:
    """The batches of a simulated run as measured ones; their time includes the host's.

    Args:
        result: a run simulated with record="entries".

    Raises:
        ValueError: it was recorded without entries.
    """
    rows, entries, contexts = result.batches, result.batch_entries, result.entry_contexts
    if rows is None or entries is None or contexts is None:
        raise ValueError('result must have the entries of its batches; simulate with record="entries"')
    tokens, prefill = entries.tokens.astype(float), entries.is_prefill

    def total(values: np.ndarray) -> np.ndarray:
        return np.bincount(entries.batch, weights=values, minlength=len(rows))

    return Batches(
        total_tokens=total(tokens),
        decode_kv_tokens=total(np.where(prefill, 0, contexts)),
        prefill_attn_pairs=total(np.where(prefill, tokens * (contexts + (tokens + 1) / 2), 0)),
        prefill_context_tokens=total(np.where(prefill, contexts, 0)),
        num_seqs=rows.num_seqs.astype(float),
        seconds=np.array(rows.duration),
    )


def _names(path: Path, kept: np.ndarray) -> list[str]:
    """Profiles in order of appearance; `kept` holds the hashes of those with a row that is not bad."""
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        names = dict.fromkeys((row["profile"] or "").strip() for row in csv.DictReader(file, skipinitialspace=True))
    known = set(kept.tolist())
    return [name for name in names if label(name) in known]
