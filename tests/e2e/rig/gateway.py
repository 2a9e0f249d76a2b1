"""The gateway under test: its configuration, its process, and the kernel's own FULLNAT as a stand-in.

`Fullnatd` runs the daemon. `KernelNat` does the same job with nftables dnat + snat in the same place: it shows that a
test judges the wire and not the daemon (`pytest --gateway kernel`), and what Linux does with a packet.
"""

import os
import pathlib
import signal
import subprocess
import time

from . import lab as addresses
from .control import Control
from .netns import stop, wait_until
from .servers import DNS_PORT, HTTP_PORT, IPERF_PORT, PEER_PORT

ROOT = pathlib.Path(__file__).resolve().parents[3]


def binary(name):
    """A program of the release build, wherever cargo was told to put it."""
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    return target / "release" / name


def toml(table, path=""):
    """A dict as TOML: scalars and arrays first, then tables, then arrays of tables."""
    lines, rest = [], []
    for key, value in table.items():
        if isinstance(value, dict):
            rest += [f"\n[{path}{key}]", toml(value, f"{path}{key}.")]
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for entry in value:
                rest += [f"\n[[{path}{key}]]", toml(entry, f"{path}{key}.")]
        else:
            lines.append(f"{key} = {_value(value)}")
    return "\n".join(lines + rest)


def _value(value):
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "[" + ", ".join(_value(v) for v in value) + "]"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return str(value)


def real_servers(names, port, table=None):
    """Real servers of one service by name; port 0: the port the client dialled."""
    table = table or addresses.RIPS
    bracket = (lambda a: f"[{a}]") if ":" in next(iter(table.values())) else (lambda a: a)
    return [{"address": f"{bracket(table[name])}:{port}", "weight": 100} for name in names]


def service(name, listen, port, servers=("rs1", "rs2"), table=None, **more):
    """A TCP service with TOA unless said otherwise."""
    listens = listen if isinstance(listen, list) else [listen]
    return {"name": name, "listen": listens if len(listens) > 1 else listens[0], "protocol": "tcp",
            "scheduler": "rr", "local_pool": "lan-pool", "client_address": "toa", **more,
            "real_server": real_servers(servers, port, table)}


def default_services():
    """Every kind of service the tests use: families, protocols, mixed families, the server behind the router."""
    v4, v6, rip6 = addresses.VIP, f"[{addresses.VIP6}]", addresses.RIPS6
    return [
        service("web", f"{v4}:80", HTTP_PORT),
        service("web6", f"{v6}:80", HTTP_PORT, table=rip6),
        service("web64", f"{v6}:8064", HTTP_PORT),
        service("web46", f"{v4}:8046", HTTP_PORT, table=rip6),
        service("web-far", f"{v4}:81", HTTP_PORT, ("rs3",)),
        service("web6-far", f"{v6}:81", HTTP_PORT, ("rs3",), rip6),
        service("web-range", f"{v4}:1010-1019", 1000),
        service("peer", f"{v4}:9000", PEER_PORT),
        service("peer6", f"{v6}:9000", PEER_PORT, table=rip6),
        service("echo", f"{v4}:9000", PEER_PORT, protocol="udp", client_address="none"),
        service("echo6", f"{v6}:9000", PEER_PORT, table=rip6, protocol="udp", client_address="none"),
        service("dns", f"{v4}:53", DNS_PORT, protocol="udp", client_address="none"),
        service("dns6", f"{v6}:53", DNS_PORT, table=rip6, protocol="udp", client_address="none"),
        service("dns-tcp", f"{v4}:53", DNS_PORT),
        service("iperf", f"{v4}:5201", IPERF_PORT, ("rs1",)),
        service("iperf6", f"{v6}:5201", IPERF_PORT, ("rs1",), rip6),
        service("closed", f"{v4}:82", 9, ("rs1",)),
        service("closed-udp", f"{v4}:82", 9, ("rs1",), protocol="udp", client_address="none"),
        {**service("raw", f"{v4}:7000", 7000, client_address="toa"),
         "real_server": [{"address": f"{addresses.RAW_SERVER}:7000", "weight": 1}]},
        {**service("raw6", f"{v6}:7000", 7000, client_address="toa"),
         "real_server": [{"address": f"[{addresses.RAW_SERVER6}]:7000", "weight": 1}]},
        {**service("raw-udp", f"{v4}:7000", 7000, protocol="udp", client_address="none"),
         "real_server": [{"address": f"{addresses.RAW_SERVER}:7000", "weight": 1}]},
        {**service("raw-udp6", f"{v6}:7000", 7000, protocol="udp", client_address="none"),
         "real_server": [{"address": f"[{addresses.RAW_SERVER6}]:7000", "weight": 1}]},
    ]


def af_packet(number, interface, workers):
    return f"net_af_packet{number},iface={interface},framecnt=4096,qdisc_bypass=1,qpairs={workers}"


def config(workers=1, services=None, l4_ports="1024-65535", lips=None, devices=None, **dataplane):
    """A complete configuration for the lab."""
    wan, lan = devices or (af_packet(0, "gw-wan", workers), af_packet(1, "gw-lan", workers))
    return {
        "dataplane": {
            "workers": workers,
            "eal": ["--no-pci", "--no-huge", "-m", "512", f"--file-prefix=fn-{os.getpid()}"],
            "idle": "adaptive",
            "sessions_max": 65536,
            **dataplane,
        },
        "port": [
            {"name": "wan", "device": wan, "addresses": [f"{addresses.WAN}/24", f"{addresses.WAN6}/64"]},
            {"name": "lan", "device": lan, "addresses": [f"{addresses.LAN}/24", f"{addresses.LAN6}/64"]},
        ],
        "route": [
            {"to": "10.3.0.0/24", "via": addresses.ROUTER},
            {"to": "2001:db8:3::/64", "via": addresses.ROUTER6},
        ],
        "local_pool": [{
            "name": "lan-pool", "port": "lan", "l4_ports": l4_ports,
            "addresses": lips or [f"{addresses.LIPS[0]}-{addresses.LIPS[-1]}", *addresses.LIPS6],
        }],
        "service": default_services() if services is None else services,
    }


def end_gateway(lab):
    """The gateway that runs, if one does, ends as it should."""
    if lab.current and lab.current.running():
        lab.current.end()


class Fullnatd:
    """The daemon in the lab's gateway namespace."""

    START_SECONDS = 20

    def __init__(self, lab, settings):
        self.lab, self.settings = lab, settings
        self.socket = lab.directory / "control.sock"
        self.control = Control(self.socket)
        self.log = lab.directory / "fullnatd.log"
        self.process = None
        self.expected_end = False

    def write_config(self):
        path = self.lab.directory / "gateway.toml"
        path.write_text(toml({**self.settings, "control": {"socket": str(self.socket)}}))
        return path

    def start(self):
        path = self.write_config()
        with open(self.log, "wb") as log:
            self.process = self.lab.gateway.start(
                "ip", "netns", "exec", self.lab.gateway.name, binary("fullnatd"), "--config", path,
                stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        wait_until(self._ready, self.START_SECONDS, lambda: f"fullnatd is not ready\n{self.output()}")
        return self

    def _ready(self):
        if self.process.poll() is not None:
            self.expected_end = True
            raise RuntimeError(f"fullnatd ended with status {self.process.returncode}\n{self.output()}")
        return "ready" in self.output().splitlines() and self.control.alive()

    def output(self):
        return self.log.read_text(errors="replace")

    def running(self):
        return self.process is not None and self.process.poll() is None

    def stop(self):
        """SIGTERM; returns (exit status, seconds it took)."""
        self.expected_end = True
        started = time.monotonic()
        return stop(self.process, 5), time.monotonic() - started

    def end(self):
        """SIGTERM, and it ends by itself with status 0. How soon is asked by the test of row M14."""
        status, took = self.stop()
        assert status == 0, f"fullnatd ended with status {status} after {took:.2f} s\n{self.output()}"

    def check_alive(self):
        """Fails, once, if the process ended by itself."""
        if self.process is not None and not self.expected_end and not self.running():
            self.expected_end = True
            raise AssertionError(f"fullnatd ended with status {self.process.returncode} while nobody told it to\n"
                                 f"{self.output()}")

    def kill(self):
        self.expected_end = True
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def macs(self):
        """The MAC address of each port by its name."""
        return {port["name"]: port["mac"] for port in self.control.get("/v1/ports")}

    def fullnatctl(self, *words, check=True):
        return self.lab.gateway.run(binary("fullnatctl"), "--socket", self.socket, *words, check=check)


class KernelNat:
    """nftables dnat + snat in the same namespace, of the same configuration as far as nftables can say it."""

    control = process = None

    def __init__(self, lab, settings):
        self.lab, self.settings = lab, settings
        self.up = False

    def start(self):
        gateway = self.lab.gateway
        self.stop()
        for family in ("ipv4", "ipv6"):
            for scope in ("all", "gw-wan", "gw-lan"):
                if family == "ipv6":
                    gateway.sysctl(f"net.ipv6.conf.{scope}.disable_ipv6", 0)
                gateway.sysctl(f"net.{family}.conf.{scope}.forwarding", 1)
        gateway.add_address("gw-wan", f"{addresses.WAN}/24", f"{addresses.WAN6}/64", addresses.VIP + "/32",
                            addresses.VIP6 + "/128")
        gateway.add_address("gw-lan", f"{addresses.LAN}/24", f"{addresses.LAN6}/64", *addresses.LIPS,
                            *addresses.LIPS6)
        gateway.run("ip", "route", "replace", "10.3.0.0/24", "via", addresses.ROUTER)
        gateway.run("ip", "-6", "route", "replace", "2001:db8:3::/64", "via", addresses.ROUTER6)
        gateway.nft(self._ruleset())
        self.up = True
        return self

    def _ruleset(self):
        rules = [r for s in self.settings["service"] for r in self._service_rules(s)]
        return "\n".join(
            ["table inet nat {", "chain pre { type nat hook prerouting priority dstnat;", *rules, "}",
             "chain post { type nat hook postrouting priority srcnat;",
             f"ip daddr 10.2.0.0/15 oif gw-lan snat ip to {addresses.LIPS[0]}-{addresses.LIPS[-1]}",
             f"ip6 daddr 2001:db8::/32 oif gw-lan snat ip6 to {addresses.LIPS6[0]}-{addresses.LIPS6[-1]}", "}", "}"])

    @staticmethod
    def _service_rules(entry):
        servers = [s["address"].rpartition(":") for s in entry["real_server"]]
        listens = entry["listen"] if isinstance(entry["listen"], list) else [entry["listen"]]
        for listen in listens:
            vip, _, port = listen.rpartition(":")
            six = vip.startswith("[")
            if six != servers[0][0].startswith("["):
                continue
            family = "ip6" if six else "ip"
            bare = lambda a: a.strip("[]")
            choice = ", ".join(f"{n} : {bare(a)} . {p}" for n, (a, _, p) in enumerate(servers))
            yield (f"{family} daddr {bare(vip)} {entry['protocol']} dport {port} "
                   f"dnat {family} to numgen inc mod {len(servers)} map {{ {choice} }}")

    def running(self):
        return self.up

    def check_alive(self):
        pass

    def macs(self):
        return {side: self.lab.gateway.mac(f"gw-{side}") for side in ("wan", "lan")}

    def end(self):
        self.stop()

    def stop(self):
        gateway = self.lab.gateway
        gateway.run("nft", "flush", "ruleset")
        for interface in ("gw-wan", "gw-lan"):
            gateway.run("ip", "address", "flush", "dev", interface)
        self.up = False
        return 0, 0.0
