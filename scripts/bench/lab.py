"""Client and server with real stacks, and between them a place for every middle.

    client --wan1--gw-wan-- middle 1 --gw-lan--lan1-- server
    client --wan2--gw-wan-- middle 2 --gw-lan--lan2-- server        (and client --direct--direct-- server)

Client and server on one core, the middles on the other. All places are alike: a namespace between two veth pairs of its
own, offloads off at every end. So middles stay alive while others are measured, which they are in short turns: a machine
whose speed changes for minutes changes it for all of them.
"""

import contextlib
import os
import pathlib
import re
import subprocess
import tempfile
import time

import machine
import poller  # noqa: F401  (makes the rig of the end-to-end tests importable)
from rig.netns import Namespace, link, set_offloads, wait_until
from rig.servers import HTTP_PORT, start_iperf, start_nginx

# The pair without a middle.
DIRECT = "10.8.0.11"
# Where nginx expects a PROXY protocol header, which fullnatd sends there.
PROXIED_PORT = 8081
LISTEN = f"listen {HTTP_PORT} backlog=4096; listen {PROXIED_PORT} backlog=4096 proxy_protocol;"
# Segments that a receiver had already, acknowledged or out of order, which it tells the sender.
DUPLICATES = ("TcpExtTCPDSACKOldSent", "TcpExtTCPDSACKOfoSent")
# What a middle is asked for before it is measured: caches, neighbours.
WARM_UP_SECS = 0.1


class Place:
    """Where one middle stands. `bridged`: the server's address in one subnet from end to end, for who does no NAT."""

    def __init__(self, lab, number):
        self.lab, self.number = lab, number
        self.wan, self.vip = f"10.1.{number}.254", f"10.1.{number}.100"
        self.lan, self.real_server, self.bridged = f"10.2.{number}.254", f"10.2.{number}.11", f"10.9.{number}.11"
        # Four local addresses, as a range and as a prefix.
        self.local_range, self.local_prefix = f"10.2.{number}.100-10.2.{number}.103", f"10.2.{number}.100/30"
        self.space = lab.add_space(f"middle{number}")
        for end, end_name, name, addresses in (
                (lab.client, f"wan{number}", "gw-wan", (f"10.1.{number}.1/24", f"10.9.{number}.1/24")),
                (lab.server, f"lan{number}", "gw-lan", (f"{self.real_server}/24", f"{self.bridged}/24"))):
            link(end, end_name, self.space, name)
            set_offloads(end, end_name, False)
            set_offloads(self.space, name, False)
            end.add_address(end_name, *addresses)


class Lab:
    """Client, server and places. Whatever runs in it is entered into `ends` and leaves with it."""

    def __init__(self, directory, udp_port=None, inside=None):
        """With `udp_port`, gateways serve UDP there too; `inside`: what makes nginx run elsewhere (`start_nginx`)."""
        self.udp_port = udp_port
        self.polls, self.controls = machine.cores()
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="lab-", dir=directory))
        self.ends = contextlib.ExitStack()
        self.places = 0
        try:
            self._build(inside)
        except BaseException:
            self.close()
            raise

    def _build(self, inside):
        self.client, self.server = self.add_space("client"), self.add_space("server")
        link(self.client, "direct", self.server, "direct")
        for space in (self.client, self.server):
            set_offloads(space, "direct", False)
        self.client.add_address("direct", "10.8.0.1/24")
        self.server.add_address("direct", f"{DIRECT}/24")
        self.client.sysctl("net.ipv4.ip_local_port_range", "1024 65535")
        self.client.sysctl("net.ipv4.tcp_tw_reuse", 1)
        with pinned(self.controls):
            start_nginx(self.server, "server", self.directory / "nginx", listen=LISTEN, inside=inside)
            start_iperf(self.server)

    def add_space(self, role):
        """A namespace that goes with the lab."""
        made = Namespace(role, ipv6=False)
        self.ends.callback(made.delete)
        return made

    def add_place(self):
        """A place that nobody stands in yet."""
        self.places += 1
        return Place(self, self.places)

    def at_ends(self, *argv, timeout, **options):
        """Runs a program of the client on the core of the two ends; its output."""
        with pinned(self.controls):
            return self.client.run(*argv, timeout=timeout, **options).stdout

    def warm_up(self, address):
        """Requests until one is answered, then for a while."""
        with pinned(self.controls):
            wait_until(lambda: self._answered(address), 10, f"nothing comes through to {address}")
            until = time.monotonic() + WARM_UP_SECS
            while time.monotonic() < until:
                self._answered(address)

    def _answered(self, address):
        try:
            with self.client.connect(address, HTTP_PORT, timeout=1) as connection:
                connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
                return connection.recv(4096).startswith(b"HTTP/")
        except OSError:
            return False

    def drain(self, address):
        """Waits until no connection to this address is under way: it would be sent again, and counted, in another's turn."""
        def under_way():
            return self.client.run("ss", "-Htn", "state", "connected", "exclude", "time-wait", "dst", address).stdout

        wait_until(lambda: not under_way(), 10, lambda: f"connections stay:\n{under_way()}")

    def segments(self):
        """TCP segments that client and server have sent again so far, and those that they had got before."""
        counters = [space.counters("TcpRetransSegs", *DUPLICATES) for space in (self.client, self.server)]
        again = sum(space.pop("TcpRetransSegs") for space in counters)
        return again, sum(sum(space.values()) for space in counters)

    def close(self):
        """Ends everything in here."""
        self.ends.close()


@contextlib.contextmanager
def opened(*arguments, **options):
    """A lab for a while."""
    lab = Lab(*arguments, **options)
    try:
        yield lab
    finally:
        lab.close()


@contextlib.contextmanager
def pinned(core):
    """What is started in here runs on this core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
