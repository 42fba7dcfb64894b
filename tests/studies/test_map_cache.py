"""The cache of mappings: the same answer back, nothing believed that is broken, no harm from parallel and killed writers."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from orchard.hw.arch import load_arch
from orchard.mapping.ops import parse_op
from orchard.studies import map_many
from orchard.studies.map_cache import MappingCache, Question, default_folder
from orchard.studies.map_many import solve, solve_all

TINY = "gemm:m=8,k=8,n=8"


def question(text: str = TINY, **changes: object) -> Question:
    return replace(Question(parse_op(text), load_arch("E16"), "edp"), **changes)  # type: ignore[arg-type]


@pytest.fixture
def cache(tmp_path: Path) -> MappingCache:
    return MappingCache(tmp_path / "mappings")


def test_the_same_answer_comes_back(cache: MappingCache) -> None:
    asked = question()
    mapped, stored = solve(asked, cache)
    again, from_cache = solve(asked, cache)
    assert (stored, from_cache) == (False, True)
    assert again == mapped


def test_what_an_answer_depends_on_is_in_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = question()
    problem = asked.problem
    others = [
        question("gemm:m=8,k=8,n=16"),
        replace(asked, objective="latency"),
        replace(asked, factors="imperfect"),
        replace(asked, time_limit_s=1.0),
        replace(asked, gap=0.1),
        replace(asked, arch=replace(asked.arch, word_bits=8)),
        replace(asked, arch=load_arch("T128")),
        replace(asked, problem=replace(problem, bits={"B": 4.5})),
        replace(asked, problem=replace(problem, resident=frozenset("A"))),
    ]
    keys = [asked.key, *(q.key for q in others)]
    assert len(set(keys)) == len(keys)
    assert replace(asked, problem=replace(problem, name="another")).key == asked.key
    monkeypatch.setattr("orchard.studies.map_cache.code_version", lambda: "another version")
    assert question().key not in keys


def test_keys_are_the_same_in_another_process() -> None:
    code = (
        "from orchard.hw.arch import load_arch; from orchard.mapping.ops import parse_op\n"
        "from orchard.studies.map_cache import Question\n"
        f"print(Question(parse_op('{TINY}'), load_arch('E16'), 'edp').key)"
    )
    env = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": os.pathsep.join(sys.path)}
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env).stdout
    assert out.strip() == question().key


def damage(text: str) -> list[str]:
    """An entry cut short, emptied, of another kind, with another nest, value, bound, name."""
    data = json.loads(text)
    nest = [n if n[0] == "keep" else [*n[:2], 1, n[3]] for n in data["nest"]]
    changed = [{"nest": nest}, {"value": data["value"] * 0.5}, {"bound": data["value"] * 2}, {"key": "0" * 64}]
    changed += [{"nest": [["keep", "GLB", "nothing"]]}, {"nest": 5}, {"format": "other"}]
    return ["", text[: len(text) // 2], "[]", "null", '{"format":', *(json.dumps(data | c) for c in changed)]


def test_a_broken_entry_counts_as_none_and_is_written_again(cache: MappingCache) -> None:
    asked = question()
    mapped, _ = solve(asked, cache)
    path = cache.path(asked.key)
    whole = path.read_text()
    for text in damage(whole):
        path.write_text(text)
        assert cache.get(asked) is None, text[:80]
    path.write_bytes(b"\xff\xfe\x00")
    again, from_cache = solve(asked, cache)
    assert not from_cache
    assert again.value == mapped.value
    assert cache.get(asked) == replace(mapped, search_s=again.search_s)


def test_a_folder_that_cannot_be_written_costs_only_time(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("in the way")
    cache = MappingCache(file)
    assert solve(question(), cache)[1] is False
    assert solve(question(), cache)[1] is False


def test_trim_keeps_the_newest_and_clear_touches_only_its_own(cache: MappingCache) -> None:
    keys = []
    for n in (2, 4, 8):
        asked = question(f"gemm:m={n},k=2,n=2")
        solve(asked, cache)
        keys.append(asked.key)
        os.utime(cache.path(asked.key), (1000 + n, 1000 + n))
    orphan = cache.path(keys[2]).with_name(".deadbeef.1.aa.tmp")
    orphan.write_text("half")
    os.utime(orphan, (1, 1))
    mine = cache.folder / "notes.json"
    mine.write_text("keep")
    assert cache.trim(most=2) == 2
    assert [cache.path(k).exists() for k in keys] == [False, True, True]
    assert not orphan.exists()
    assert cache.clear() == 2
    assert mine.exists()


def test_answers_do_not_depend_on_workers_or_cache(cache: MappingCache) -> None:
    asked = [question(f"gemm:m={m},k=4,n={n}") for m in (4, 8) for n in (4, 8, 4)]
    alone = solve_all(asked, None, workers=1)
    together = solve_all(asked, cache, workers=2)
    third = solve_all(asked, cache, workers=2)
    assert (together.from_cache, third.from_cache) == (0, 4)
    for q in asked:
        values = {(a.of(q).value, a.of(q).nest) for a in (alone, together, third)}  # type: ignore[union-attr]
        assert len(values) == 1


def _store(folder: str, seconds: float) -> None:
    cache, mapped = MappingCache(Path(folder)), {}
    for n in (2, 4):
        asked = question(f"gemm:m={n},k=2,n=2")
        mapped[n] = (asked, map_many.map_op(asked.problem, asked.arch, "edp"))
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for asked, answer in mapped.values():
            cache.put(asked, answer)
            assert cache.get(asked) is not None, "a reader saw half an entry"


def test_writers_of_one_entry_in_parallel_and_killed_at_any_time(cache: MappingCache) -> None:
    """Six processes write the same two entries; four are killed without warning; readers never see half an entry."""
    context = multiprocessing.get_context("spawn" if sys.platform == "darwin" else "fork")
    for _ in range(2):
        workers = [context.Process(target=_store, args=(str(cache.folder), 1.2)) for _ in range(3)]
        for worker in workers:
            worker.start()
        time.sleep(0.5)
        for delay, worker in enumerate(workers[:2]):
            time.sleep(0.05 * delay)
            assert worker.pid is not None
            os.kill(worker.pid, signal.SIGKILL)
        for worker in workers:
            worker.join()
        assert workers[2].exitcode == 0
        assert cache.get(question("gemm:m=2,k=2,n=2")) is not None
        assert cache.get(question("gemm:m=4,k=2,n=2")) is not None


def test_the_folder_follows_the_system(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "orchard" / "mappings"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_folder() == tmp_path / ".cache" / "orchard" / "mappings"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert default_folder() == tmp_path / "Library" / "Caches" / "orchard" / "mappings"
