"""The quick ones of the networks that benchmarks/importers/networks.py holds to published sizes, on three of the routes."""

import pytest

pytest.importorskip("torch")

pytestmark = pytest.mark.filterwarnings("ignore")
ROUTES = {"torch": "torch", "onnx": "onnxscript", "coreml": "coremltools", "coreai": "coreai_torch"}


@pytest.fixture(scope="module", params=["squeezenet-1.1"])
def network(request, networks):
    case = networks.CASES[request.param]
    net, x = networks.build(case), networks.examples(case.inputs)
    return case, net, x, networks.measure("torch", net, x)


def test_products_and_parameters_are_the_published_ones(networks, network):
    case, net, _, found = network
    assert networks.within(found["macs"] / 1e9, case.gmacs)
    assert networks.within(found["params"] / 1e6, case.params_m)
    assert found["params"] == sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize("route", ["coreml", "coreai"])  # onnx: test_same_network
def test_every_route_has_the_same_products_and_bytes(networks, network, route):
    pytest.importorskip(ROUTES[route])
    _, net, x, reference = network
    found = networks.measure(route, net, x)
    assert found["macs"] == reference["macs"]
    assert found["bytes"] == pytest.approx(reference["bytes"], rel=0.02)


def test_the_record_holds_what_is_claimed(networks):
    """networks.jsonl: published figures within 1 %, the same products on every route; what is open is in DIFFERS."""
    rows = networks.read_rows(networks.HERE / "networks.jsonl")
    sourced = [n for n, case in networks.CASES.items() if case.source and (n, "torch") in rows]
    for name in sourced:
        case, row = networks.CASES[name], rows[name, "torch"]
        assert networks.within(row["params"] / 1e6, case.params_m), name
        assert not case.gmacs or networks.within(row["macs"] / 1e9, case.gmacs), name
    assert len(sourced) >= 25
    differs = set()
    for (name, route), row in rows.items():
        if "macs" in row and route in networks.ROUTES:
            reference = rows[name, "torch"]
            if row["macs"] != reference["macs"] or abs(row["bytes"] / reference["bytes"] - 1) > 0.02:
                differs.add((name, route))
    assert differs == set(networks.DIFFERS)
    assert len({row["commit"] for row in rows.values()}) == 1, "the record is one run"
