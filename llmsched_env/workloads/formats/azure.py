"""Azure's LLM inference traces of 2023 and 2024 and its multimodal ones (https://github.com/Azure/AzurePublicDataset).

Arrivals are counted from the first row. Time stamps have seven decimals in 2023, and six or none and an offset in 2024.
Of a multimodal request its tokens count; the images (`NumImages`) and the time of their encoder are not simulated.
"""

from llmsched_env.tables.request_table import RequestTable
from llmsched_env.workloads.formats.csv_reader import TIME_STAMP, cell_of, read_csv
from llmsched_env.workloads.formats.row_log import RowLog
from llmsched_env.workloads.formats.trace_format import CsvHeader, Head, TraceFormat
from llmsched_env.workloads.sources import FixedRequests

_CELLS = {
    "TIMESTAMP": TIME_STAMP,
    "ContextTokens": cell_of("prompt_tokens"),
    "GeneratedTokens": cell_of("output_tokens"),
}


def _read(head: Head, log: RowLog) -> FixedRequests:
    columns = read_csv(head.path, head.titles, _CELLS, log, time="TIMESTAMP")
    log.says("time stamps counted from the first")
    if "NumImages" in head.titles:
        log.says("images not simulated beside their tokens")
    return FixedRequests(RequestTable.from_columns(*(columns[title] for title in _CELLS)))


AZURE = TraceFormat(
    "Azure",
    "TIMESTAMP,ContextTokens,GeneratedTokens",
    _read,
    header=CsvHeader(tuple(_CELLS), (*_CELLS, "NumImages"), True),
)
