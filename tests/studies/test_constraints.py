"""Constraints: the answer is the best of those that obey (every nest of a small space asked), and contradictions are refused."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

from orchard.cost.mapped import check_capacity, estimate
from orchard.cost.nest import count
from orchard.hw.arch import Architecture, Compute, FanOut, Level, load_arch
from orchard.ir import parse_einsum
from orchard.mapping import ImpossibleSpace, MappingError, Nest
from orchard.mapping.constraints import constraints_from, parse_constraints, violation
from orchard.mapping.ops import parse_op
from orchard.mapping.problem import Problem
from orchard.studies.map import map_op, objective_value

sys.path.insert(0, str(Path(__file__).parent))
from exhaustive import case, nests


def random_rules(rng, problem, arch) -> dict[str, dict[str, object]]:
    """One or two rules of every kind, some of them contradictory."""
    data: dict[str, dict[str, object]] = {}
    for _ in range(rng.randint(1, 2)):
        level = rng.choice(arch.levels[1:] or arch.levels)
        kind = rng.choice(["tile", "order", "tensors", "stationary", "copies", "axis", "root order"])
        dims = rng.sample(problem.dims, rng.randint(1, len(problem.dims)))
        if kind == "tile":
            size = problem.sizes[dims[0]]
            data.setdefault(level.name, {})[dims[0]] = rng.choice([d for d in range(1, size + 1) if size % d == 0])
        elif kind == "order":
            data.setdefault(level.name, {})["order"] = dims
        elif kind == "root order":
            data.setdefault(arch.levels[0].name, {})["order"] = dims
        elif kind == "tensors":
            data.setdefault(level.name, {})["tensors"] = rng.sample(problem.tensors, 2)
        elif kind == "stationary":
            data.setdefault(level.name, {})["stationary"] = rng.choice(problem.tensors)
        elif arch.fan_outs and kind == "copies":
            data.setdefault("F", {})[dims[0]] = rng.choice([1, 2])
        elif arch.fan_outs:
            data.setdefault("F", {})["X"] = dims
    return data


def best_of_all(problem, arch, objective, rules, limit):
    """Best value over every nest that obeys; None where none does; raises OverflowError beyond `limit` nests."""
    best = None
    for tried, nodes in enumerate(nests(problem, arch)):
        if tried > limit:
            raise OverflowError
        nest = Nest(nodes)
        if violation(nest, rules, problem, arch) is not None:
            continue
        counts = count(nest, problem, arch)
        try:
            check_capacity(counts, problem, arch)
        except ImpossibleSpace:
            continue
        value = objective_value(objective, estimate(counts, problem, arch), counts, arch, problem)
        best = value if best is None else min(best, value)
    return best


def compare(seed: int, limit: int = 600) -> bool:
    """Whether the case could be enumerated; raises where the answers differ."""
    rng = random.Random(seed)
    problem, arch, objective = case(rng)
    try:
        rules = constraints_from(random_rules(rng, problem, arch), problem, arch)
    except MappingError:
        return False
    try:
        best = best_of_all(problem, arch, objective, rules, limit)
    except OverflowError:
        return False
    if best is None:
        with pytest.raises(ImpossibleSpace):
            map_op(problem, arch, objective, constraints=rules)
        return True
    mapped = map_op(problem, arch, objective, constraints=rules)
    assert mapped.optimal
    assert mapped.value == pytest.approx(best, rel=1e-9)
    assert violation(mapped.nest, rules, problem, arch) is None
    assert mapped.value >= map_op(problem, arch, objective).value * (1 - 1e-9)
    return True


@pytest.mark.parametrize("part", range(4))
def test_the_best_of_those_that_obey(part: int) -> None:
    """benchmarks/mapping/exhaustive.py runs more of them, and larger ones."""
    assert sum(compare(seed, 300) for seed in range(part * 10, part * 10 + 10)) >= 1


def test_a_fixed_order_of_tensors_may_need_two_that_wait() -> None:
    """The best free nest keeps B outside the window of A, as asked, and O stays across the rest of r."""
    problem = Problem("x", parse_einsum("(2*p+r), r -> p"), {"p": 3, "r": 6}, ("A", "B", "O"))
    rf = Level(name="R", capacity_words={"I": 3, "W": 1, "O": 3}, read_energy_pj=1.0, write_energy_pj=1.0)
    nodes = (Level(name="D", read_energy_pj=20.0, write_energy_pj=30.0), FanOut(name="F", axes={"X": 2}, multicast=False), rf)
    arch = Architecture(name="toy", nodes=nodes, compute=Compute(energy_pj=1.0))
    rules = constraints_from({"R": {"stationary": "B"}}, problem, arch)
    assert map_op(problem, arch, "energy", constraints=rules).value == pytest.approx(684.0)  # by enumeration


def test_a_fixed_order_of_tensors_may_need_one_that_waits_in_the_outermost_level() -> None:
    """A's tile of 4 fills G beside O, so O, placed further in as asked, has to stay put across the rest of k."""
    problem = Problem("x", parse_einsum("m k -> m"), {"m": 2, "k": 8}, ("A", "O"))
    dram = Level(name="D", read_energy_pj=20.0, write_energy_pj=30.0)
    buffer = Level(name="G", capacity_words=5, read_energy_pj=4.0, write_energy_pj=4.0)
    fan = FanOut(name="F", axes={"X": 4}, reduce=True)
    arch = Architecture(name="toy", nodes=(dram, buffer, fan), compute=Compute(energy_pj=1.0))
    rules = constraints_from({"G": {"tensors": ["A", "O"]}}, problem, arch)
    mapped = map_op(problem, arch, "energy", constraints=rules)
    # A: 16 x (20 + 4 + 4); O: 4 updates of G (2 x 2 steps of k) of which 2 read it, then 2 x (4 + 30); 16 MACs
    assert mapped.value == pytest.approx(16 * 28 + 4 * 4 + 2 * 4 + 2 * 34 + 16)


GEMM = parse_op("gemm:m=256,k=256,n=256")
CONV = parse_op("conv:c=8,k=8,p=8,q=8,r=3,s=3")


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        (["GLB: m=256; k=256; n=256"], "needs 196,608 words for A, B, C, GLB has 65,536; no m fits while the others stay"),
        (["RF: m=8; n=8"], "needs 64 words for C, RF has 16; m=2 would fit"),
        (["GLB: m=64", "RF: m=128"], r"RF: m=128 needs 128 words for A, RF has 16; m=16 would fit"),
        (["GLB: m=8", "RF: m=16"], "GLB: m=8 cannot hold the 16 that RF fixes further in; multiples of 16 would fit: 16"),
        (["GLB: m=8", "PE: m=16"], "GLB: m=8 cannot hold the 16 that PE fixes further in"),
        (["GLB: m=60"], "m=60 is no candidate for m=256 with perfect factors; 32 and 64 would do or --factors imperfect"),
        (["GLB: m=512"], "GLB: m=512, gemm has only 256"),
        (["GLB: keep=A; bypass=A"], "GLB: A is to be kept and to be bypassed"),
        (["GLB: bypass=A"], "A cannot bypass it, E16 says that GLB must hold it"),
        (["PE: n=512"], "512 copies along n, its axes have 256; n=256 would fit"),
        (["PE: n=32; m=32"], "1024 copies in all, PE has 256"),
        (["PE: X=k; Y=k; n=4"], "4 copies along n, its axes have 1"),
        (["RF: stationary=B; tensors=A,B,C"], "stationary=B needs it first in tensors=, which starts with A"),
        (["DRAM: m=4"], "DRAM: it holds every tensor whole"),
        (["GLB: m=4", "GLB: m=8"], "GLB: m is given twice, as 4 and 8"),
        (["L9: m=4"], "no level or fan-out of E16, known: DRAM, GLB, PE, RF"),
        (["GLB: z=4"], r"expected keep, bypass, tensors, order, stationary or a dim \(m, n, k\)"),
        (["GLB: order=m,z"], "no dim 'z', known: m, n, k"),
        (["GLB: keep=Q"], "no tensor 'Q', known: A, B, C"),
        (["GLB: m=-4"], "expected a whole number >= 1"),
        (["GLB"], "expected e.g. 'GLB: m=64; keep=A'"),
        (["dataflow=fast"], "expected one of input-stationary, weight-stationary, output-stationary"),
        (["none.yaml"], "no such file"),
    ],
)  # fmt: skip
def test_contradictions_are_refused_with_what_would_fit(texts: list[str], says: str) -> None:
    arch = load_arch("E16")
    with pytest.raises(MappingError, match=says) as refused:
        map_op(GEMM, arch, constraints=constraints_from(parse_constraints(texts), GEMM, arch))
    assert "\n" not in str(refused.value)


def test_axes_of_the_machine_stay_as_they_are() -> None:
    with pytest.raises(ImpossibleSpace, match="axis X does not take k, it takes columns"):
        constraints_from(parse_constraints(["PE: X=k"]), GEMM, load_arch("T128"))


def test_yaml_says_the_same_as_text(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text("GLB: {m: 64, order: [m, k]}\nPE: {X: n, n: 4}\ndataflow: weight-stationary\n")
    arch = load_arch("E16")
    texts = ["GLB: m=64; order=m,k", "PE: X=n; n=4", "dataflow=weight-stationary"]
    read = [constraints_from(parse_constraints(source), GEMM, arch) for source in (texts, [str(path)])]
    assert read[0] == read[1]
    assert read[0].levels["RF"].stationary == "B"
    mapped = map_op(GEMM, arch, constraints=read[0])
    assert mapped.optimal
    assert mapped.value >= map_op(GEMM, arch).value


# -- dataflows as answers: no constraint, the machine and the op decide ------------------------------------------------
def marks_of(mapped, level: str) -> list[str]:
    return [n.tensor for n in mapped.nest.nodes if getattr(n, "level", None) == level]


def test_weight_stationary_comes_out_where_weights_are_reused_most() -> None:
    """Few weights, many rows: B enters each register once and stays while A and C move."""
    mapped = map_op(parse_op("gemm:m=4096,k=64,n=64"), load_arch("E16"), "energy")
    assert marks_of(mapped, "RF")[0] == "B"
    written = mapped.counts.traffic["RF", "B"].writes
    assert written == 64 * 64  # every weight reaches one register file once


def test_output_stationary_comes_out_where_the_reduction_is_long() -> None:
    """Long sums, few outputs: every output is finished on chip, written to DRAM once and never read back."""
    mapped = map_op(parse_op("gemm:m=16,k=4096,n=16"), load_arch("E16"), "energy")
    assert marks_of(mapped, "GLB")[0] == "C"
    assert (mapped.counts.traffic["DRAM", "C"].reads, mapped.counts.traffic["DRAM", "C"].writes) == (0, 16 * 16)


def test_row_stationary_comes_out_for_convolutions() -> None:
    """A line of outputs along one window dim over one axis, a line of the filter over another, and the other window dim as a
    1-D convolution inside each PE (rows and columns may be swapped: the op is symmetric)."""
    mapped = map_op(parse_op("conv:c=2,k=2,p=8,q=8,r=3,s=3"), load_arch("E16"), "energy")
    fans = [i for i, n in enumerate(mapped.nest.nodes) if getattr(n, "axis", None) is not None]
    spread = {mapped.nest.nodes[i].dim for i in fans}
    inside = {n.dim for n in mapped.nest.nodes[fans[-1] + 1 :] if getattr(n, "dim", None)}
    assert ({"p", "r"} <= spread and {"q", "s"} <= inside) or ({"q", "s"} <= spread and {"p", "r"} <= inside)
