"""Work on one run in a process of its own: python -m orchard.app.lab.exploring FOLDER, the study and the known files on stdin."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from orchard.units import OrchardError


def main(folder: str) -> int:
    from orchard.app.lab.jobs import checked_model
    from orchard.studies.explore.run import explore
    from orchard.studies.explore.study import read_study

    given = json.loads(sys.stdin.read())
    try:
        with tempfile.TemporaryDirectory() as own:
            file = Path(own) / "study.yaml"
            file.write_text(given["study"])
            for name in given["files"]:
                if name in given["study"]:
                    checked_model(name, given["files"])
            study = read_study(file)
        explore(study, Path(folder))
    except OrchardError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 2
    except OSError as error:
        print(f"the run cannot be written: {error.strerror}; what is finished is kept", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
