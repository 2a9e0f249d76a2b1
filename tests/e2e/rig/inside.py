"""What the tests of real servers with a receiver share: a receiver, servers in its cgroup, and whom these say they see."""

import contextlib
import ipaddress

import pytest

from .receiver import Receiver, Unavailable, remove_leftovers


@contextlib.contextmanager
def or_skipped():
    """Skips the test where the machine cannot have a receiver."""
    try:
        yield
    except Unavailable as missing:
        pytest.skip(f"no receiver here: {missing}")


@contextlib.contextmanager
def receiver_with(role, servers):
    """A receiver that is not attached, and in its cgroup the servers that `servers(receiver)` starts, each given as its
    namespace and its process as soon as it runs."""
    remove_leftovers()
    with or_skipped():
        receiver = Receiver(role)
    started = []
    try:
        for namespace, process in servers(receiver):
            started.append((namespace, process))
        yield receiver
    finally:
        for namespace, process in started:
            namespace.end(process)
        receiver.close()


def end(address, port):
    """One end, IPv4 in its own form however a socket shows it."""
    if isinstance(address, bytes):
        address = address.decode()
    address = ipaddress.ip_address(address)
    return str(getattr(address, "ipv4_mapped", None) or address), int(port)
