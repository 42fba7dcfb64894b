"""Fused chains: against exhaustive enumeration, and what must come out by itself."""

from __future__ import annotations

import random
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from orchard.cost.chain import estimate_chain
from orchard.hw.arch import Architecture, Compute, Level, load_arch
from orchard.mapping import ImpossibleSpace, MappingError
from orchard.mapping.chain_text import parse_chain
from orchard.mapping.fused import Shape, print_fused
from orchard.studies.fuse import map_chain

sys.path.insert(0, str(Path(__file__).parent))
from chain_exhaustive import TooMany, brute_chain, chain_case, sliding_case


def small_buffer(words: int) -> Architecture:
    """A64 with another capacity of its buffer."""
    arch = load_arch("A64")
    nodes = tuple(replace(n, capacity_words=words) if isinstance(n, Level) and n.name == "GLB" else n for n in arch.nodes)
    return replace(arch, nodes=nodes)


@pytest.mark.parametrize("seed", [1, 2, 4, 10, 15, 25, 29, 36, 47, 56, 59])
def test_equal_to_exhaustive_enumeration(seed: int) -> None:
    chain, arch, objective = chain_case(random.Random(seed))
    try:
        best, _ = brute_chain(chain, arch, objective, 900)
    except TooMany:
        return
    if best is None:
        with pytest.raises(ImpossibleSpace):
            map_chain(chain, arch, objective)
        return
    mapped = map_chain(chain, arch, objective)
    assert mapped.optimal
    assert mapped.value == pytest.approx(best[0], rel=1e-9)
    assert mapped.bound == pytest.approx(best[0], rel=1e-6)


@pytest.mark.parametrize("seed", [2, 3])
def test_fused_windows_keep_rows_where_enumeration_says_so(seed: int) -> None:
    chain, arch, objective = sliding_case(random.Random(seed))
    best, _ = brute_chain(chain, arch, objective, 30_000)
    assert best is not None
    mapped = map_chain(chain, arch, objective)
    assert mapped.optimal
    assert mapped.value == pytest.approx(best[0], rel=1e-9)
    kept = [(t, d) for group in mapped.mapping.groups for t, d in group.kept]
    assert kept
    assert " kept)" in print_fused(mapped.mapping, chain, arch)


def test_convolutions_slide_row_by_row_through_a_small_buffer() -> None:
    """Two 3x3 convolutions: the rows between them never leave the chip, each is made once, and 3 of them at most are there."""
    chain = parse_chain("B[p] = A[p+r] * U[r]; C[q] = B[q+s] * W[s]; q=16,r=3,s=3")
    arch = Architecture(
        name="rows",
        nodes=(Level(name="D", read_energy_pj=50.0, write_energy_pj=50.0), Level(name="G", capacity_words=12)),
        compute=Compute(energy_pj=5.0),
    )
    mapped = map_chain(chain, arch, "energy")
    assert mapped.optimal
    (group,) = mapped.mapping.groups
    assert group.kept == {("B", "q")}
    shape = Shape.of(chain, group)
    assert shape.computed(0) == chain.sizes["p"] == 18
    assert max(mapped.estimate.counts[0].held_words.values()) <= 12


def test_attention_is_fused_and_no_worse_than_any_peer() -> None:
    chain = parse_chain("attention:h=12,m=2048,p=2048,e=64")
    mapped = map_chain(chain, load_arch("A64"))
    assert mapped.optimal
    assert mapped.fused == ("S", "P")
    assert mapped.value <= 2.693e16  # Stream, vector unit beside the MACs
    assert mapped.unfused is not None
    assert mapped.unfused / mapped.value > 5
    arch = load_arch("A64")
    assert arch.vector is not None
    turns = replace(arch, vector=replace(arch.vector, overlap=False))
    assert estimate_chain(mapped.mapping, chain, turns).edp <= 2.979e16  # AccelForge, one after the other


def test_where_rows_do_not_fit_the_softmax_runs_along_the_keys() -> None:
    """Nothing in the search knows attention: tiles of keys with running statistics come out of the capacity alone."""
    chain = parse_chain("attention:h=2,m=256,p=4096,e=64")
    mapped = map_chain(chain, small_buffer(16384))
    (group,) = mapped.mapping.groups
    shape = Shape.of(chain, group)
    assert shape.rescaled(1) > 1
    assert mapped.optimal
    assert max(mapped.estimate.counts[0].held_words.values()) <= 16384


def test_heads_may_share_keys() -> None:
    shared = map_chain(parse_chain("attention:h=4,kv=2,m=64,p=64,e=32"), load_arch("A64"))
    apart = map_chain(parse_chain("attention:h=4,m=64,p=64,e=32"), load_arch("A64"))
    assert shared.optimal
    assert shared.estimate.energy_terms_pj["DRAM"] < apart.estimate.energy_terms_pj["DRAM"]


def test_a_gated_mlp_keeps_its_hidden_tiles_on_the_chip() -> None:
    mapped = map_chain(parse_chain("mlp:m=4,d=8,f=16,gated=1"), load_arch("A64"))
    assert mapped.optimal
    assert mapped.fused == ("G", "U", "A", "H")


def test_one_op_with_elementwise_work_is_a_chain_of_two() -> None:
    text = "S[m,n] = A[m,k] * B[k,n]; C[m,n] = relu(S[m,n]); m=64,k=64,n=64"
    mapped = map_chain(parse_chain(text), load_arch("A64"))
    assert mapped.fused == ("S",)
    assert mapped.estimate.counts[0].vector_ops == 64 * 64


def test_a_chain_of_one_costs_what_the_op_costs() -> None:
    from orchard.mapping.ops import parse_op
    from orchard.studies.map import map_op

    text = "gemm:m=64,k=128,n=64"
    alone = map_op(parse_op(text), load_arch("A64"))
    assert map_chain(parse_chain(text), load_arch("A64")).value == pytest.approx(alone.value, rel=1e-9)


def test_the_proof_may_stay_open_and_says_so() -> None:
    mapped = map_chain(parse_chain("attention:h=2,m=512,p=512,e=64"), small_buffer(8192), time_limit_s=0.0)
    assert not mapped.optimal
    assert mapped.bound < mapped.value


def test_a_limit_on_time_ends_large_chains_of_convolutions_too() -> None:
    """Its proof takes half a minute; a limit stops it between pieces of work, with an answer and what nothing can beat."""
    chain = parse_chain("convs:c=64,k=64x64x256,r=1x3x1,p=56,q=56")
    started = time.process_time()
    mapped = map_chain(chain, load_arch("E16"), time_limit_s=0.0)
    assert time.process_time() - started < 10
    assert not mapped.optimal
    assert 505969445543936.0 >= mapped.bound > 0.9 * 478199810235323  # its optimum, proven; the floor of a longer search
    assert mapped.value <= 6.51e14  # op by op


def test_what_does_not_fit_is_refused_with_the_need() -> None:
    text = "P[m,p] = softmax[p](S[m,p]); m=4,p=512"
    with pytest.raises(ImpossibleSpace, match=r"P on GLB, one row of p of S, P: needs 1,024 words, has 100"):
        map_chain(parse_chain(text), small_buffer(100))
    with pytest.raises(ImpossibleSpace, match=r"needs 3 words, has 2"):
        map_chain(parse_chain("mlp:m=4,d=4,f=4"), small_buffer(2))


@pytest.mark.parametrize(
    ("text", "arch", "message"),
    [
        ("attention:h=1,m=8,p=8,e=8", "E16", "softmax needs a vector unit, E16 has none"),
        ("mlp:m=4,d=4,f=4,act=gelu", "A64", "does not say how many vector operations 'gelu' needs"),
        (";".join(f"T{i + 1}[m] = relu(T{i}[m])" for i in range(9)) + ";m=4", "A64", "has 9 ops, at most 8"),
    ],
)
def test_what_cannot_be_counted_is_refused(text: str, arch: str, message: str) -> None:
    with pytest.raises(MappingError, match=message):
        map_chain(parse_chain(text), load_arch(arch))
