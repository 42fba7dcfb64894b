"""What is measured: small programs that build their tensors once and then repeat one step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any


class Step:
    """A repeatable step and the tensors it keeps. `call` returns its result, which the caller drops."""

    def __init__(self, call: Callable[[], Any], tensors: Callable[[], Iterator[Any]]) -> None:
        self._call = call
        self._tensors = tensors

    def __call__(self) -> Any:
        return self._call()

    def tensors(self) -> Iterator[Any]:
        """Parameters, inputs and states that exist between calls."""
        return self._tensors()


@dataclass(frozen=True)
class Program:
    """`build()` makes the step; the same code runs on real tensors (to measure) and on fake ones (to predict).

    group     what kind of microbenchmark, or `model`
    grad      the step records for a backward pass
    repeats   work units inside one call, for a rate in reports; 1 for models
    """

    name: str
    group: str
    build: Callable[[], Step]
    grad: bool = False
    about: str = ""


def calling(function: Callable[..., Any], *tensors: Any) -> Step:
    """A step that calls `function` on the same tensors each time."""
    return Step(lambda: function(*tensors), lambda: iter(tensors))


def cycling(function: Callable[..., Any], operands: list[Any], *others: Any) -> Step:
    """A step that passes once over a list of operands, so that each was touched a whole pass ago."""

    def run() -> None:
        for operand in operands:
            function(operand, *others)

    return Step(run, lambda: iter((*operands, *others)))


def of_module(module: Any, *args: Any, **kwargs: Any) -> Step:
    """Inference of a module."""

    def tensors() -> Iterator[Any]:
        yield from module.parameters()
        yield from module.buffers()
        yield from _tensors((args, kwargs))

    return Step(lambda: module(*args, **kwargs), tensors)


def _tensors(value: Any) -> Iterator[Any]:
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
    elif hasattr(value, "untyped_storage"):
        yield value
    elif hasattr(value, "__dict__"):
        yield from _tensors(list(vars(value).values()))


def training(module: Any, optimizer: Any, loss: Callable[[], Any], *inputs: Any) -> Step:
    """One training step: forward, backward, update, gradients set to None."""

    def run() -> Any:
        value = loss()
        value.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return value.detach()

    def tensors() -> Iterator[Any]:
        yield from module.parameters()
        yield from module.buffers()
        for state in optimizer.state.values():
            yield from _tensors(list(state.values()))
        yield from _tensors(inputs)

    return Step(run, tensors)
