"""What every record is made of."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

Share = float
"""A number from 0 to 1."""


class Record(BaseModel):
    """Refuses fields that it does not know, so that the tests notice an addition nobody documented."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Versioned(Record):
    """The whole answer of a command; `schema` names it and its version."""

    schema_name: str = Field(alias="schema")
