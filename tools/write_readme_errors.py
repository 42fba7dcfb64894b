"""Write the error table of README.md from `orchard validate --suite llm --markdown`."""

from __future__ import annotations

from pathlib import Path

from orchard.report.validation import markdown_table
from orchard.studies.validate import validate

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- errors:begin -->", "<!-- errors:end -->"


def with_table(text: str, content: str) -> str:
    """`text` with what stands between the two markers replaced."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{content}\n{END}{after}"


def main() -> None:
    content = markdown_table(validate("llm"))
    path = ROOT / "README.md"
    path.write_text(with_table(path.read_text(encoding="utf-8"), content), encoding="utf-8")


if __name__ == "__main__":
    main()
