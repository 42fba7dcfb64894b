"""The staircase of least traffic: equal, at every capacity, to a search with that capacity, and to enumeration."""

from __future__ import annotations

import random
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest

from orchard.cost.nest import count
from orchard.hw.arch import Architecture, Compute, Level, load_arch
from orchard.ir import parse_einsum
from orchard.mapping import ImpossibleSpace, MappingError, Problem
from orchard.mapping.ops import parse_op
from orchard.report.capacity import capacity_svg
from orchard.studies.capacity import capacity_curve
from orchard.studies.map import map_op

sys.path.insert(0, str(Path(__file__).parent))
from exhaustive import CASES, brute


def machine(capacity: int) -> Architecture:
    nodes = (
        Level(name="D", read_energy_pj=9.0, bandwidth=3),
        Level(name="G", capacity_words=capacity, read_energy_pj=1.0),
    )
    return Architecture(name="two", nodes=nodes, compute=Compute(energy_pj=1.0), word_bits=8)


def problem_of(seed: int) -> Problem:
    rng = random.Random(seed)
    text, sizes = CASES[seed % len(CASES)]
    einsum = parse_einsum(text)
    tensors = (*("A", "B")[: len(einsum.inputs)], "O")
    return Problem("x", einsum, {d: rng.choice(sizes) for d in einsum.dims}, tensors)


@pytest.mark.parametrize("seed", range(18))
def test_every_capacity_equals_a_search_with_that_capacity(seed: int) -> None:
    problem = problem_of(seed)
    curve = capacity_curve(problem, machine(1))
    for capacity in range(1, int(curve.enough_bytes) + 3):
        try:
            least = map_op(problem, machine(capacity), "traffic").value
        except ImpossibleSpace:
            assert curve.traffic_at(capacity) is None
        else:
            assert curve.traffic_at(capacity) == pytest.approx(least, rel=1e-6), capacity


@pytest.mark.parametrize("seed", range(6))
def test_corners_equal_exhaustive_enumeration(seed: int) -> None:
    problem = problem_of(seed)
    curve = capacity_curve(problem, machine(1))
    for capacity in (3, 5, 8):
        best, tried = brute(problem, machine(capacity), "traffic", 250)
        if tried > 250:
            continue  # too many nests to enumerate
        assert curve.traffic_at(capacity) == (None if best is None else pytest.approx(best[0]))


def test_nests_of_the_corners_do_what_they_say() -> None:
    problem = parse_op("conv:c=4,k=6,p=6,q=4,r=3,s=3")
    curve = capacity_curve(problem, load_arch("E16"))
    sizes = [c.capacity_bytes for c in curve.corners]
    moved = [c.traffic_bytes for c in curve.corners]
    assert sizes == sorted(set(sizes))
    assert moved == sorted(set(moved), reverse=True)
    for corner in curve.corners:
        counts = count(corner.nest, problem, curve.reduced)
        assert 2 * sum(counts.footprint["GLB", t] for t in problem.tensors) == corner.capacity_bytes
        words = [counts.traffic["DRAM", t] for t in problem.tensors]
        assert 2 * sum(t.reads + t.writes for t in words) == corner.traffic_bytes


def test_a_matrix_product_in_closed_form() -> None:
    """With everything once: one operand whole, a row of another, an element of the third. Below, traffic falls with sqrt(C)."""
    n = 64
    curve = capacity_curve(parse_op(f"gemm:m={n},k={n},n={n}"), machine(1))
    assert curve.compulsory_bytes == 3 * n * n
    assert curve.corners[-1].traffic_bytes == 3 * n * n
    assert curve.enough_bytes == n * n + n + 1
    assert curve.knee == curve.corners[-1]
    quarter, whole = curve.traffic_at(n), curve.traffic_at(4 * n)
    assert quarter is not None
    assert whole is not None
    assert quarter / whole == pytest.approx(2.0, rel=0.2)


def test_level_capacity_widths_and_buffering() -> None:
    problem = parse_op("gemm:m=8,k=8,n=8")
    e16 = load_arch("E16")
    assert capacity_curve(problem, e16).has_bytes == 65536 * 2
    assert capacity_curve(problem, e16, "rf").has_bytes == (16 + 192 + 16) * 2 * 256
    single = capacity_curve(problem, machine(64))
    glb = replace(machine(64).levels[1], buffering="double")
    double = capacity_curve(problem, replace(machine(64), nodes=(machine(64).nodes[0], glb)))
    assert double.enough_bytes == 2 * single.enough_bytes
    narrow = capacity_curve(replace(problem, bits={"B": 4.0}), machine(64))
    assert narrow.compulsory_bytes == 64 + 32 + 64


def test_an_operand_that_passes_by_is_read_again() -> None:
    weights_only = replace(machine(64).levels[1], capacity_words={"W": 64})
    curve = capacity_curve(
        parse_op("gemm:m=4,k=4,n=4"), replace(machine(64), nodes=(machine(64).nodes[0], weights_only))
    )
    assert not curve.reaches_compulsory
    assert curve.corners[-1].traffic_bytes > curve.compulsory_bytes


def test_refusals() -> None:
    problem = parse_op("gemm:m=8,k=8,n=8")
    with pytest.raises(MappingError, match="level 'L9' is not in E16; it has GLB, RF"):
        capacity_curve(problem, load_arch("E16"), "L9")
    bare = replace(machine(4), nodes=machine(4).nodes[:1])
    with pytest.raises(MappingError, match="no memory below D"):
        capacity_curve(problem, bare)


def test_the_drawing_shows_the_curve_and_what_the_machine_has() -> None:
    curve = capacity_curve(parse_op("gemm:m=64,k=64,n=64"), load_arch("E16"))
    root = ET.fromstring(capacity_svg(curve))
    text = " ".join(t.text or "" for t in root.iter("{http://www.w3.org/2000/svg}text"))
    assert "E16 has 128 KiB" in text
    assert "compulsory" in text
    stairs = max((p.get("d", "") for p in root.iter("{http://www.w3.org/2000/svg}path")), key=len)
    assert stairs.count("V") == len(curve.corners) - 1
