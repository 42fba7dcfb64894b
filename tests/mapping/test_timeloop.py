"""`--format timeloop`: an own reader of the format finds the same tiles, copies and loops. Timeloop itself is not on PyPI."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest
import yaml

from orchard.app.cli import main
from orchard.hw.arch import load_arch
from orchard.mapping import Keep, Loop, MappingError, Nest
from orchard.mapping.emit import emit_timeloop
from orchard.mapping.ops import parse_op
from orchard.studies.map import map_op

sys.path.insert(0, str(Path(__file__).parents[1] / "cost"))
from test_nest import random_case


class Reader(yaml.SafeLoader):
    """Knows the tags of architecture nodes."""


for tag in ("!Component", "!Container"):
    Reader.add_constructor(tag, lambda loader, node: {"tag": node.tag, **loader.construct_mapping(node, deep=True)})


def read(text: str):
    """(document, storages as (name, kept tensors, tile per dim)). A storage's tile is what its own and all inner loops walk."""
    data = yaml.load(text, Reader)
    loops = [e for e in data["mapping"] if e["type"] != "bypass"]
    keeps = {e["target"]: e["keep"] for e in data["mapping"] if e["type"] == "bypass"}
    tile = dict.fromkeys(data["problem"]["shape"]["dimensions"], 1)
    found = []
    for entry in reversed(loops):
        for factor in entry["factors"]:
            dim, _, steps = factor.partition("=")
            tile[dim] *= int(steps.partition(",")[0])
        if entry["type"] == "temporal":
            found.append((entry["target"], keeps[entry["target"]], dict(tile)))
    return data, list(reversed(found))


def marks(nest: Nest, problem, arch):
    size = dict(problem.sizes)
    yield from ((arch.levels[0].name, t, dict(size)) for t in problem.tensors)
    for node in nest.nodes:
        if isinstance(node, Keep):
            yield node.level, node.tensor, dict(size)
        else:
            size[node.dim] = node.tile


def check(nest: Nest, problem, arch) -> None:
    data, storages = read(emit_timeloop(nest, problem, arch))
    ours = list(marks(nest, problem, arch))
    theirs = [(name, t, tile) for name, kept, tile in storages for t in kept]
    assert len(ours) == len(theirs)
    for (level, tensor, size), (name, kept, tile) in zip(ours, theirs):
        assert tensor == kept
        assert name == level or name.startswith(f"{level}_")
        for dim in problem.dims_of(tensor):  # a ragged tile is at least the part of it that exists
            assert min(tile[dim], problem.sizes[dim]) >= size[dim]
            assert tile[dim] == size[dim] or size[dim] == problem.sizes[dim]
    names = [node["name"] for node in data["architecture"]["nodes"]]
    targets = list(dict.fromkeys(e["target"] for e in data["mapping"]))
    assert targets == names[:-1]  # every node but the MACs has its directives, in the order of the machine
    for entry in data["mapping"]:
        if entry["type"] == "bypass":
            assert sorted([*entry["keep"], *entry["bypass"]]) == sorted(problem.tensors)
            continue
        assert sorted(entry["permutation"]) == sorted(problem.dims)
        if entry["type"] == "spatial":
            node = next(n for n in data["architecture"]["nodes"] if n["name"] == entry["target"])
            used = 1
            for factor in entry["factors"]:
                used *= int(factor.partition("=")[2].partition(",")[0])
            assert used <= node["spatial"]["meshX"]


@pytest.mark.parametrize("op", ["gemm:m=64,k=48,n=80", "conv:c=8,k=6,p=7,q=5,r=3,s=3,stride=2,groups=2"])
@pytest.mark.parametrize("machine", ["E16", "T128", "A64"])
def test_found_mappings(op: str, machine: str) -> None:
    mapped = map_op(parse_op(op), load_arch(machine), "energy", time_limit_s=0.5)
    check(mapped.nest, mapped.problem, mapped.arch)


def test_random_nests() -> None:
    written = refused = 0
    for seed in range(150):
        problem, arch, nest = random_case(random.Random(seed))
        try:
            check(nest, problem, arch)
            written += 1
        except MappingError:  # ragged inside blocks that are not the last
            refused += 1
    assert written > 60
    assert written + refused == 150


def test_windows_and_residuals_are_written_as_timeloop_reads_them() -> None:
    problem, arch = parse_op("conv:c=2,k=2,p=10,q=1,r=3,s=1,stride=2,dilation=3"), load_arch("E16")
    nodes = (Loop("p", 4), Keep("GLB", "I"), Keep("GLB", "W"), Keep("GLB", "O"), Loop("p", 1), Loop("c", 1), Loop("r", 1))
    rf = tuple(Keep("RF", t) for t in ("I", "W", "O"))
    text = emit_timeloop(Nest((*nodes, Loop("k", 1), *rf)), problem, arch)
    data, _ = read(text)
    shape = data["problem"]["shape"]
    assert shape["data_spaces"][0]["projection"][1] == [["p", "c2"], ["r", "c3"]]
    assert {"name": "c3", "default": 3} in shape["coefficients"]
    outer = next(e for e in data["mapping"] if e["target"] == "DRAM" and e["type"] == "temporal")
    assert "p=3" in outer["factors"]
    inner = next(e for e in data["mapping"] if e["target"] == "GLB" and e["type"] == "temporal")
    assert "p=4,2" in inner["factors"]  # four steps, two in the last block of 10 = 4 + 4 + 2
    assert inner["permutation"][:4] == ["k", "r", "c", "p"]  # inner to outer


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["map", "gemm:m=8,k=8,n=8", "--arch", "E16", "--format", "timeloop"]) == 0
    data, _ = read(capsys.readouterr().out)
    assert {"architecture", "problem", "mapping"} == data.keys()
    assert main(["map", "gemm:m=8,k=8,n=8", "--arch", "E16", "--format", "maestro"]) == 2
    assert "expected timeloop" in capsys.readouterr().err
