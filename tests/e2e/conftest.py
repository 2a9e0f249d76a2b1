"""Fixtures: the lab lives as long as the test run, a gateway as long as tests ask for the same configuration."""

import shutil
import signal

import pytest

from rig import gateway as gateways
from rig.gateway import end_gateway
from rig.invariants import Watch, check_accounting
from rig.lab import Lab
from rig.netns import remove_leftovers
from rig.wire import Wire


def pytest_addoption(parser):
    parser.addoption("--gateway", choices=["fullnatd", "kernel"], default="fullnatd",
                     help="what forwards: the daemon, or the kernel's nftables FULLNAT as the oracle")


def pytest_configure(config):
    def end(number, frame):
        raise KeyboardInterrupt(f"signal {number}")

    # A run that is told to end tears the lab down as Ctrl-C does.
    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGHUP, end)
    # A shell has its background jobs ignore it, and what they start inherits that: peers are ended by it.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config, items):
    # All tests with one worker, then all with two; within these, all without offloads, then all with: a gateway is
    # started once for each kind, not once for every test.
    def kind(item):
        parameters = item.callspec.params if getattr(item, "callspec", None) else {}
        return parameters.get("workers", 0), parameters.get("offloads", False)

    items.sort(key=kind)
    if config.getoption("--gateway") == "kernel":
        skip = pytest.mark.skip(reason="asks the daemon, not the wire")
        for item in items:
            many = getattr(item, "callspec", None) and item.callspec.params.get("workers") == 2
            if many or item.get_closest_marker("daemon"):
                item.add_marker(skip)


@pytest.fixture(scope="session")
def whole_lab(request):
    remove_leftovers()
    made = Lab()
    made.current = None
    request.addfinalizer(made.close)
    yield made
    end_gateway(made)


@pytest.fixture
def offloads():
    """Whether the peers leave checksums and segmentation to a device; tests choose with `rig.dimensions`."""
    return False


@pytest.fixture
def lab(whole_lab, offloads):
    """The topology. A gateway that ends although the test did not end it fails the test."""
    if whole_lab.offloads != offloads:
        # A running gateway has taken segmentation away from its peers, and they could not be given it back.
        end_gateway(whole_lab)
        whole_lab.set_offloads(offloads)
    yield whole_lab
    if whole_lab.current:
        whole_lab.current.check_alive()


@pytest.fixture
def start(lab, request):
    """`start(config)` gives a running gateway; the one that runs already if it has the same configuration.

    A new one starts among peers without connections, unless it is told not to `forget` them.
    When the test is over the invariants are checked on everything that the gateway sent meanwhile.
    """
    kind = {"fullnatd": gateways.Fullnatd, "kernel": gateways.KernelNat}[request.config.getoption("--gateway")]
    watches = []

    def run(settings, watch=True, forget=True):
        current = lab.current
        if current is not None:
            current.check_alive()
        if current is None or current.settings != settings or not current.running():
            end_gateway(lab)
            if forget:
                lab.forget_connections()
            lab.current = current = kind(lab, settings)
            # Whoever is starting must be seen even by what it sends first.
            if watch:
                watches.append(_watch(lab, current, request))
            current.start()
        elif watch:
            watches.append(_watch(lab, current, request))
        current.watch = watches[-1] if watch else None
        if watch:
            current.watch.learn()
        return current

    yield run
    failed = getattr(request.node, "failed", False)
    for watch in watches:
        if failed:
            watch.stop()
        else:
            watch.check()
    if lab.current:
        lab.current.check_alive()
        if not failed and lab.current.control and lab.current.running():
            check_accounting(lab.current.control)


def _watch(lab, gateway, request):
    node = request.node
    return Watch(lab, gateway, limit=400 if node.get_closest_marker("bulk") else 3000,
                 hairpin=node.get_closest_marker("hairpin") is not None)


@pytest.fixture
def spoil(lab):
    """For a test that changes the running gateway: the next test gets a fresh one."""
    yield
    end_gateway(lab)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.when != "call":
        return
    item.failed = report.failed
    lab = item.funcargs.get("lab")
    current = getattr(lab, "current", None)
    if report.failed and current is not None and hasattr(current, "output"):
        report.sections.append(("fullnatd", current.output()[-4000:]))
        if current.running() and current.control.alive():
            report.sections.append(("drops", str(current.control.drops())))
        keep = gateways.ROOT / "target" / "e2e-failures"
        keep.mkdir(parents=True, exist_ok=True)
        for name in ("gateway.toml", "fullnatd.log"):
            source = lab.directory / name
            if source.exists():
                shutil.copy(source, keep / f"{item.name.replace('/', '_')}-{name}")


@pytest.fixture(params=[1, 2], ids=["1worker", "2workers"])
def workers(request):
    return request.param


@pytest.fixture
def gateway(start, workers):
    """A gateway with the default services."""
    return start(gateways.config(workers))


@pytest.fixture
def wire(gateway, lab):
    made = Wire(lab)
    yield made
    made.close()


@pytest.fixture
def wire6(gateway, lab):
    made = Wire(lab, 6)
    yield made
    made.close()


@pytest.fixture(params=[4, 6], ids=["v4", "v6"])
def any_wire(gateway, lab, request):
    made = Wire(lab, request.param)
    yield made
    made.close()
