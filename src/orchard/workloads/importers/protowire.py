"""Protocol-buffer wire format, read in place: a schema says which fields matter, the rest is skipped.

Model files hold hundreds of megabytes of weights inside one message. Decoding only the structure, with `bytes` fields
kept as slices of a memory map, reads a 500 MB file in the time its node list takes, needs no generated classes, and
gives one place that meets truncated or hostile files.

A schema maps field number to (name, type). Types: "int", "float", "double", "str", "bytes" (a slice), "bool", another
schema (a message), each in a list for a repeated field; "map" tuples for map fields: ("map", value_type).
Repeated numbers may be packed or not. A message decodes to a `Message`: fields as attributes, absent ones at defaults.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from orchard.workloads.importers.errors import ImportError_

FieldType = Any
Schema = Mapping[int, tuple[str, FieldType]]
_MAX_DEPTH = 64
_MAX_FIELDS = 20_000_000


class WireError(ImportError_):
    """Bytes that are no message of the expected schema."""


class Message:
    """A decoded message. A field that is absent reads as its default: 0, "", empty list, or None for a message."""

    __slots__ = ("_schema", "fields")

    def __init__(self, schema: _Compiled) -> None:
        self._schema = schema
        self.fields: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        try:
            return self.fields[name]
        except KeyError:
            default = self._schema.defaults.get(name, _MISSING)
            if default is _MISSING:
                raise AttributeError(name) from None
            return default() if callable(default) else default

    def has(self, name: str) -> bool:
        return name in self.fields

    def which(self, *names: str) -> str | None:
        """The first of `names` that is present: a oneof."""
        return next((n for n in names if n in self.fields), None)

    def __repr__(self) -> str:
        return f"Message({', '.join(self.fields)})"


_MISSING = object()
_SCALARS: dict[str, Any] = {"int": 0, "bool": False, "float": 0.0, "double": 0.0, "str": "", "bytes": b""}


class _Compiled:
    """A schema with defaults looked up once."""

    __slots__ = ("defaults", "fields")

    def __init__(self, schema: Schema) -> None:
        self.fields = schema
        self.defaults: dict[str, Any] = {}
        for name, kind in schema.values():
            if isinstance(kind, list):
                self.defaults[name] = list
            elif isinstance(kind, tuple):
                self.defaults[name] = dict
            elif isinstance(kind, str):
                self.defaults[name] = _SCALARS[kind]
            else:
                self.defaults[name] = None


_cache: dict[int, tuple[Schema, _Compiled]] = {}


def _compiled(schema: Schema) -> _Compiled:
    found = _cache.get(id(schema))
    if found is None or found[0] is not schema:
        found = (schema, _Compiled(schema))
        _cache[id(schema)] = found
    return found[1]


def decode(data: memoryview, schema: Schema, where: str) -> Message:
    """The message in `data`. Raises WireError with the byte offset of what does not fit."""
    return _Reader(data, where).message(0, len(data), schema, 0)


class _Reader:
    __slots__ = ("data", "fields_left", "where")

    def __init__(self, data: memoryview, where: str) -> None:
        self.data = data
        self.where = where
        self.fields_left = _MAX_FIELDS

    def fail(self, at: int, problem: str) -> WireError:
        return WireError(f"{self.where}: damaged or not of this format ({problem} at byte {at})")

    def varint(self, at: int, end: int) -> tuple[int, int]:
        data = self.data
        value = shift = 0
        while at < end:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, at
            shift += 7
            if shift > 63:
                break
        raise self.fail(at, "a number does not end")

    def message(self, at: int, end: int, schema: Schema, depth: int) -> Message:
        if depth > _MAX_DEPTH:
            raise self.fail(at, f"messages nest deeper than {_MAX_DEPTH}")
        compiled = _compiled(schema)
        result = Message(compiled)
        fields = result.fields
        data, known = self.data, compiled.fields
        while at < end:
            start = at
            key = data[at]
            at += 1
            if key >= 0x80:
                key, at = self.varint(start, end)
            number, wire = key >> 3, key & 7
            self.fields_left -= 1
            if self.fields_left < 0:
                raise self.fail(start, f"more than {_MAX_FIELDS} fields")
            if wire == 2:
                size, at = self.varint(at, end)
                stop = at + size
                if stop > end:
                    raise self.fail(start, f"a field of {size} bytes runs past its end")
                if number in known:
                    self._bytes_field(fields, known[number], at, stop, depth)
                at = stop
            elif wire == 0:
                value, at = self.varint(at, end)
                if number in known:
                    self._store(fields, known[number], _signed(value), start)
            elif wire in (1, 5):
                stop = at + (8 if wire == 1 else 4)
                if stop > end:
                    raise self.fail(start, "a number runs past its end")
                if number in known:
                    self._store(fields, known[number], struct.unpack("<d" if wire == 1 else "<f", data[at:stop])[0], at)
                at = stop
            else:
                raise self.fail(start, f"wire type {wire}")
            if number == 0:
                raise self.fail(start, "field number 0")
        return result

    def _store(self, fields: dict[str, Any], field: tuple[str, FieldType], value: Any, at: int) -> None:
        name, kind = field
        if isinstance(kind, list):
            kind = kind[0]
            if kind not in ("int", "bool", "float", "double"):
                raise self.fail(at, f"field {name} is a number")
            fields.setdefault(name, []).append(value)
        elif kind in ("int", "bool", "float", "double"):
            fields[name] = bool(value) if kind == "bool" else value
        else:
            raise self.fail(at, f"field {name} is a number")

    def _bytes_field(self, fields: dict[str, Any], field: tuple[str, FieldType], at: int, end: int, depth: int) -> None:
        name, kind = field
        if isinstance(kind, list):
            inner = kind[0]
            target = fields.setdefault(name, [])
            if isinstance(inner, str) and inner in ("int", "bool"):
                while at < end:
                    value, at = self.varint(at, end)
                    target.append(_signed(value))
            elif isinstance(inner, str) and inner in ("float", "double"):
                width = 4 if inner == "float" else 8
                if (end - at) % width:
                    raise self.fail(at, f"packed field {name} of {end - at} bytes")
                target.extend(struct.unpack(f"<{(end - at) // width}{inner[0]}", self.data[at:end]))
            else:
                target.append(self._one(inner, name, at, end, depth))
        elif isinstance(kind, tuple):
            entry = self.message(at, end, _entry_schema(kind[1]), depth + 1)
            empty = entry.value is None  # a map holds an empty message where the entry has none
            fields.setdefault(name, {})[entry.key] = Message(_compiled(kind[1])) if empty else entry.value
        else:
            fields[name] = self._one(kind, name, at, end, depth)

    def _one(self, kind: FieldType, name: str, at: int, end: int, depth: int) -> Any:
        if kind == "bytes":
            return self.data[at:end]
        if kind == "str":
            try:
                return bytes(self.data[at:end]).decode()
            except UnicodeDecodeError:
                raise self.fail(at, f"field {name} is no text") from None
        if isinstance(kind, str):
            raise self.fail(at, f"field {name} is no number")
        return self.message(at, end, kind, depth + 1)


_entries: dict[int, tuple[FieldType, Schema]] = {}


def _entry_schema(value_type: FieldType) -> Schema:
    found = _entries.get(id(value_type))
    if found is None or found[0] is not value_type:
        found = (value_type, {1: ("key", "str"), 2: ("value", value_type)})
        _entries[id(value_type)] = found
    return found[1]


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value
