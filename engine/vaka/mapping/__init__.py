"""The rules of input and output mapping, on top of what every mapping backend can do."""

from vaka.mapping.inputs import InputFiles, InputTables, stage_files, stage_tables
from vaka.mapping.outputs import Outputs, store
from vaka.mapping.preparing import OutputContext
from vaka.mapping.results import Report, TableResult

__all__ = [
    "InputFiles",
    "InputTables",
    "OutputContext",
    "Outputs",
    "Report",
    "TableResult",
    "stage_files",
    "stage_tables",
    "store",
]
