"""The user's own model and text: a transformers folder, or `package.module:function` that returns a torch module."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np

from orchard.studies.errors import StudyError

HELD_OUT = 0.5
"""Share of the text that is scored: its second half. The first half calibrates."""


def own_bench(model: str, data: str) -> tuple[Any, Any, Any]:
    """(module, token ids to calibrate on, token ids to score). Raises StudyError for what cannot be loaded."""
    module, encode = _hugging_face(model) if Path(model).is_dir() else _function(model)
    ids = _ids(Path(data), encode)
    cut = int(len(ids) * (1 - HELD_OUT))
    linear_products(module)
    return module.eval().requires_grad_(False), ids[:cut], ids[cut:]


def own_length(module: Any, longest: int) -> int:
    """Tokens of a sequence: `longest`, or as many as the model has positions for."""
    positions = getattr(getattr(module, "config", None), "max_position_embeddings", None)
    return min(longest, positions) if isinstance(positions, int) and positions > 1 else longest


def linear_products(module: Any) -> int:
    """Replace the Conv1D modules of GPT-2 and its kin (weights [I, O]) by `nn.Linear` [O, I], which is the same function; how
    many there were. Techniques work on `nn.Linear`."""
    from torch import nn

    found = [(n, m) for n, m in module.named_modules() if type(m).__name__ == "Conv1D" and hasattr(m, "nf")]
    for name, old in found:
        new = nn.Linear(old.weight.shape[0], old.weight.shape[1], bias=old.bias is not None, dtype=old.weight.dtype)
        new.weight = nn.Parameter(old.weight.detach().T.contiguous())
        if old.bias is not None:
            new.bias = nn.Parameter(old.bias.detach().clone())
        module.set_submodule(name, new)
    return len(found)


def _hugging_face(folder: str) -> tuple[Any, Any]:
    try:
        from transformers import AutoModelForCausalLM, AutoTokenizer
    except ImportError:
        raise StudyError(
            "a transformers model needs transformers, which is not installed: pip install 'orchard[lab]'"
        ) from None
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise StudyError(
            f"--model {folder}: transformers cannot load it: {' '.join(str(error).split())[:160]}"
        ) from None
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError):
        tokenizer = None
    encode = None if tokenizer is None else lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]
    import torch

    return model.to(torch.float32), encode


def _function(name: str) -> tuple[Any, Any]:
    """The function returns the module, or (module, encode) with encode: text to token ids."""
    module_name, colon, function = name.partition(":")
    if not colon:
        raise StudyError(f"--model {name}: no such folder; expected a transformers folder or package.module:function")
    try:
        made = getattr(importlib.import_module(module_name), function)()
    except (ImportError, AttributeError) as error:
        raise StudyError(f"--model {name}: {error}") from None
    module, encode = made if isinstance(made, tuple) else (made, None)
    if not hasattr(module, "named_modules"):
        raise StudyError(
            f"--model {name}: returned {type(module).__name__}, expected a torch.nn.Module or (module, encode)"
        )
    return module, encode


def _ids(path: Path, encode: Any) -> Any:
    """Token ids of a text by the model's tokenizer; `.npy` holds ids already."""
    try:
        if path.suffix == ".npy":
            return np.load(path).astype(np.int64).ravel()
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise StudyError(f"--data {path}: cannot be read: {error}") from None
    if encode is None:
        raise StudyError(f"--data {path}: the model has no tokenizer; give token ids as a .npy file")
    return np.asarray(encode(text), dtype=np.int64)
