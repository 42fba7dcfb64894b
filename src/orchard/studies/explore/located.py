"""YAML whose every value knows its line, so that a refusal can point at it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from orchard.studies.errors import StudyError
from orchard.units import did_you_mean

_MAX_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Located:
    """A value of a YAML file: text, number, truth value, list or mapping of the same, or None; and where it stands."""

    value: Any
    file: str
    line: int

    def fail(self, sentence: str) -> NoReturn:
        raise StudyError(f"{self.file}:{self.line}: {sentence}")

    def mapping(self, what: str) -> Mapping[str, Located]:
        if not isinstance(self.value, dict):
            self.fail(f"{what}: got {_kind(self.value)}, expected a mapping")
        return self.value

    def items(self, what: str) -> list[Located]:
        if not isinstance(self.value, list):
            self.fail(f"{what}: got {_kind(self.value)}, expected a list")
        return self.value

    def text(self, what: str) -> str:
        if isinstance(self.value, list | dict) or self.value is None:
            self.fail(f"{what}: got {_kind(self.value)}, expected text")
        return str(self.value)

    def number(self, what: str, least: float, most: float) -> float:
        if isinstance(self.value, bool) or not isinstance(self.value, int | float) or not least <= self.value <= most:
            self.fail(f"{what}: got {str(self.plain())[:40]!r}, expected a number from {least:g} to {most:g}")
        return float(self.value)

    def whole(self, what: str, least: int, most: int) -> int:
        if isinstance(self.value, bool) or not isinstance(self.value, int) or not least <= self.value <= most:
            self.fail(f"{what}: got {str(self.plain())[:40]!r}, expected a whole number from {least:,} to {most:,}")
        return self.value

    def choice(self, what: str, among: tuple[str, ...]) -> str:
        text = self.text(what)
        if text not in among:
            self.fail(f"{what} {text[:40]!r} is not known{did_you_mean(text, among)}; expected {', '.join(among)}")
        return text

    def only(self, what: str, known: tuple[str, ...]) -> Mapping[str, Located]:
        """The mapping, with no key outside `known`."""
        found = self.mapping(what)
        for key, child in found.items():
            if key not in known:
                child.fail(f"{what} has no key {key[:40]!r}{did_you_mean(key, known)}; expected {', '.join(known)}")
        return found

    def plain(self) -> Any:
        """The value without lines, as YAML would load it."""
        if isinstance(self.value, dict):
            return {key: child.plain() for key, child in self.value.items()}
        if isinstance(self.value, list):
            return [child.plain() for child in self.value]
        return self.value


def read_located(path: Path) -> Located:
    """A YAML file. Raises StudyError with file and line for what is not plain YAML: no anchors, no duplicate keys."""
    import yaml

    text = _text(path)
    try:
        node = yaml.compose(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = mark.line + 1 if mark is not None else 1
        raise StudyError(f"{path}:{line}: not valid YAML ({str(error.problem)[:80]})") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise StudyError(f"{path}: not valid YAML ({type(error).__name__})") from None
    if node is None:
        raise StudyError(f"{path}: the file is empty, expected a study")
    return _convert(node, str(path), set(), 0)


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise StudyError(f"{path}: {path.stat().st_size:,} bytes, expected a study of at most {_MAX_BYTES:,}")
        return path.read_text("utf-8")
    except UnicodeDecodeError:
        raise StudyError(f"{path}: not UTF-8 text, expected a YAML study") from None
    except OSError as error:
        raise StudyError(f"{str(path)[:120]}: cannot be read ({error.strerror})") from None


def _convert(node: Any, file: str, above: set[int], depth: int) -> Located:
    import yaml

    line = node.start_mark.line + 1
    if id(node) in above or depth > 16:
        raise StudyError(f"{file}:{line}: nested too deep, or an anchor refers to itself")
    if isinstance(node, yaml.MappingNode):
        return Located(dict(_pairs(node, file, above | {id(node)}, depth)), file, line)
    if isinstance(node, yaml.SequenceNode):
        return Located([_convert(child, file, above | {id(node)}, depth + 1) for child in node.value], file, line)
    return Located(_scalar(node, file, line), file, line)


def _scalar(node: Any, file: str, line: int) -> Any:
    import yaml

    loader = yaml.SafeLoader("")
    try:
        value = loader.construct_object(node)
    except (yaml.YAMLError, ValueError) as error:
        raise StudyError(f"{file}:{line}: not readable ({str(error)[:60]})") from None
    finally:
        loader.dispose()
    return value if isinstance(value, str | int | float | bool) or value is None else str(node.value)


def _pairs(node: Any, file: str, above: set[int], depth: int) -> Iterator[tuple[str, Located]]:
    seen: set[str] = set()
    for key_node, value_node in node.value:
        key = str(key_node.value)
        line = key_node.start_mark.line + 1
        if key in seen:
            raise StudyError(f"{file}:{line}: the key {key[:40]!r} is there twice")
        seen.add(key)
        child = _convert(value_node, file, above, depth + 1)
        # A block that starts on the next line belongs to the line of its key.
        yield key, Located(child.value, file, line if isinstance(child.value, dict | list) else child.line)


def _kind(value: object) -> str:
    if value is None:
        return "nothing"
    names = {dict: "a mapping", list: "a list", str: "text", bool: "a truth value"}
    return names.get(type(value), "a number")
