"""Refit the profiles behind `orchard validate --suite vision` and `--suite kernels`, in the source tree: a minute.

python tools/refit_suites.py [vision] [kernels]
"""

import sys
from pathlib import Path

from orchard.studies.calibrate import calibrate_suite, write_left_out, write_profiles

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "orchard"

for suite in sys.argv[1:] or ("vision", "kernels"):
    calibration = calibrate_suite(suite)
    write_profiles(calibration, PACKAGE / "cost" / "profiles")
    write_left_out(calibration, PACKAGE / "data" / "measurements" / f"{suite}_left_out.csv")
    print(suite, len(calibration.cases.cases), "rows")
