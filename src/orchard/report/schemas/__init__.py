"""The JSON of every command as pydantic models: the contract that scripts rely on, field by field.

A schema name ends with its version. Fields may be added within a version; one that goes away or changes its meaning makes a
new version. Models refuse fields they do not know, so the tests notice an addition that nobody documented in docs/json.md.
`SCHEMAS["orchard.prediction/1"].model_json_schema()` gives JSON Schema. Each module of this package holds the records of a
few commands; a new module is found by itself.
"""

from __future__ import annotations

import importlib
import pkgutil
import typing

from orchard.report.schemas.base import Versioned


def _all_schemas() -> dict[str, type[Versioned]]:
    """Every record by the name its `schema` field has."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return {typing.get_args(record.model_fields["schema_name"].annotation)[0]: record for record in Versioned.__subclasses__()}


SCHEMAS: dict[str, type[Versioned]] = _all_schemas()
