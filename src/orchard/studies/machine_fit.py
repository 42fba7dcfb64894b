"""A calibrated machine from microbenchmarks: least squares in the logarithm of time, with a robust loss and weak priors.

Every program's time is the sum of its launches' times (`orchard.cost.engines.eager`) plus what calling modules costs. The fit
moves the logarithms of the parameters; each has a prior centre and a width in which engineers would expect it before any
measurement. A parameter whose posterior is hardly narrower than its prior is one that the data did not determine, and the
result says so. Whole models are never part of the fit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from orchard.cost.eager import Floats, Launch, LaunchArrays, launch_arrays
from orchard.cost.engines.eager import eager_terms


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """A parameter of the eager model before any measurement: centre, unit, meaning; `width` of its logarithm."""

    name: str
    start: float
    unit: str
    about: str
    width: float = 1.0


# Where a fit starts and what its priors pull to, in seconds: orders of magnitude of one x86 core (own judgement).
GROUP_STARTS = {
    "view": 1.0e-6,
    "pointwise": 2.0e-6,
    "copy": 2.0e-6,
    "fill": 2.0e-6,
    "gemm": 5.0e-6,
    "gemv": 4.0e-6,
    "conv": 1.5e-5,
    "depthwise": 1.5e-5,
    "attention": 1.0e-5,
    "softmax": 3.0e-6,
    "norm": 5.0e-6,
    "reduce": 4.0e-6,
    "gather": 4.0e-6,
    "scatter": 5.0e-6,
    "pool": 5.0e-6,
    "resize": 5.0e-6,
    "scan": 3.0e-5,
    "select": 5.0e-6,
}

ELEMENT_STARTS = {
    "pointwise.-": 5e-11,
    "pointwise.exp": 5e-10,
    "pointwise.tanh": 1e-9,
    "pointwise.silu": 1e-9,
    "pointwise.gelu": 1e-9,
    "pointwise.gelu_tanh": 1e-9,
    "pointwise.pow": 1e-9,
    "pointwise.trig": 1e-9,
    "pointwise.div": 1e-10,
    "pointwise.sqrt": 1e-10,
    "pointwise.rsqrt": 2e-10,
    "pointwise.random": 5e-9,
    "pointwise.hard": 1e-10,
    "pointwise.clamp": 1e-10,
    "pointwise.where": 1e-10,
    "pointwise.compare": 1e-10,
    "pointwise.neg": 5e-11,
    "pointwise.gelu_backward": 2e-9,
    "pointwise.silu_backward": 2e-9,
    "pointwise.-.bf16": 1e-10,
    "pointwise.silu.bf16": 1e-9,
    "pointwise.gelu.bf16": 1e-9,
    "pointwise.rsqrt.bf16": 2e-10,
    "pointwise.pow.bf16": 1e-10,
    "pointwise.neg.bf16": 5e-11,
    "copy.-": 5e-11,
    "copy.cast": 1e-10,
    "copy.cat": 5e-11,
    "copy.pad": 1e-10,
    "fill.-": 2e-11,
    "softmax.-": 5e-10,
    "softmax.log": 5e-10,
    "softmax.backward": 2e-10,
    "softmax.logbackward": 5e-10,
    "norm.layernorm": 3e-10,
    "norm.groupnorm": 3e-10,
    "norm.batchnorm": 2e-10,
    "norm.layernorm_backward": 6e-10,
    "reduce.-": 1e-10,
    "reduce.outer": 1e-10,
    "gather.-": 5e-11,
    "scatter.-": 1e-10,
    "pool.max": 5e-10,
    "pool.avg": 5e-10,
    "resize.-": 5e-10,
    "select.-": 2e-9,
    "select.topk": 2e-9,
    "select.cumsum": 1e-9,
    "attention.-": 5e-10,
    "attention.-.bf16": 5e-10,
    "attention.causal": 1e-9,
    "attention.backward": 1e-9,
    "attention.backward.bf16": 5e-9,
    "softmax.log.bf16": 1e-9,
}


def terms() -> tuple[Term, ...]:
    """All parameters of the eager model."""
    found = [
        Term(name=f"dispatch_s.{g}", start=s, unit="s", about=f"fixed cost of a {g} operation")
        for g, s in GROUP_STARTS.items()
    ]
    found += [
        Term(name=f"dispatch_s.{g}.bf16", start=1e-5, unit="s", about=f"the same for bf16 ({g})")
        for g in ("gemm", "gemv", "attention")
    ]
    found += [
        Term(name=f"element_s.{k}", start=s, unit="s", about=f"arithmetic per element, {k}", width=1.5)
        for k, s in ELEMENT_STARTS.items()
    ]
    reads = (5e-12, 1e-11, 2e-11, 4e-11, 5e-11, 6e-11, 8e-11)
    writes = (5e-12, 1e-11, 3e-11, 5e-11, 6e-11, 8e-11, 1e-10)
    for i, (r, w) in enumerate(zip(reads, writes)):
        found.append(
            Term(name=f"read_s_per_byte.{i}", start=r, unit="s/B", about=f"reading at knot {i} of the reuse distance")
        )
        found.append(
            Term(name=f"write_s_per_byte.{i}", start=w, unit="s/B", about=f"writing at knot {i} of the reuse distance")
        )
    for dtype, rate in (("f32", 5e10), ("bf16", 2e11), ("int8", 2e11), ("int8w", 5e10), ("int4w", 2e10)):
        found.append(
            Term(
                name=f"macs_per_s.{dtype}",
                start=rate,
                unit="1/s",
                about=f"MACs of large products in {dtype}",
                width=1.5,
            )
        )
    for dtype, rate in (("f32", 1e10), ("bf16", 1e10), ("int8w", 1e10), ("int4w", 1e10)):
        found.append(
            Term(
                name=f"gemv_macs_per_s.{dtype}",
                start=rate,
                unit="1/s",
                about=f"MACs of a matrix-vector product in {dtype}",
            )
        )
    for prefix, starts in (("gemm", (4.0, 8.0, 16.0)), ("conv", (20.0, 8.0, 16.0))):
        for side, start in zip(("rows0", "columns0", "depth0"), starts):
            for dtype in ("f32", "bf16") if prefix == "gemm" else ("f32",):
                found.append(
                    Term(
                        name=f"{prefix}_{side}.{dtype}",
                        start=start,
                        unit="count",
                        about=f"{side[:-1]} at which a {prefix} in {dtype} runs at half its rate",
                    )
                )
    found += [
        Term(name="overlap_sharpness", start=2.0, unit="1", about="how far arithmetic hides behind bytes", width=0.5),
        Term(
            name="packed_sharpness", start=1.2, unit="1", about="the same where operands are repacked first", width=0.3
        ),
        Term(name="fresh_s_per_byte", start=1e-10, unit="s/B", about="first touch of pages from the system"),
        Term(
            name="gemv_stream.f32",
            start=1.0,
            unit="1",
            about="reads of a matrix-vector product against plain reads",
            width=0.5,
        ),
        Term(name="gemv_stream.bf16", start=1.0, unit="1", about="the same in bf16", width=0.5),
        Term(name="patch_s", start=3e-10, unit="s", about="writing an element of a convolution's patches"),
        Term(name="record_s", start=3e-6, unit="s", about="recording an operation for the backward pass, and its node"),
        Term(name="record_view_s", start=1e-6, unit="s", about="the same for a view"),
        Term(name="module_s", start=1.5e-6, unit="s", about="calling a module"),
        Term(name="strided_s", start=5e-10, unit="s", about="an element with a stride in the innermost axis"),
        Term(name="pack_s", start=1e-10, unit="s", about="repacking an element of a product's operands"),
        Term(name="matrix_s", start=3e-7, unit="s", about="each matrix of a batch of products"),
        Term(
            name="conv_window_share",
            start=1.0,
            unit="1",
            about="rate of convolutions with windows against products",
            width=0.5,
        ),
        Term(
            name="conv_point_share", start=1.0, unit="1", about="rate of 1x1 convolutions against products", width=0.5
        ),
        Term(
            name="conv_backward_share",
            start=0.7,
            unit="1",
            about="rate of a convolution's gradients against itself",
            width=0.5,
        ),
        Term(name="reorder_s_per_byte", start=5e-11, unit="s/B", about="bringing activations into blocks and back"),
        Term(name="repack_s_per_byte", start=1e-10, unit="s/B", about="bringing a convolution's weights into blocks"),
        Term(name="depthwise_mac_s", start=1e-10, unit="s", about="a MAC of a filter per channel"),
        Term(name="depthwise_element_s", start=1e-10, unit="s", about="an output of a filter per channel"),
        Term(name="depthwise_strided_s", start=3e-10, unit="s", about="the same with a stride"),
        Term(
            name="attention_share",
            start=0.7,
            unit="1",
            about="rate of attention's products against large ones",
            width=0.5,
        ),
        Term(name="attention_rows0", start=8.0, unit="count", about="tokens at which attention runs at half its rate"),
        Term(
            name="attention_depth0",
            start=16.0,
            unit="count",
            about="head size at which attention runs at half its rate",
        ),
        Term(name="attention_head_s.-", start=1e-6, unit="s", about="each head of an attention"),
        Term(name="attention_head_s.backward", start=2e-5, unit="s", about="each head of its gradients", width=1.5),
        Term(name="attention_head_s.backward.bf16", start=5e-5, unit="s", about="the same in bf16", width=1.5),
        Term(name="zero_s", start=1e-10, unit="s", about="a zero under a square root, beyond any other element", width=3.0),
        Term(name="row_s", start=2e-8, unit="s", about="each row that is looked up or scattered"),
        Term(
            name="scan_slowdown",
            start=1.5,
            unit="1",
            about="MACs of a recurrence against those of large products",
            width=0.5,
        ),
        Term(name="scan_step_s", start=5e-6, unit="s", about="each step of a recurrence"),
    ]
    return tuple(found)


@dataclass(frozen=True)
class Measured:
    """One program: its launches, module calls, and the measured time in seconds."""

    name: str
    group: str
    launches: tuple[Launch, ...]
    module_calls: int
    seconds: float


class Programs:
    """Programs laid end to end; equal launches of a program are priced once."""

    def __init__(self, programs: Sequence[Measured]) -> None:
        launches: list[Launch] = []
        weights: list[float] = []
        owners: list[int] = []
        for index, program in enumerate(programs):
            counted: dict[Launch, int] = {}
            for launch in program.launches:
                counted[launch] = counted.get(launch, 0) + 1
            launches += counted
            weights += [float(n) for n in counted.values()]
            owners += [index] * len(counted)
        self.arrays: LaunchArrays = launch_arrays(launches)
        self._weights, self._owners = np.array(weights), np.array(owners, dtype=np.intp)
        self._modules = np.array([float(p.module_calls) for p in programs])
        self.measured = np.array([p.seconds for p in programs])

    def seconds(self, values: Mapping[str, float]) -> Floats:
        """Predicted time of every program [programs]."""
        total = eager_terms(self.arrays, values).total * self._weights
        sums = np.bincount(self._owners, weights=total, minlength=len(self.measured))
        return np.asarray(sums + self._modules * values["module_s"])


@dataclass(frozen=True)
class FitResult:
    """Values and standard errors of their logarithms; residuals ln(predicted / measured) per program."""

    values: Mapping[str, float]
    sigmas: Mapping[str, float]
    residuals: Floats
    undetermined: tuple[str, ...]


def fit(
    programs: Sequence[Measured],
    table: Sequence[Term] | None = None,
    *,
    noise: float = 0.1,
    begin: Mapping[str, float] | None = None,
    most: int = 60,
) -> FitResult:
    """Fit the parameters to measured programs.

    noise   expected relative error of model and measurement together
    begin   values to start from (the priors stay where they are); most: evaluations of the Jacobian
    """
    from scipy.optimize import least_squares

    table = terms() if table is None else table
    laid = Programs(programs)
    names = [t.name for t in table]
    start = np.log([t.start for t in table])
    widths = np.array([t.width for t in table])

    first = start if begin is None else np.log([begin[n] for n in names])

    def residuals(x: Floats) -> Floats:
        values = dict(zip(names, np.exp(x).tolist()))
        errors = np.log(laid.seconds(values) / laid.measured) / noise
        return np.concatenate([_robust(errors), (x - start) / widths])

    found = least_squares(residuals, first, method="trf", x_scale=widths, max_nfev=most, ftol=1e-4)
    values = dict(zip(names, np.exp(found.x).tolist()))
    errors = np.log(laid.seconds(values) / laid.measured)
    slopes = np.asarray(found.jac, dtype=np.float64)
    covariance = np.linalg.inv(slopes.T @ slopes)
    spread = np.sqrt(np.diag(covariance))
    undetermined = tuple(n for n, s, w in zip(names, spread, widths) if s > 0.5 * w)
    return FitResult(values, dict(zip(names, spread.tolist())), errors, undetermined)


def _robust(errors: Floats) -> Floats:
    """Residuals whose squares sum to the soft L1 loss 2 (sqrt(1 + e^2) - 1): outliers count linearly."""
    return np.asarray(np.sign(errors) * np.sqrt(2.0 * (np.sqrt(1.0 + errors**2) - 1.0)))
