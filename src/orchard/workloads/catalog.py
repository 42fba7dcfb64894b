"""Built-in models: names, short names, and one entry of models.yaml as a configuration.

Only the block of the model that is asked for is parsed; the file has a hundred of them. Short names are the repository
name in lower case without maker prefixes (`Meta-`, `NVIDIA-`) and without endings such as -Instruct, -it, -hf, -Chat,
version and date. Where several models share one, a repository that is called exactly so wins, else the one with the
newest ending.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any

from orchard.workloads.config import (
    LARGEST,
    AltUp,
    DecoderConfig,
    Experts,
    GatedDelta,
    LatentAttention,
    Mamba1,
    Mamba2,
    PerLayerEmbedding,
    SparseAttention,
    expand_blocks,
    expand_pattern,
)
from orchard.workloads.errors import ModelError
from orchard.workloads.families import FAMILIES

FILE = "models.yaml"
_KEY = re.compile(r"^(\S[^:\n]*):[ ]*$", re.M)
_ENDING = re.compile(r"-(instruct|it|hf|chat|base|v\d+(\.\d+)*|2\d{3})\Z")
_MIDDLE = re.compile(r"-(instruct|it|hf|chat)(?=-|\Z)")
_MAKER = re.compile(r"\A(meta|nvidia)-(?=[a-z])")

_PARTS: Mapping[str, type] = {
    "moe": Experts,
    "mla": LatentAttention,
    "delta": GatedDelta,
    "mamba": Mamba2,
    "selective": Mamba1,
    "sparse": SparseAttention,
    "per_layer_embedding": PerLayerEmbedding,
    "altup": AltUp,
}
_NOTES = ("params_b", "computed", "verification", "source")


@dataclass(frozen=True, slots=True)
class Entry:
    """One block of models.yaml, parsed. `fields` are those of the configuration, `notes` where they come from.

    An encoder has the one field `config`, a config.json in Hugging Face's own names.
    """

    name: str
    architecture: str
    fields: Mapping[str, Any]
    notes: Mapping[str, Any]


@lru_cache(maxsize=1)
def _blocks() -> dict[str, str]:
    """Text of every block by full name, in file order."""
    text = resources.files("orchard.workloads").joinpath(FILE).read_text(encoding="utf-8")
    heads = list(_KEY.finditer(text))
    ends = [h.start() for h in heads[1:]] + [len(text)]
    return {head.group(1): text[head.end() : end] for head, end in zip(heads, ends)}


@lru_cache(maxsize=1)
def _aliases() -> dict[str, tuple[str, ...]]:
    """Full names by every lower-case name they answer to, best first."""
    found: dict[str, list[str]] = {}
    for name in _blocks():
        for alias in _names_of(name):
            found.setdefault(alias, []).append(name)
    return {alias: tuple(sorted(names, key=lambda n: _preference(alias, n))) for alias, names in found.items()}


def _names_of(name: str) -> set[str]:
    repository = name.lower().rpartition("/")[2]
    names = {name.lower(), repository, _MIDDLE.sub("", repository)}
    short = repository
    while (cut := _ENDING.sub("", short)) != short:
        short = cut
        names.add(short)
    return names | {_MAKER.sub("", n) for n in names}


def _preference(alias: str, name: str) -> tuple[bool, list[int]]:
    """Sort key: an exact repository name first, then the highest ending (version or date)."""
    repository = name.lower().rpartition("/")[2]
    ending = repository.removeprefix(alias)
    return (repository != alias, [-int(n) for n in re.findall(r"\d+", ending)])


def builtin_names() -> tuple[str, ...]:
    """Full names (Hugging Face ids) of all built-in models, in file order; unpublished ones included."""
    return tuple(_blocks())


def short_name(name: str) -> str:
    """The shortest name that leads to `name`, for lists and suggestions."""
    own = [alias for alias in _names_of(name) if _aliases()[alias][0] == name]
    return min(own, key=lambda a: (len(a), a))


def find(name: str, also: Iterable[str] = ()) -> tuple[str, tuple[str, ...]]:
    """(full name, other models that share the name). Raises ModelError with the nearest names for an unknown one.

    `also`: names of other kinds of models that it may have meant.
    """
    found = _aliases().get(name.strip().lower())
    if found is None:
        near = difflib.get_close_matches(name.strip().lower()[:100], [*_aliases(), *also], n=3, cutoff=0.5)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise ModelError(f"model {name[:80]!r} is not known{hint} (`orchard models` lists what is built in)")
    return found[0], found[1:]


def entry(name: str) -> Entry:
    """The parsed block of a model by full name. Raises ModelError where its dimensions are not published."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    values: dict[str, Any] = yaml.load(_blocks()[name], Loader=loader)
    if "unpublished" in values:
        raise ModelError(
            f"model {name}: its dimensions are not published ({values['unpublished']}); give a config.json"
        )
    architecture = values.pop("architecture")
    notes = {key: values.pop(key) for key in _NOTES if key in values}
    return Entry(name, architecture, values, notes)


def decoder_config(name: str, architecture: str, fields: Mapping[str, Any]) -> DecoderConfig:
    """A configuration from fields named as in models.yaml, on top of the defaults of the architecture."""
    family = FAMILIES.get(architecture)
    if family is None:
        raise ModelError(f"model {name}: architecture {architecture!r} is not known; known: {', '.join(FAMILIES)}")
    values: dict[str, Any] = {**family, **fields}
    for key, part in _PARTS.items():
        if fields.get(key) is not None:
            values[key] = part(**{**family.get(key, {}), **fields[key]})
        else:
            values.pop(key, None)
    layers = values["layers"]
    pattern = values.pop("pattern", None)
    if pattern is not None and not values.get("mixers") and ("sliding" not in pattern or values.get("window")):
        values["mixers"] = expand_pattern(pattern, min(layers, LARGEST["layers"]))
    if "blocks" in values:
        values["mixers"], values["feed_forwards"] = expand_blocks(values.pop("blocks"))
    if (interval := values.pop("no_rope_interval", None)) is not None:
        values["no_rope_layers"] = tuple(range(interval - 1, min(layers, LARGEST["layers"]), interval))
    return DecoderConfig(name=name, architecture=architecture, **values)
