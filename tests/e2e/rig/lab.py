"""The topology: one client, one gateway, real servers on a switch, one of them behind a router.

    client --eth0--(br1)--gw-wan-- gateway --gw-lan--(br0)--eth0-- rs1, rs2
                                                     (br0)--eth0-- router --eth1--eth0-- rs3

The two bridges are in one namespace, the switch. Their ports are called `client` and `wan`; `uplink` (the gateway),
`rs1`, `rs2` and `router`.
"""

import pathlib
import shutil
import tempfile

from .netns import Namespace, link, set_offloads, wait_until
from .servers import start_dns, start_iperf, start_nginx, start_peer

CIP, CIP6 = "10.1.0.1", "2001:db8:1::1"
WAN, WAN6 = "10.1.0.254", "2001:db8:1::fe"
VIP, VIP6 = "10.1.0.100", "2001:db8:1::100"
LAN, LAN6 = "10.2.0.254", "2001:db8:2::fe"
LIPS = [f"10.2.0.{n}" for n in range(100, 104)]
LIPS6 = [f"2001:db8:2::{n}" for n in range(100, 104)]
RIPS = {"rs1": "10.2.0.11", "rs2": "10.2.0.12", "rs3": "10.3.0.13"}
RIPS6 = {"rs1": "2001:db8:2::11", "rs2": "2001:db8:2::12", "rs3": "2001:db8:3::13"}
ROUTER, ROUTER6 = "10.2.0.253", "2001:db8:2::fd"
# Addresses for hosts that are not kernels (raw_host).
RAW_CLIENT, RAW_CLIENT6, RAW_CLIENT_MAC = "10.1.0.77", "2001:db8:1::77", "02:00:00:00:01:77"
RAW_SERVER, RAW_SERVER6, RAW_SERVER_MAC = "10.2.0.77", "2001:db8:2::77", "02:00:00:00:02:77"
# The switch: the client's side of the gateway and the real servers'.
BRIDGES = {"br1": ("client", "wan"), "br0": ("uplink", "rs1", "rs2", "router")}
# Every address that must stay on its side of the gateway.
INSIDE = [*LIPS, *LIPS6, *RIPS.values(), *RIPS6.values(), RAW_SERVER, RAW_SERVER6]
OUTSIDE = [CIP, CIP6, RAW_CLIENT, RAW_CLIENT6]


class Lab:
    """The namespaces, the links and the servers; the gateway process comes on top of it."""

    def __init__(self, with_test_servers=True, receiver=None):
        """Without test servers only nginx runs, which is all that a demonstration needs installed; with a `receiver` it
        runs in its cgroup and logs its clients."""
        self.namespaces = []
        self.peers = {}
        self.with_test_servers = with_test_servers
        self.receiver = receiver
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="fullnat-e2e-"))
        self.offloads = None
        try:
            self._build()
        except BaseException:
            self.close()
            raise

    def _namespace(self, role, ipv6=True):
        made = Namespace(role, ipv6)
        self.namespaces.append(made)
        return made

    def _build(self):
        self.client = self._namespace("client")
        # The gateway's kernel must stay out of it: no IPv6 stack that would send of its own accord.
        self.gateway = self._namespace("gateway", ipv6=False)
        self.switch = self._namespace("switch", ipv6=False)
        self.router = self._namespace("router")
        self.servers = {name: self._namespace(name) for name in RIPS}
        link(self.client, "eth0", self.switch, "client")
        link(self.gateway, "gw-wan", self.switch, "wan")
        link(self.gateway, "gw-lan", self.switch, "uplink")
        for name in ("rs1", "rs2", "router"):
            link(getattr(self, name, None) or self.servers[name], "eth0", self.switch, name)
        if pathlib.Path("/proc/sys/net/bridge").exists():
            # Bridges are wires here: nothing is looked at, joined or dropped on the way.
            for family in ("ip", "ip6", "arp"):
                self.switch.sysctl(f"net.bridge.bridge-nf-call-{family}tables", 0)
        for bridge, ports in BRIDGES.items():
            self.switch.run("ip", "link", "add", bridge, "type", "bridge", "forward_delay", 0, "mcast_snooping", 0)
            for port in ports:
                self.switch.run("ip", "link", "set", port, "master", bridge)
            self.switch.run("ip", "link", "set", bridge, "up")
        link(self.router, "eth1", self.servers["rs3"], "eth0")
        self._address()
        self.set_offloads(False)
        for name, namespace in self.servers.items():
            start_nginx(namespace, name, self.directory / name, inside=self.receiver and self.receiver.inside,
                        log=self.receiver is not None)
            if self.with_test_servers:
                self.peers[name] = start_peer(namespace, name)
                start_iperf(namespace)
                start_dns(namespace)

    def _address(self):
        self.client.add_address("eth0", f"{CIP}/24", f"{CIP6}/64")
        # Source ports that tests choose themselves; the kernel must not have given them to anybody else.
        self.client.sysctl("net.ipv4.ip_local_reserved_ports", "50000-51999")
        for name in ("rs1", "rs2"):
            self.servers[name].add_address("eth0", f"{RIPS[name]}/24", f"{RIPS6[name]}/64")
            # For hairpin: a real server reaches the VIP as any client would.
            self.servers[name].run("ip", "route", "add", "default", "via", LAN)
            self.servers[name].run("ip", "-6", "route", "add", "default", "via", LAN6)
        self.router.add_address("eth0", f"{ROUTER}/24", f"{ROUTER6}/64")
        self.router.add_address("eth1", "10.3.0.254/24", "2001:db8:3::fe/64")
        self.router.sysctl("net.ipv4.conf.all.forwarding", 1)
        self.router.sysctl("net.ipv6.conf.all.forwarding", 1)
        self.servers["rs3"].add_address("eth0", f"{RIPS['rs3']}/24", f"{RIPS6['rs3']}/64")
        self.servers["rs3"].run("ip", "route", "add", "default", "via", "10.3.0.254")
        self.servers["rs3"].run("ip", "-6", "route", "add", "default", "via", "2001:db8:3::fe")

    def set_offloads(self, on):
        """Offloads of every end that a frame for the gateway may start from."""
        if self.offloads == on:
            return
        self.offloads = on
        for namespace in (self.client, self.router, *self.servers.values()):
            set_offloads(namespace, "eth0", on)
        set_offloads(self.router, "eth1", on)
        for interface in ("gw-wan", "gw-lan"):
            set_offloads(self.gateway, interface, False)

    def forget_neighbours(self):
        """Empties the kernels' neighbour tables, so that the next packet has to resolve the gateway."""
        for namespace in (self.client, self.router, *self.servers.values()):
            namespace.run("ip", "neigh", "flush", "all", check=False)

    def forget_connections(self):
        """Resets every TCP connection of the peers: what earlier tests left is none of the next gateway's business."""
        for namespace in (self.client, *self.servers.values()):
            namespace.run("ss", "-K", "-t", "-H", "state", "connected", check=False)

    def wait_port_up(self, namespace, interface, seconds=5):
        wait_until(lambda: "LOWER_UP" in namespace.run("ip", "link", "show", interface).stdout, seconds,
                   f"{interface} in {namespace.role}")

    def close(self):
        for namespace in reversed(self.namespaces):
            namespace.delete()
        self.namespaces.clear()
        shutil.rmtree(self.directory, ignore_errors=True)
