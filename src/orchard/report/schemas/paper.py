"""Record of `orchard report`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from orchard.report.schemas.base import Versioned


class Report(Versioned):
    """`orchard report --json`: the file that was written."""

    schema_name: Literal["orchard.report/1"] = Field(alias="schema")
    file: str
    format: Literal["html", "md", "pdf", "csv"]
    title: str
    bytes: int
