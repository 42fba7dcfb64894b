"""torch.export of a live module from the shapes of its inputs."""

from __future__ import annotations

import contextlib
import copy
import importlib
import inspect
import io
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from orchard.workloads.importers.errors import ImportError_, torchvision_clash


def first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:200]}" if text else type(error).__name__


# ---- exporting a live module


def export_module(torch: Any, module: Any, inputs: dict[str, Any], label: str) -> tuple[Any, dict[str, list[Any]]]:
    """torch.export of `module`, and the symbol names asked for per input."""
    if not inputs:
        inputs = dict(_default_inputs(module))
    if not inputs:
        raise ImportError_(f"{label}: give the shape of each input, for example inputs={{'x': (1, 3, 224, 224)}}")
    devices = {p.device.type for p in (*module.parameters(), *module.buffers())}
    if "meta" in devices and len(devices) > 1:  # some layers fill a tensor of their own under torch.device("meta")
        module = copy.deepcopy(module).to("meta")
    parameters = list(module.parameters()) or list(module.buffers())
    device = parameters[0].device if parameters else torch.device("cpu")
    floats = next((p.dtype for p in parameters if p.is_floating_point()), torch.float32)
    accepted = inspect.signature(module.forward).parameters
    kwargs, dynamic, names = _example_inputs(torch, inputs, device, floats, label, accepted)
    fixed = {"use_cache": False, "return_dict": True} if hasattr(module, "config") else {}
    for key, value in fixed.items():
        if key in accepted and key not in kwargs and key != "return_dict":
            kwargs[key] = value
            dynamic[key] = None
    was_training = module.training
    module.eval()
    try:
        program = _exported(torch, module, kwargs, dynamic)
        _refuse_fixed(torch, program, names, label)
        return program, names
    except ImportError_:
        raise
    except Exception as error:
        if device.type == "meta" and "same device" in str(error):  # forward makes tensors on the CPU of its own accord
            return export_module(torch, copy.deepcopy(module).to_empty(device="cpu"), inputs, label)
        raise _export_error(label, error) from None
    finally:
        module.train(was_training)


def _exported(torch: Any, module: Any, kwargs: dict[str, Any], dynamic: dict[str, Any]) -> Any:
    shapes = dynamic if any(dynamic.values()) else None
    with torch.no_grad(), _experts_op(torch, module), quiet():
        return torch.export.export(module, (), kwargs, dynamic_shapes=shapes, strict=False)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without what torch and its libraries log and print (the graph of a failed export, for one); the error is a sentence."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)


def _refuse_fixed(torch: Any, program: Any, names: Mapping[str, list[Any]], label: str) -> None:
    """torch.export fixes a size at its example without a word where forward needs it known (chunked scans, windows)."""
    for node in program.graph.nodes:
        value = node.meta.get("val") if node.op == "placeholder" else None
        if not isinstance(value, torch.Tensor):
            continue
        for asked, size in zip(names.get(node.name, ()), value.shape):
            free = isinstance(size, torch.SymInt) and size.node.expr.free_symbols
            if isinstance(asked, str) and not asked.isdecimal() and not free:
                raise ImportError_(
                    f"{label}: size {asked!r} of input {node.name!r} should be symbolic, but forward fixes it; "
                    f"give that size as a number"
                )


def _export_error(label: str, error: Exception) -> ImportError_:
    text = str(error)
    clash = torchvision_clash(label, error)
    if clash is not None:
        return clash
    if "Could not guard on data-dependent" in text or "data-dependent" in text.lower():
        return ImportError_(
            f"{label}: forward decides by tensor contents ({first_line(error)}); torch.export cannot follow such "
            f"control flow. Export a version without it, or import the ONNX or Core ML file"
        )
    if "Constraints violated" in text or "specialized" in text:
        return ImportError_(
            f"{label}: a size that should be symbolic is fixed by the model ({first_line(error)}); "
            f"give that size as a number"
        )
    if "missing a required argument" in text or ("missing" in text and "argument" in text):
        return ImportError_(f"{label}: {first_line(error)}; give its shape in inputs")
    return ImportError_(f"{label}: torch.export fails ({first_line(error)})")


def _default_inputs(module: Any) -> Iterator[tuple[str, Any]]:
    """For a transformers model, by its config: 128 ids, a picture, a second of audio or a window of features; one token for
    a decoder."""
    config = getattr(module, "config", None)
    main = getattr(module, "main_input_name", None)
    if config is None or main is None:
        return
    if main == "input_ids":
        yield "input_ids", (1, 128)
    elif main == "pixel_values":
        vision = getattr(config, "vision_config", config)
        size = getattr(vision, "image_size", 224)
        height, width = (size, size) if isinstance(size, int) else tuple(size)
        yield "pixel_values", (1, getattr(vision, "num_channels", 3), height, width)
    elif main == "input_values":
        yield "input_values", (1, 16000)
    elif main == "input_features" and hasattr(config, "max_source_positions"):
        yield "input_features", (1, config.num_mel_bins, 2 * config.max_source_positions)
    if getattr(config, "is_encoder_decoder", False) and "decoder_input_ids" in inspect.signature(module.forward).parameters:
        yield "decoder_input_ids", (1, 1)


def _example_inputs(
    torch: Any, inputs: Mapping[str, Any], device: Any, floats: Any, label: str, accepted: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any], dict[str, list[Any]]]:
    kwargs: dict[str, Any] = {}
    dynamic: dict[str, Any] = {}
    names: dict[str, list[Any]] = {}
    dims: dict[str, tuple[Any, int]] = {}
    variadic = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in accepted.values())
    for key, given in inputs.items():
        if key not in accepted and not variadic:
            raise ImportError_(f"{label}: forward has no argument {key!r}; it takes {', '.join(accepted)}")
        if isinstance(given, torch.Tensor) or given is None or isinstance(given, (bool, float, int)):
            kwargs[key], dynamic[key] = given, None
            continue
        if not isinstance(given, Sequence) or isinstance(given, str):
            kwargs[key], dynamic[key] = given, None
            continue
        shape: list[int] = []
        axes: dict[int, Any] = {}
        names[key] = list(given)
        for axis, size in enumerate(given):
            if isinstance(size, str) and not size.isdecimal():
                if size not in dims:
                    dims[size] = (torch.export.Dim.AUTO, 24 + 8 * len(dims) if axis else 2 + len(dims))
                axes[axis] = dims[size][0]
                shape.append(dims[size][1])
            else:
                shape.append(int(size))
        kwargs[key] = _example(torch, key, shape, device, floats)
        dynamic[key] = axes or None
    return kwargs, dynamic, names


def _example(torch: Any, key: str, shape: list[int], device: Any, floats: Any) -> Any:
    if re.search(r"ids$|tokens?$|index|indices|labels|positions?$|input_pos", key) and "inputs_embeds" not in key:
        return torch.zeros(shape, dtype=torch.long, device=device)
    if key.endswith("mask"):
        return torch.ones(shape, dtype=torch.long if len(shape) == 2 else torch.bool, device=device)
    return torch.zeros(shape, dtype=floats, device=device)


def example_inputs(module: Any, inputs: Mapping[str, Any], label: str) -> dict[str, Any]:
    """A tensor for each input of a module with `inputs` as `export_module` takes them. Raises ImportError_."""
    torch = importlib.import_module("torch")
    first = next((p for p in module.parameters() if p.is_floating_point()), torch.zeros(()))
    accepted = inspect.signature(module.forward).parameters
    return _example_inputs(torch, inputs or dict(_default_inputs(module)), first.device, first.dtype, label, accepted)[0]


_experts_library: list[Any] = []


@contextlib.contextmanager
def _experts_op(torch: Any, module: Any) -> Iterator[None]:
    """While exporting, each experts module (stacked `gate_up_proj`/`down_proj` of rank 3) is one custom op."""
    found = [m for m in module.modules() if _is_experts(m)]
    if not found:
        yield
        return
    if not _experts_library:
        library = torch.library.Library("orchard", "DEF")
        library.define(
            "experts(Tensor x, Tensor index, Tensor weights, Tensor[] parameters, bool transposed) -> Tensor"
        )
        library.impl(
            "experts", lambda x, index, weights, parameters, transposed: x.clone(), "CompositeExplicitAutograd"
        )
        library.impl("experts", lambda x, index, weights, parameters, transposed: torch.empty_like(x), "Meta")
        _experts_library.append(library)
    saved = [(m, m.__dict__.get("forward")) for m in found]

    def patched(owner: Any) -> Callable[..., Any]:
        keys = ("gate_up_proj", "up_proj", "gate_up_proj_bias", "down_proj", "down_proj_bias")
        parameters = [getattr(owner, k) for k in keys if getattr(owner, k, None) is not None]
        transposed = bool(getattr(owner, "is_transposed", False))

        def forward(hidden_states: Any, top_k_index: Any, top_k_weights: Any, *_: Any, **__: Any) -> Any:
            return torch.ops.orchard.experts(hidden_states, top_k_index, top_k_weights, parameters, transposed)

        return forward

    try:
        for owner in found:
            owner.forward = patched(owner)
        yield
    finally:
        for owner, before in saved:
            if before is None:
                del owner.__dict__["forward"]
            else:
                owner.forward = before


def _is_experts(module: Any) -> bool:
    down = getattr(module, "down_proj", None)
    up = getattr(module, "gate_up_proj", getattr(module, "up_proj", None))
    return getattr(down, "ndim", 0) == 3 and getattr(up, "ndim", 0) == 3
