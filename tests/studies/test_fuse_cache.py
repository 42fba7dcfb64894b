"""Stored chains: the same answer back, and nothing believed that is broken."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from orchard.hw.arch import load_arch
from orchard.mapping.chain_text import parse_chain
from orchard.studies import fuse_cache
from orchard.studies.fuse_cache import ChainQuestion, solve_chain
from orchard.studies.map_cache import MappingCache


@pytest.mark.parametrize(
    ("text", "arch"), [("attention:h=2,m=16,p=16,e=8", "A64"), ("convs:c=2,k=2x2,r=3x3,p=4,q=4", "E16")]
)
def test_a_chain_comes_back_and_a_broken_entry_does_not(
    text: str, arch: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, cache = ChainQuestion(parse_chain(text), load_arch(arch), "energy"), MappingCache(tmp_path)
    mapped, stored = solve_chain(asked, cache)
    again, from_cache = solve_chain(asked, cache)
    assert (stored, from_cache) == (False, True)
    assert again == mapped
    monkeypatch.setattr(fuse_cache, "map_chain", lambda *_, **__: mapped)  # what it finds is tested elsewhere, and takes seconds
    path = cache.path(asked.key)
    whole = json.loads(path.read_text())
    first = whole["groups"][0]
    for changed in (
        {"value": whole["value"] * 0.5},
        {"bound": whole["value"] * 2},
        {"groups": whole["groups"][1:]},
        {"groups": [first | {"nests": []}, *whole["groups"][1:]]},
        {"groups": [first | {"loops": [["nothing", 1]]}, *whole["groups"][1:]]},
        {"whole": ["nothing"]},
        {"level": "nothing"},
    ):
        path.write_text(json.dumps(whole | changed))
        assert solve_chain(asked, MappingCache(tmp_path))[1] is False, changed
        path.write_text(json.dumps(whole))


def test_what_an_answer_depends_on_is_in_the_name() -> None:
    asked = ChainQuestion(parse_chain("attention:h=2,m=16,p=16,e=8"), load_arch("A64"), "energy")
    assert asked.arch.vector is not None
    turns = replace(asked.arch, vector=replace(asked.arch.vector, overlap=not asked.arch.vector.overlap))
    others = [
        replace(asked, objective="edp"),
        replace(asked, time_limit_s=1.0),
        replace(asked, arch=turns),
        replace(asked, chain=parse_chain("attention:h=2,m=16,p=16,e=8,softmax=0")),
    ]
    assert len({asked.key, *(q.key for q in others)}) == 5
    assert replace(asked, chain=replace(asked.chain, name="other")).key == asked.key
