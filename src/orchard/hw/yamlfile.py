"""Reading YAML that somebody else wrote: size, nesting, aliases, duplicate keys and syntax are checked before use."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from orchard.hw.errors import HardwareError

_MAX_BYTES = 1 << 20
_MAX_DEPTH = 16
_MAX_EVENTS = 100_000


def read_trusted(path: Path) -> dict[str, Any]:
    """A file of this package: fast path, no checks."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    data = yaml.load(path.read_bytes(), Loader=loader)
    assert isinstance(data, dict), path
    return data


def read_untrusted(path: Path) -> dict[str, Any]:
    """A user's file as a dict. Raises HardwareError with one sentence that starts with the path as given."""
    text = _read_text(path)
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        _check_events(path, yaml, text, loader)
        data = yaml.load(text, Loader=_strict_loader())
    except yaml.YAMLError as error:
        raise HardwareError(f"{path}: not valid YAML{_at(error)}") from None
    except (ValueError, OverflowError, RecursionError) as error:
        raise HardwareError(f"{path}: not readable as YAML ({type(error).__name__})") from None
    if not isinstance(data, dict):
        raise HardwareError(f"{path}: got {_kind(data)} at the top, expected keys such as base, name, gpu, dram")
    return data


def _read_text(path: Path) -> str:
    try:
        if not path.is_file():
            reason = "is no regular file" if path.exists() else "does not exist"
            raise HardwareError(f"{str(path)[:200]}: the chip file {reason}")
        size = path.stat().st_size
        if size > _MAX_BYTES:
            raise HardwareError(f"{path}: {size:,} bytes, expected a chip file of at most {_MAX_BYTES:,}")
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        raise HardwareError(f"{path}: not UTF-8 text, expected a YAML file") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise HardwareError(f"{str(path)[:80]}: cannot be read ({reason})") from None


def _check_events(path: Path, yaml: Any, text: str, loader: Any) -> None:
    """Walk the event stream, which needs no recursion and expands nothing."""
    depth = 0
    for count, event in enumerate(yaml.parse(text, Loader=loader)):
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            line = event.start_mark.line + 1
            raise HardwareError(f"{path}: line {line} uses a YAML anchor or alias, which chip files may not")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > _MAX_DEPTH:
            raise HardwareError(f"{path}: line {event.start_mark.line + 1} is nested more than {_MAX_DEPTH} deep")
        if count > _MAX_EVENTS:
            raise HardwareError(f"{path}: more than {_MAX_EVENTS:,} entries, expected one chip")


@lru_cache(maxsize=1)
def _strict_loader() -> Any:
    import yaml

    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    def construct(loader: Any, node: Any) -> dict[Any, Any]:
        loader.flatten_mapping(node)
        keys: set[str] = set()
        for key_node, _ in node.value:
            key = str(key_node.value)
            if key in keys:
                problem = f"the key {key[:40]!r} is there twice"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key_node.start_mark)
            keys.add(key)
        result: dict[Any, Any] = loader.construct_mapping(node, deep=True)
        return result

    strict: Any = type("StrictLoader", (base,), {})
    strict.add_constructor("tag:yaml.org,2002:map", construct)
    return strict


def _at(error: Any) -> str:
    mark = getattr(error, "problem_mark", None)
    line = f" at line {mark.line + 1}" if mark is not None else ""
    problem = getattr(error, "problem", None)
    return f"{line} ({str(problem)[:80]})" if problem else line


def _kind(data: object) -> str:
    return "nothing" if data is None else "a list" if isinstance(data, list) else f"a {type(data).__name__}"
