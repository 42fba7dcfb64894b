"""What the wheel must hold: every data file of the package, and nothing that names a developer's machine."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(find_spec("hatchling") is None, reason="hatchling is not installed here")
def test_the_wheel_has_every_file_of_the_package(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom hatchling.build import build_wheel\nprint(build_wheel(sys.argv[1]))\n"  # the PEP 517 hook
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    packed = set(zipfile.ZipFile(wheel).namelist())
    source = ROOT / "src"
    files = {
        str(p.relative_to(source))
        for p in (source / "orchard").rglob("*")
        if p.is_file() and "__pycache__" not in p.parts and p.suffix != ".pyc"
    }
    assert files <= packed
    for needed in ("orchard/py.typed", "orchard/hw/index.json", "orchard/workloads/models.yaml"):
        assert needed in packed


def test_extras_that_errors_may_name_exist() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {"models", "torch", "coreml", "coreai", "mlx", "test"} <= set(project["optional-dependencies"])


def test_constraints_pin_what_the_project_names() -> None:
    pins = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert all("==" in line for line in pins)
    names = {line.partition("==")[0].lower() for line in pins}
    assert {"numpy", "scipy", "pydantic", "typer", "rich", "torch", "pytest", "ruff", "mypy"} <= names
