"""Refit the packaged runtime profiles in place: `python tools/refit_profiles.py` (about 2 minutes on 2 cores).

Writes src/orchard/cost/profiles/*.yaml and src/orchard/data/measurements/llm_left_out.csv, then prints what moved most.
"""

from __future__ import annotations

from pathlib import Path

from orchard.cost.profile import load_profile
from orchard.studies.calibrate import calibrate, write_left_out, write_profiles

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "orchard"


def main() -> None:
    result = calibrate()
    before = {key: load_profile(key[0]).parameters[key[1]].value for key in result.fit.sigma}
    write_profiles(result, PACKAGE / "cost" / "profiles")
    write_left_out(result, PACKAGE / "data" / "measurements" / "llm_left_out.csv")
    moved = sorted(before, key=lambda key: -abs(result.fit.values[key] / before[key] - 1.0))
    for owner, name in moved[:15]:
        print(f"{owner:24} {name:28} {before[owner, name]:12.5g} -> {result.fit.values[owner, name]:12.5g}")


if __name__ == "__main__":
    main()
