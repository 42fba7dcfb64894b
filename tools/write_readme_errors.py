"""Write the error table of README.md and docs/method.md from `orchard validate --suite llm`."""

from __future__ import annotations

from pathlib import Path

from orchard.studies.validate import TARGETS, ValidationReport, validate

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- errors:begin -->", "<!-- errors:end -->"


def table(report: ValidationReport) -> str:
    """Median and 90th percentile of |predicted / measured - 1| in percent."""
    found = {(s.name, s.part): s for s in report.strata}
    lines = [
        "| language models, measured on | rows | chip generation left out | model family left out | in 80 % interval "
        "| naive roofline |",
        "|---|---|---|---|---|---|",
    ]
    for name in TARGETS:
        chip, kin = found.get((name, "left-out chip")), found.get((name, "left-out family"))
        if chip is None or kin is None:
            continue
        lines.append(
            f"| {name} | {chip.rows} | {percent(chip.median_error)} / {percent(chip.p90_error)} "
            f"| {percent(kin.median_error)} / {percent(kin.p90_error)} | {percent(chip.coverage80, 0)} "
            f"| {percent(chip.naive_median, 0)} |"
        )
    lines.append("")
    lines.append("Errors are |predicted / measured - 1| of times, median / 90th percentile; the roofline column is a median.")
    return "\n".join(lines)


def percent(value: float, digits: int = 1) -> str:
    return f"{100 * value:.{digits}f} %"


def with_table(text: str, content: str) -> str:
    """`text` with what stands between the two markers replaced."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{content}\n{END}{after}"


def main() -> None:
    content = table(validate("llm"))
    for name in ("README.md",):
        path = ROOT / name
        path.write_text(with_table(path.read_text(encoding="utf-8"), content), encoding="utf-8")


if __name__ == "__main__":
    main()
