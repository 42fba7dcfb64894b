"""Loss of quality of a weight format, from the recorded experiments: a metric of language models.

The record is the measured change of loss of the reference model (fx1, a million parameters) when its weights are rounded to a
format of the same bits and groups. It ranks formats; its size does not carry over to other models (docs/experiments.md).
"""

from __future__ import annotations

import re

from orchard.studies.errors import StudyError

METRIC = "quality_loss"
_FIXTURE = "fx1"
_UNCOMPRESSED = ("f32", "f16", "bf16")
_RECORDED = (
    (r"q8_0|int8(-channel|-g\d+)?|(mlx-)?8bit(-g\d+)?|mlx-8bit(-g\d+)?", "rtn:bits=8"),
    (r"q4_0|int4-g32|mlx-4bit-g32", "rtn:bits=4,group=32"),
    (r"int4-g64|mlx-4bit(-g64)?", "rtn:bits=4,group=64"),
    (r"int4-channel", "rtn:bits=4"),
    (r"int3-g32|mlx-3bit-g32", "rtn:bits=3,group=32"),
    (r"int3-g64|mlx-3bit(-g64)?", "rtn:bits=3,group=64"),
    (r"int3-channel", "rtn:bits=3"),
    (r"int2-g64|mlx-2bit(-g64)?", "rtn:bits=2,group=64"),
    (r"pal4", "palettize:bits=4"),
    (r"pal3", "palettize:bits=3"),
    (r"pal2", "palettize:bits=2"),
)
"""Weight formats and the recorded technique that rounds to the same grid. 8-bit groups stand under the coarser scale per row."""


def quality_loss(weights: str) -> float:
    """Nats per token, 0 for 16 bits and more. Raises StudyError for a format that no experiment has measured."""
    from orchard.studies.experiment.effects import quality_effects  # which runs on the pools of `explore.run`

    if weights in _UNCOMPRESSED:
        return 0.0
    for pattern, technique in _RECORDED:
        found = quality_effects(technique, fixture=_FIXTURE) if re.fullmatch(pattern, weights) else ()
        if found:
            return max(0.0, found[0].loss)
    raise StudyError(
        f"{METRIC}: no experiment has measured weights {weights[:40]!r}; measured are f16, q8_0, q4_0, int4-g64, int4-channel, "
        "int3-g64, int3-g32, int3-channel, int2-g64, pal4, pal3 and pal2"
    )
