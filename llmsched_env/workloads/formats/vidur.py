"""Length files of Vidur (https://github.com/microsoft/vidur) and etalon: tokens of requests, usually without times.

Without a column `arrived_at` (s), arrivals are Poisson at one request per second until the workload is scaled.
"""

import numpy as np

from llmsched_env.tables.request_table import RequestTable, constant
from llmsched_env.workloads.arrivals import Poisson
from llmsched_env.workloads.formats.clock import run_times
from llmsched_env.workloads.formats.csv_reader import cell_of, read_csv
from llmsched_env.workloads.formats.row_log import RowLog
from llmsched_env.workloads.formats.trace_format import CsvHeader, Head, TraceFormat
from llmsched_env.workloads.sources import FixedRequests, Source, TimelessRequests

_CELLS = {"num_prefill_tokens": cell_of("prompt_tokens"), "num_decode_tokens": cell_of("output_tokens")}
_TIME = "arrived_at"
_OTHER = ("num_total_tokens", "pd_ratio")


def _read(head: Head, log: RowLog) -> Source:
    if _TIME in head.titles:
        cells = {_TIME: cell_of("arrival"), **_CELLS}
        columns = read_csv(head.path, head.titles, cells, log, time=_TIME)
        columns[_TIME] = run_times(columns[_TIME], log, "s", head.time_unit)
        return FixedRequests(RequestTable.from_columns(*(columns[title] for title in cells)))
    log.says("no times")
    prompt, output = read_csv(head.path, head.titles, _CELLS, log).values()
    table = RequestTable.from_columns(constant(len(prompt), 0.0, np.float64), prompt, output)
    return TimelessRequests(table, 1.0, Poisson())


VIDUR = TraceFormat(
    "lengths",
    "num_prefill_tokens,num_decode_tokens,...",
    _read,
    header=CsvHeader(tuple(_CELLS), (*_CELLS, _TIME, *_OTHER)),
    takes=("time_unit",),
)
