"""A job's folder on disk, which a component may have filled with anything."""

from vaka.datafolder.folder import (
    JobFolder,
    Kind,
    OpenSource,
    Source,
    Sources,
    printable,
    split_name,
)

__all__ = [
    "JobFolder",
    "Kind",
    "OpenSource",
    "Source",
    "Sources",
    "printable",
    "split_name",
]
