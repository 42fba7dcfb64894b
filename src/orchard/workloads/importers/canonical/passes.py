"""The passes in order."""

from __future__ import annotations

from collections.abc import Sequence

from orchard.ir import Graph
from orchard.workloads.importers.canonical.attention import fold_attention, recognise_rope
from orchard.workloads.importers.canonical.build import build
from orchard.workloads.importers.canonical.composites import drop_nan_guards, recognise, recognise_l2
from orchard.workloads.importers.canonical.constants import drop_identities, fold_constants
from orchard.workloads.importers.canonical.folding import (
    fold_affine,
    fold_batchnorm,
    fold_bias,
    fold_padding,
    fold_quantization,
    fold_scale,
    fold_shuffles,
    recognise_batchnorm,
)
from orchard.workloads.importers.canonical.heads import fold_repeated_heads
from orchard.workloads.importers.canonical.layouts import agree_layouts, squeeze_transposes, unmerge_einsums
from orchard.workloads.importers.canonical.moves import recognise_rolls
from orchard.workloads.importers.canonical.net import Net, merge_views
from orchard.workloads.importers.canonical.transposes import fold_transposes
from orchard.workloads.importers.errors import ImportError_
from orchard.workloads.importers.lowering import Lowering, Value


def finish(low: Lowering, outputs: Sequence[Value]) -> Graph:
    """The canonical, verified graph. Raises ImportError_ where the result breaks a rule of the IR."""
    if not outputs:
        raise ImportError_(f"{low.where}: the model has no outputs")
    net = Net(low, outputs)
    for run in (
        drop_identities, fold_constants, recognise, recognise_l2, recognise_rolls, recognise_batchnorm, drop_nan_guards,
        fold_padding, fold_batchnorm, fold_quantization, fold_bias, fold_scale, fold_shuffles, recognise_rope,
        fold_attention, fold_repeated_heads, fold_transposes, merge_views, fold_repeated_heads, fold_transposes,
        merge_views, fold_affine, fold_bias, fold_scale, unmerge_einsums, fold_transposes, merge_views, agree_layouts,
        squeeze_transposes, unmerge_einsums, fold_transposes, merge_views,
    ):  # fmt: skip
        run(net)
        net.refresh()
    net.sort()
    return build(net)
