"""The error table in README.md is what `orchard validate` says."""

import importlib.util
from pathlib import Path

from orchard.report.validation import markdown_table
from orchard.studies.validate import validate

ROOT = Path(__file__).resolve().parents[2]


def test_readme_states_the_errors_that_validate_prints():
    spec = importlib.util.spec_from_file_location("write_readme_errors", ROOT / "tools" / "write_readme_errors.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert tool.with_table(text, markdown_table(validate("llm"))) == text, "run python tools/write_readme_errors.py"
