"""The front door: a path or an object in, a graph out. Formats are told by contents first, then by suffix."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from orchard.ir import GraphError
from orchard.units import OrchardError
from orchard.workloads.importers.errors import ImportError_, torchvision_clash
from orchard.workloads.importers.lowering import Imported

_SUFFIXES = {
    ".onnx": "onnx", ".pt2": "pt2", ".mlpackage": "coreml", ".mlmodel": "coreml", ".mlmodelc": "mlmodelc",
    ".aimodel": "coreai", ".gguf": "gguf", ".mlxfn": "mlx", ".safetensors": "safetensors",
    ".pt": "pickle", ".pth": "pickle", ".bin": "pickle", ".ckpt": "pickle", ".pkl": "pickle", ".h5": "keras",
    ".keras": "keras", ".tflite": "tflite", ".pb": "tensorflow",
}  # fmt: skip
_REFUSED = {
    "pickle": "is a pickle, which runs code when it is loaded. Save an exported program instead: "
    "torch.export.save(torch.export.export(module, args), 'model.pt2'), or weights as .safetensors with config.json "
    "beside",
    "keras": "is a Keras file. Convert it first: tf2onnx, or coremltools.convert",
    "tflite": "is a TensorFlow Lite file. Convert it first: python -m tf2onnx.convert --tflite FILE --output "
    "model.onnx",
    "tensorflow": "is a TensorFlow graph. Convert it first: python -m tf2onnx.convert",
    "mlmodelc": "is a compiled Core ML model, whose program is not public. Use the .mlpackage it was compiled from",
}  # fmt: skip


def source_format_of(path: str | Path) -> str | None:
    """`onnx`, `pt2`, `coreml`, `coreai`, `gguf`, `mlx`, `safetensors`, or None for a file of no known type."""
    path = Path(path)
    if path.is_file():
        with path.open("rb") as file:
            head = file.read(16)
        if head[:4] == b"GGUF":
            return "gguf"
        if head[8:9] == b"{" and path.suffix == ".safetensors":
            return "safetensors"
    elif path.is_dir():
        if (path / "Manifest.json").is_file():
            return "coreml"
        if (path / "main.mlirb").is_file():
            return "coreai"
    return _SUFFIXES.get(path.suffix.lower())


def import_model(
    source: Any, inputs: Mapping[str, Any] | None = None, assume_elementwise: Collection[str] = ()
) -> Imported:
    """The graph of a model file or object.

    source: a path (.onnx .pt2 .mlpackage .mlmodel .aimodel .gguf .mlxfn .safetensors), a torch.nn.Module or
    ExportedProgram, an MLX function, or "package.module:function" that returns (module, inputs).
    inputs: shapes per input; an int fixes a size, a string names a symbolic one. Live modules need it.
    assume_elementwise: op types without a rule that may count as touching each element once.

    Raises ImportError_ with one sentence for whatever cannot be imported.
    """
    try:
        return _import(source, inputs, assume_elementwise)
    except GraphError as error:
        raise ImportError_(
            f"{source if isinstance(source, (str, Path)) else type(source).__name__}: {error}"
        ) from error
    except OrchardError:
        raise
    except RecursionError:
        raise ImportError_(f"{source}: nested too deeply") from None


def _import(source: Any, inputs: Mapping[str, Any] | None, assumed: Collection[str]) -> Imported:
    if isinstance(source, (str, Path)):
        text = str(source)
        if ":" in text and not Path(text).exists() and "/" not in text.split(":")[-1]:
            return _from_function(text, inputs, assumed)
        return _from_file(Path(source), inputs, assumed)
    torch = sys.modules.get("torch")
    if torch is not None and (isinstance(source, torch.nn.Module) or hasattr(source, "graph_signature")):
        return _importer("pt2")(source, inputs=inputs, assume_elementwise=assumed)
    if callable(source):
        return _importer("function")(source, inputs=inputs, assume_elementwise=assumed)
    raise ImportError_(f"{type(source).__name__} is no model; give a path, a torch.nn.Module, or an MLX function")


def _from_file(path: Path, inputs: Mapping[str, Any] | None, assumed: Collection[str]) -> Imported:
    if not path.exists():
        raise ImportError_(f"{path}: no such file or folder")
    kind = source_format_of(path)
    if kind is None:
        known = ", ".join(s for s, k in _SUFFIXES.items() if k not in _REFUSED)
        raise ImportError_(f"{path}: not a known model file, expected one of {known}")
    if kind in _REFUSED:
        raise ImportError_(f"{path} {_REFUSED[kind]}")
    if assumed and kind in ("gguf", "safetensors"):
        raise ImportError_(f"{path}: --assume-elementwise {sorted(assumed)[0][:60]!r}: a {kind} file holds no ops; leave it out")
    return _importer(kind)(path, inputs=inputs, assume_elementwise=assumed)


def _importer(kind: str) -> Callable[..., Imported]:
    module, name = {
        "onnx": ("onnx", "import_onnx"),
        "pt2": ("torch_export", "import_torch"),
        "coreml": ("coreml", "import_coreml"),
        "coreai": ("coreai", "import_coreai"),
        "gguf": ("gguf", "import_gguf"),
        "mlx": ("mlx", "import_mlxfn"),
        "function": ("mlx", "import_function"),
        "safetensors": ("safetensors", "import_safetensors"),
    }[kind]
    found: Callable[..., Imported] = getattr(importlib.import_module(f"orchard.workloads.importers.{module}"), name)
    return found


def _from_function(text: str, inputs: Mapping[str, Any] | None, assumed: Collection[str]) -> Imported:
    model, examples = called(text)
    return _import(model, inputs or examples, assumed)


def called(text: str) -> tuple[Any, Mapping[str, Any] | None]:
    """What `package.module:function` returns: a module, and example inputs by name or None. Raises ImportError_."""
    module_name, _, attribute = text.partition(":")
    try:
        function = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        clash = torchvision_clash(text, error)
        raise clash or ImportError_(f"{text}: cannot be found ({error}); expected package.module:function") from None
    except Exception as error:  # whatever the user's module does while it loads
        raise torchvision_clash(text, error) or ImportError_(
            f"{text}: importing {module_name} raised {type(error).__name__}: {error}"
        ) from error
    try:
        made = function()
    except Exception as error:
        raise torchvision_clash(text, error) or ImportError_(
            f"{text}: calling it without arguments raised {type(error).__name__}: {error}; expected a function that "
            f"returns a module and example inputs"
        ) from error
    model, examples = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if examples is not None and not isinstance(examples, Mapping):
        raise ImportError_(f"{text}: the second result is {type(examples).__name__}, expected a mapping of input names")
    return model, examples
