"""Techniques of other packages: what the example of the docs does, what goes wrong while loading, and the contract."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType

import pytest

from orchard.app.cli import main
from orchard.ir import Graph
from orchard.techniques import TechniqueError, parse_technique
from orchard.techniques.base import GraphPass
from orchard.techniques.cards import load_cards
from orchard.techniques.contract import TechniqueContract
from orchard.techniques.plugins import ENTRY_POINTS, technique_plugins

PAGE = (Path(__file__).parents[2] / "docs" / "techniques.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^```(?:python|toml)\n# ([\w.]+)\n(.*?)^```\n", PAGE, re.MULTILINE | re.DOTALL))


def load(name: str, text: str) -> ModuleType:
    module = ModuleType(name)
    module.__dict__["__file__"] = name
    sys.modules[name] = module
    exec(compile(text, f"{name}.py", "exec"), module.__dict__)
    return module


PLUGIN = FILES["attention_drop.py"]
EXAMPLE = load("attention_drop", PLUGIN)


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    technique_plugins.cache_clear()
    yield
    technique_plugins.cache_clear()


def install(monkeypatch: pytest.MonkeyPatch, **named: str) -> None:
    found = [EntryPoint(name=n.replace("_", "-"), value=v, group=ENTRY_POINTS) for n, v in named.items()]
    monkeypatch.setattr("importlib.metadata.entry_points", lambda *, group: found if group == ENTRY_POINTS else [])


def test_the_example_of_the_page_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert '[project.entry-points."orchard.techniques"]' in FILES["pyproject.toml"]
    name, value = re.findall(r'^([\w-]+) = "(attention_drop:\w+)"', FILES["pyproject.toml"], re.MULTILINE)[0]
    install(monkeypatch, **{name: value})
    command = re.findall(r"^orchard (predict .*attention-drop.*)$", PAGE, re.MULTILINE)[0]
    assert main([*shlex.split(command), "--json"]) == 0
    assert "attention-drop" in capsys.readouterr().out
    assert main(["technique", "list"]) == 0
    listed = capsys.readouterr().out
    assert "> attention-drop" in listed
    assert "attention-drop comes from attention_drop" in listed
    assert main(["technique", "show", "attention-drop"]) == 0
    assert "comes from     attention_drop" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import no_such_module", "cannot be loaded (ModuleNotFoundError: No module named 'no_such_module')"),
        ("AttentionDrop = 3", "is no subclass of GraphPass"),
        (PLUGIN.replace('"attention-drop"', '"rtn"'), "a technique 'rtn' exists already"),
        (PLUGIN.replace('"formula": ', '"formulas": '), "its card has no text 'formula'"),
        (PLUGIN.replace("@dataclass", "#"), "is no dataclass"),
        (PLUGIN.replace("def apply", "def other"), "does not define apply"),
    ],
)  # fmt: skip
def test_a_plugin_that_cannot_be_used_is_a_sentence(
    text: str, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "broken_one.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "broken_one", raising=False)
    install(monkeypatch, attention_drop="broken_one:AttentionDrop")
    assert main(["predict", "qwen3-0.6b", "--chip", "m4", "--apply", "attention-drop"]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert words in err
    assert "orchard.techniques" in err
    assert main(["technique", "show", "attention-drop"]) == 2
    assert words in capsys.readouterr().err
    assert main(["technique", "list"]) == 0
    assert words in " ".join(capsys.readouterr().out.split())
    assert main(["predict", "qwen3-0.6b", "--chip", "m4", "--apply", "rtn:bits=4"]) == 0


def test_a_plugin_that_fails_while_it_applies_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(self: GraphPass, graph: Graph) -> Graph:  # noqa: ARG001
        raise ZeroDivisionError("by nothing")

    monkeypatch.setattr(EXAMPLE.AttentionDrop, "apply", fails)
    install(monkeypatch, attention_drop="attention_drop:AttentionDrop")
    assert main(["predict", "qwen3-0.6b", "--chip", "m4", "--apply", "attention-drop"]) == 2
    assert "attention-drop: the plug-in failed on" in capsys.readouterr().err


TestExample = load("test_attention_drop", FILES["test_attention_drop.py"]).TestAttentionDrop
"""The contract over the example, as the page shows it."""


class TestOwn(TechniqueContract):
    """Own techniques of each stage keep it too."""

    techniques = tuple(
        parse_technique(text)  # type: ignore[misc]
        for text in ("rtn:bits=4,group=32", "palettize:bits=4,group=16", "prune:sparsity=0.75", "kv-quant:bits=8")
    )


def contract_of(cls: type) -> TechniqueContract:
    tests = TechniqueContract()
    tests.techniques = (cls(count=1),)  # type: ignore[misc]
    return tests


@pytest.mark.parametrize(
    ("old", "new", "test", "words"),
    [
        ('raise TechniqueError(f"{self.name}: ', 'raise TechniqueError(f"', "refusals_name_the_reason", "without a reason"),
        ("if len(found) < self.count:", "if False:", "refusals_name_the_reason", "does not refuse"),
        ("[-self.count :]", "[:0]", "something_changes_and_the_interface_does_not", "changes nothing"),
        ("names = {", "names = {", "counts_are_what_they_should_be", "MACs"),
        ('"formula": "macs = macs -', '"formula": "less by', "its_card_is_whole", "equates nothing"),
    ],
)  # fmt: skip
def test_the_contract_finds_what_is_wrong(old: str, new: str, test: str, words: str) -> None:
    assert old in PLUGIN
    text = PLUGIN.replace(old, new)
    if test == "its_card_is_whole":
        text = text.replace("; cache = ", "; cache by ")
    tests = contract_of(load("attention_drop_wrong", text).AttentionDrop)
    with pytest.raises(AssertionError, match=words):
        getattr(tests, f"test_{test}")()


def test_cards_of_plugins_come_last(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, attention_drop="attention_drop:AttentionDrop")
    assert list(load_cards())[-1] == "attention-drop"
    with pytest.raises(TechniqueError, match="did you mean attention-drop"):
        parse_technique("attention-dorp")
