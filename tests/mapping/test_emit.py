"""Emitted programs: they compile, compute the right result, and their own counts equal the prediction."""

from __future__ import annotations

import random
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from orchard.app.cli import main
from orchard.cost.nest import count
from orchard.hw.arch import Architecture, Compute, FanOut, Level, load_arch
from orchard.ir import parse_einsum
from orchard.ir.einsum import Einsum
from orchard.mapping import Keep, Loop, MappingError, Nest, Problem
from orchard.mapping.emit import emit_c, emit_python
from orchard.mapping.ops import parse_op
from orchard.report.mapping_code import mapping_code
from orchard.studies.map import map_op

sys.path.insert(0, str(Path(__file__).parents[1] / "cost"))
from test_nest import random_case

CC = shutil.which("cc") or shutil.which("gcc")
needs_compiler = pytest.mark.skipif(CC is None, reason="no C compiler (cc, gcc) on this machine")
FLAGS = ("-std=c99", "-O0", "-Wall", "-Wno-unused-function", "-Werror", "-DCOUNT")
OPS = (
    "gemm:b=2,m=7,k=5,n=6",
    "conv:c=4,k=6,p=5,q=4,r=3,s=3,stride=2,groups=2",  # groups
    "conv:c=3,k=3,p=6,q=5,r=3,s=2,dilation=2,groups=3",  # depthwise, dilation
    "(3*p+2*r) c, c r -> p c; p=4,r=3,c=2",  # windows with holes
)


def predicted(counts) -> dict[tuple[str, str], tuple[int, int]]:
    return {key: (t.reads, t.writes) for key, t in counts.traffic.items()}


def run_c(source: str, folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    (folder / "nest.c").write_text(source)
    assert CC is not None
    subprocess.run([CC, *flags, str(folder / "nest.c"), "-o", str(folder / "nest")], check=True, capture_output=True)
    return subprocess.run([str(folder / "nest")], capture_output=True, text=True, timeout=60)


def run_python(source: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    path = folder / "nest.py"
    path.write_text(source)
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(path), run_name="__main__")
    return int(ended.value.code or 0), capsys.readouterr().out


@needs_compiler
@pytest.mark.parametrize("seed", range(10))
def test_random_nests_in_c(seed: int, tmp_path: Path) -> None:
    """Ragged tiles, windows, copies with and without multicast and reduction, bypassed levels."""
    problem, arch, nest = random_case(random.Random(seed))
    counts = count(nest, problem, arch)
    ended = run_c(emit_c(nest, problem, arch, predicted(counts)), tmp_path, *FLAGS)
    assert ended.returncode == 0, ended.stdout
    assert f"macs {counts.macs}\nsteps {counts.steps}\n" in ended.stdout


@pytest.mark.parametrize("seed", range(100, 125))
def test_random_nests_in_python(seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    problem, arch, nest = random_case(random.Random(seed))
    counts = count(nest, problem, arch)
    code, out = run_python(emit_python(nest, problem, arch, predicted(counts)), tmp_path, capsys)
    assert code == 0, out
    assert f"macs {counts.macs}\nsteps {counts.steps}\n" in out


@needs_compiler
@pytest.mark.parametrize("text", OPS)
def test_found_mappings_run(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mapped = map_op(parse_op(text), load_arch("E16"))
    ended = run_c(mapping_code(mapped, "c"), tmp_path, *FLAGS)
    assert ended.returncode == 0, ended.stdout
    assert ended.stdout.count("right") == 2
    assert "counts: equal to the prediction" in ended.stdout
    code, out = run_python(mapping_code(mapped, "python"), tmp_path, capsys)
    assert (code, "counts: equal" in out) == (0, True)


@needs_compiler
def test_a_wrong_prediction_or_a_wrong_loop_fails_the_program(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mapped = map_op(parse_op("gemm:m=4,k=4,n=4"), load_arch("E16"))
    wrong = predicted(mapped.counts) | {("GLB", "A"): (1, 1)}
    ended = run_c(emit_c(mapped.nest, mapped.problem, mapped.arch, wrong), tmp_path, *FLAGS)
    assert (ended.returncode, "counts: DIFFER" in ended.stdout) == (1, True)
    code, out = run_python(emit_python(mapped.nest, mapped.problem, mapped.arch, wrong), tmp_path, capsys)
    assert (code, "counts: DIFFER" in out) == (1, True)
    right = mapping_code(mapped, "c")
    damaged = right.replace("b->data[at] += value;", "b->data[at] -= value;")
    assert damaged != right
    ended = run_c(damaged, tmp_path, "-std=c99", "-O0")
    assert (ended.returncode, "buffered nest: WRONG" in ended.stdout) == (1, True)


@needs_compiler
def test_names_of_a_users_file_cannot_break_the_program(tmp_path: Path) -> None:
    """Dims called like C keywords, level names with quotes and comment ends, two pairs of names that read alike."""
    einsum = parse_einsum("int k, k for -> int for")
    problem = Problem("x", einsum, {"int": 3, "k": 3, "for": 2}, ("a_b", "while", "C"))
    fan = FanOut(name="F", axes={'X*/"': 2})
    arch = Architecture(name='"*/', nodes=(Level(name='D"*/'), fan, Level(name="L_a")), compute=Compute())
    nest = Nest((Loop("for", 1, 'X*/"'), Keep("L_a", "a_b"), Loop("int", 2), Loop("k", 1), Loop("int", 1)))
    source = emit_c(nest, problem, arch, predicted(count(nest, problem, arch)))
    assert run_c(source, tmp_path, *FLAGS).returncode == 0


def test_only_sums_of_products_are_emitted() -> None:
    plain = parse_einsum("m k -> m")
    problem = Problem("x", Einsum(plain.inputs, plain.output, reduce="max"), {"m": 2, "k": 2}, ("A", "O"))
    arch = Architecture(name="toy", nodes=(Level(name="D"),), compute=Compute())
    with pytest.raises(MappingError, match="only sums of products"):
        emit_c(Nest((Loop("m", 1), Loop("k", 1))), problem, arch, {})


def test_the_command_prints_the_program_alone(capsys: pytest.CaptureFixture[str]) -> None:
    op = ["map", "gemm:m=4,k=4,n=4", "--arch", "E16"]
    assert main([*op, "--emit", "c"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("/*")
    assert "int main(" in out
    assert main([*op, "--emit", "fortran"]) == 2
    assert "expected one of c, python" in capsys.readouterr().err
