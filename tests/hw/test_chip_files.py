"""Chips in the user's own YAML: variants of a catalogue chip, complete descriptions, own engines, and hostile input."""

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchard.hw import HardwareError, load_chip


@pytest.fixture
def chip_file(tmp_path):
    def write(text, name="mine.yaml"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def test_a_variant_of_a_catalogue_chip(chip_file):
    path = chip_file("""
        base: M4 Max
        name: M4 Max with more of everything
        gpu: {cores: 60}
        gpu.clock: 2GHz
        dram:
          bandwidth: {value: 800, unit: GB/s, source: my data sheet, kind: vendor, note: HBM}
    """)
    soc = load_chip(path)
    assert (soc.id, soc.name, soc.base) == ("mine", "M4 Max with more of everything", "M4 Max")
    assert soc["gpu.fp16"] == pytest.approx(60 * 256 * 2e9)
    assert soc["dram.bandwidth"] == 800e9
    figure = soc.figure("dram.bandwidth")
    assert (figure.source, figure.kind, figure.note) == ("my data sheet", "vendor", "HBM")
    assert soc.figure("gpu.cores").source == "mine.yaml"
    assert soc["ane.clock"] == load_chip("m4max")["ane.clock"]
    assert load_chip(str(path), ["gpu.cores=10"])["gpu.cores"] == 10


COMPLETE = """
name: Board
cpu: {p: {cores: 4, clusters: 1, clock: 2GHz, neon_fma_pipes: 2}, neon: {width: 128bit}}
gpu: {cores: 8, clock: 1GHz, fp32_flop_core_cycle: 256, fp16_flop_core_cycle: 512}
dram: {bandwidth: 50GB/s, capacity: 16GiB}
engines:
  npu:
    dispatch: 50us
    tree:
      - memory: {name: dram, size: 16GiB, read: 50GB/s, energy: 40pJ/B}
      - memory: {name: sram, size: 4MiB, read: 1TB/s, write: 500GB/s, energy: 1pJ/B}
      - fanout: {name: cores, count: 16}
      - compute: {name: mac, rates: {int8: 2TOPS, f16: 1TFLOPS}, ops: [matmul, conv], align: 64, max_dim: 16384}
      - compute: {name: vector, rates: {f32: 100GFLOPS}}
"""


def test_a_complete_description_with_an_own_engine(chip_file):
    soc = load_chip(chip_file(COMPLETE))
    assert set(soc.engines) == {"cpu", "gpu", "npu"}
    assert soc["cpu.neon.fp32"] == 4 * 2 * 4 * 2 * 2e9
    assert soc["gpu.fp16"] == 8 * 512 * 1e9
    assert soc.dram.gpu_limit_bytes == 16 * 2**30
    assert soc.matrix is None
    npu = soc.engine("npu")
    assert npu.peak("int8") == 32e12
    assert npu.peak("f32") == 1.6e12
    assert npu.dispatch_s == pytest.approx(50e-6)
    assert npu.memory("sram").write_bytes_per_s == 500e9
    with pytest.raises(HardwareError, match="mine has no Neural Engine; choose another engine"):
        _ = soc.ane


def test_everything_that_is_missing_is_named_at_once(chip_file):
    known = "cores: 16, engines: 1, clock: 1GHz, fp16_op_core_cycle: 256MAC, operand_limit: 2MiB"
    soc = load_chip(chip_file(f"ane: {{{known}}}"))
    assert soc["ane.fp16"] == 16 * 512 * 1e9
    with pytest.raises(HardwareError) as caught:
        _ = soc.ane
    assert str(caught.value) == (
        "mine: these figures are not known: ane.int8_op_core_cycle, ane.weight_bandwidth, ane.activation_bandwidth, "
        "ane.dispatch, ane.kernel_buffer, ane.max_dim, ane.align; state them, for example "
        "--set ane.int8_op_core_cycle=256FLOP"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "got nothing at the top, expected keys such as base, name, gpu, dram"),
        ("- 1", "got a list at the top"),
        ("hello", "got a str at the top"),
        ("a: [1, 2\nb: 3", "not valid YAML at line 2"),
        ("\x00\x01", "not valid YAML"),
        ("gpu: {cores: 1}\ngpu: {cores: 2}", "not valid YAML at line 2 (the key 'gpu' is there twice)"),
        ("gpu: {cores: 1, cores: 2}", "the key 'cores' is there twice"),
        ("gpu: {cores: 1}\ngpu.cores: 2", "gpu.cores is stated twice"),
        ("a: &a [x]\nb: [*a, *a]", "line 1 uses a YAML anchor or alias"),
        ("gppu: {cores: 1}", "the key 'gppu' is not known; did you mean gpu or cpu?"),
        ("base: m4max\ngpu: {core: 1}", "gpu.core: no figure has this name; did you mean gpu.cores"),
        ("base: m4max\ngpu: 7", "gpu: got 7, expected figures below it such as gpu.cores"),
        ("base: m4mux", "base: chip 'm4mux' is not known; did you mean m4max"),
        ("base: [m4max]", "base is ['m4max'], expected a catalogue id"),
        ("base: m4max\ngpu: {cores: .nan}", "gpu.cores: got nan, expected a finite number"),
        ("base: m4max\ngpu: {cores: -1}", "expected > 0"),
        ("base: m4max\ngpu: {cores: true}", "gpu.cores: got True, expected a quantity"),
        ("base: m4max\ngpu: {cores: [1]}", "gpu.cores: got [1], expected GPU cores"),
        ("base: m4max\ngpu: {cores: 2026-01-01}", "gpu.cores: got datetime.date"),
        ("base: m4max\ngpu: {clock: {value: 1.4, unit: GB}}", "gpu.clock: unit 'GB' does not fit, expected"),
        ("base: m4max\ngpu: {clock: {value: 1.4, unit: count}}", "gpu.clock: got 1.4 Hz, expected maximum GPU clock"),
        ("base: m4max\ngpu: {clock: {value: 1e400, unit: GHz}}", "gpu.clock"),
        ("base: m4max\ngpu: {clock: {value: 1.4, unit: GHz, colour: red}}", "the key 'colour' is not known"),
        ("base: m4max\ngpu: {clock: {value: 1.4, unit: GHz, kind: guess}}", "kind is 'guess', expected one of vendor"),
        ("base: m4max\nname: [x]", "name is ['x'], expected a short text"),
        ("engines: {npu: {tree: 1}}", "engines.npu.tree: expected a list"),
        ("engines: {gpu: {tree: []}}", "engines.gpu: this name is taken"),
        ("engines: {npu: {tree: [{cache: 1}, 2]}}", "tree[1]: got 2, expected one of memory, fanout, compute"),
        ("engines: {npu: {tree: [{memory: {name: a}}, {compute: {name: b, rates: {f16: 1}}}]}}", "size is missing"),
        ("engines: {npu: {tree: [{memory: {name: a, size: 1KiB, sise: 2}}, {compute: {name: b, rates: {f16: 1}}}]}}",
         "the key 'sise' is not known; did you mean size?"),
        ("engines: {npu: {tree: [{compute: {name: b, rates: {f16: 1}}}, {memory: {name: a, size: 1KiB}}]}}",
         "a compute entry stands above a memory"),
        ("engines: {npu: {tree: [{fanout: {name: b, count: 2}}, {compute: {name: b, rates: {f16: 1}}}]}}",
         "the first entry is no memory"),
        ("engines: {npu: {tree: [{memory: {name: a, size: 1GB/s}}, {compute: {name: b, rates: {f16: 1}}}]}}",
         "tree[0].size: got '1GB/s', which is in byte/s, expected in byte"),
    ],
)  # fmt: skip
def test_refusals_are_one_sentence_that_starts_with_the_file(chip_file, text, message):
    path = chip_file(text)
    with pytest.raises(HardwareError) as caught:
        load_chip(path)
    sentence = str(caught.value)
    assert message in sentence
    assert sentence.startswith(str(path))
    assert "\n" not in sentence
    assert len(sentence) - len(str(path)) < 250


def test_hostile_files(chip_file, tmp_path):
    bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "\n".join(
        f"{n}: &{n} [{','.join(['*' + p] * 9)}]" for p, n in zip("abcdefgh", "bcdefghi")
    )
    cases = {
        bomb: "anchor or alias",
        "[" * 17 + "]" * 17: "is nested more than 16 deep",
        "[" * 100_000: "not valid YAML at line 1 (exceeded maximum nesting depth)",
        "a: " + "x" * (2 << 20): "expected a chip file of at most 1,048,576",
        "a:\n" + " - 1\n" * 200_000: "more than 100,000 entries",
        b"\xff\xfe\x00": "not UTF-8 text",
        "a: !!python/object/apply:os.system ['true']": "not valid YAML",
        "? [a, b]\n: 1": "not",
    }  # fmt: skip
    for text, message in cases.items():
        with pytest.raises(HardwareError) as caught:
            load_chip(chip_file(text))
        assert message in str(caught.value)
    for path, message in ((tmp_path / "none.yaml", "does not exist"), (tmp_path / "x.yaml", "is no regular file")):
        if path.name == "x.yaml":
            os.mkdir(path)
        with pytest.raises(HardwareError, match=message):
            load_chip(path)
    with pytest.raises(HardwareError):
        load_chip("/" + "x" * 5000 + ".yaml")
    with pytest.raises(HardwareError):
        load_chip("a\0b.yaml")


_LEAF = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
_TREE = st.recursive(
    _LEAF, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["gpu", "dram", "cpu", "engines", "base", "name", "gpu.cores", "dram.type", "note"]), _TREE)
def test_any_value_anywhere_is_a_chip_or_a_hardware_error(tmp_path_factory, key, value):
    import yaml

    path = tmp_path_factory.mktemp("any") / "chip.yaml"
    path.write_text(yaml.safe_dump({"base": "m1", key: value}, allow_unicode=False))
    try:
        soc = load_chip(path)
    except HardwareError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert soc.base in (None, "m1")
