"""A refit as a table and as a record: every parameter with its uncertainty, and what the rows could not determine."""

from __future__ import annotations

from typing import Any

from orchard.studies.calibrate import Calibration

SCHEMA = "orchard.calibration/1"


def calibration_record(result: Calibration) -> dict[str, Any]:
    """Fitted values and their standard errors (of the logarithm) by profile file; `weak`: the rows hardly moved them."""
    fit = result.fit
    profiles: dict[str, dict[str, Any]] = {}
    for (owner, name), value in fit.values.items():
        entry: dict[str, Any] = {"value": float(value)}
        if (owner, name) in fit.sigma:
            entry |= {"sigma": float(fit.sigma[owner, name]), "weak": (owner, name) in fit.weak}
        profiles.setdefault(owner, {})[name] = entry
    return {"schema": SCHEMA, "rows": len(result.cases.cases), "profiles": profiles}


def render_calibration(result: Calibration) -> str:
    """Plain text, one parameter a line."""
    record = calibration_record(result)
    lines = [f"{record['rows']} rows fitted; sigma is the standard error of ln(value)"]
    for owner, parameters in record["profiles"].items():
        lines += ["", owner]
        for name, entry in parameters.items():
            if "sigma" in entry:
                weak = "  not determined by the rows" if entry["weak"] else ""
                lines.append(f"  {name:<30} {entry['value']:>12.5g}  sigma {entry['sigma']:.2f}{weak}")
    return "\n".join(lines)
