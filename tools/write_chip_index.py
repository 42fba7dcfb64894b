"""Write src/orchard/hw/index.json from the chip files. Run it after a chip file changed; a test compares the two."""

from __future__ import annotations

import json
from pathlib import Path

from orchard.hw.catalogue import index_rows

if __name__ == "__main__":
    rows = index_rows()
    target = Path(__file__).parent.parent / "src" / "orchard" / "hw" / "index.json"
    target.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")
    print(f"{len(rows)} chips")
