"""What may stand between client and server (`lab`): the gateway, and what it is compared with.

fullnatd on net_af_packet and on net_af_xdp, testpmd io on either between the same two ports (no NAT, the limit of the
wire), the kernel's nftables dnat + snat, HAProxy in TCP mode, nginx stream; and no middle at all, the ceiling. Who polls is stopped
by a signal while others are measured; who does not, sleeps.
"""

import contextlib
import os
import subprocess

import lab
import poller
from rig.netns import stop, wait_until
from rig.servers import HTTP_PORT, IPERF_PORT, listening

# The default rings are shorter than the bursts of a bulk transfer, which costs thousands of retransmissions. Those of
# net_af_xdp cannot be made longer: it has 2,048 buffers ready, whatever is asked for.
RING = 4096
DEVICES = {
    "af_packet": f"net_af_packet{{n}},iface={{iface}},framecnt={RING},qdisc_bypass=1",
    "af_xdp": "net_af_xdp{n},iface={iface}",
}
# The ends send no super-frames: their offloads are off.
PORT = "wire_frames = false\nexclusive = true\n"


def devices(driver):
    """The two ports of a place."""
    return [DEVICES[driver].format(n=n, iface=iface) for n, iface in enumerate(("gw-wan", "gw-lan"))]


class Middle:
    """What stands in a place: the address to dial, and who polls there."""

    def __init__(self, where, address, process=None, place=None):
        self.lab, self.address, self.process, self.place = where, address, process, place
        if process:
            self.lab.ends.callback(process.stop)
            process.pause()

    @contextlib.contextmanager
    def awake(self):
        """Runs, is warm, and has nothing under way when it is stopped again; gives the address."""
        if self.process:
            self.process.check_alive()
            self.process.resume()
        try:
            self.lab.warm_up(self.address)
            yield self.address
            self.lab.drain(self.address)
        finally:
            if self.process:
                self.process.pause()


def direct(where):
    """No middle."""
    return Middle(where, lab.DIRECT)


def fullnatd(where, driver, client_address="none"):
    """The gateway."""
    place = where.add_place()
    name = f"fullnatd-{driver}-{place.number}"
    gateway = poller.Gateway(where.directory, gateway_toml(place, driver, name, client_address), name, place.space)
    return Middle(where, place.vip, gateway, place)


def gateway_toml(place, driver, name, client_address):
    """Control beside the endpoints, where it sleeps; the worker has the middle's core to itself."""
    where = place.lab
    ports = "".join(
        f'[[port]]\nname = "{port}"\ndevice = "{device}"\naddresses = ["{address}/24"]\n{PORT}'
        for port, device, address in zip(("wan", "lan"), devices(driver), (place.wan, place.lan)))
    listens = [("tcp", HTTP_PORT, client_address), ("tcp", IPERF_PORT, client_address), ("tcp", lab.PROXIED_PORT, "proxy-v2"),
               *([("udp", where.udp_port, "none")] if where.udp_port else [])]
    services = "".join(
        f'[[service]]\nname = "s{port}"\nlisten = "{place.vip}:{port}"\nprotocol = "{protocol}"\nscheduler = "rr"\n'
        f'local_pool = "pool"\nclient_address = "{named}"\n[[service.real_server]]\naddress = "{place.real_server}:{port}"\n'
        for protocol, port, named in listens)
    return (
        f'[dataplane]\nworkers = 1\nworker_cores = [{where.polls}]\ncontrol_core = {where.controls}\nidle = "poll"\n'
        f'eal = ["--no-pci", "--no-huge", "-m", "512", "--file-prefix=fn-{os.getpid()}-{name}"]\n'
        f'sessions_max = 1000000\nrx_ring = {RING}\ntx_ring = {RING}\n[control]\nsocket = "@SOCKET@"\n{ports}'
        f'[[local_pool]]\nname = "pool"\nport = "lan"\naddresses = ["{place.local_range}"]\n{services}')


def testpmd(where, driver):
    """Frames from one port to the other."""
    place = where.add_place()
    eal = ["--no-pci", "--no-huge", "-m", "512", f"--file-prefix=fn-{os.getpid()}-testpmd-{place.number}", "--lcores",
           f"0@{where.controls},1@{where.polls}", *(f"--vdev={device}" for device in devices(driver))]
    process = poller.Testpmd(where.directory, "io", eal, ["--nb-cores=1", "--total-num-mbufs=32768", "--no-flush-rx"],
                             place.space)
    return Middle(where, place.bridged, process)


def _in_kernel(where):
    """A place whose addresses the kernel's own stack has."""
    place = where.add_place()
    place.space.add_address("gw-wan", f"{place.wan}/24", f"{place.vip}/32")
    place.space.add_address("gw-lan", f"{place.lan}/24")
    place.space.sysctl("net.ipv4.ip_local_port_range", "1024 65535")
    place.space.sysctl("net.ipv4.tcp_tw_reuse", 1)
    return place


def nftables(where):
    """The kernel's NAT."""
    place = _in_kernel(where)
    place.space.sysctl("net.ipv4.conf.all.forwarding", 1)
    place.space.nft(
        "table ip nat {\nchain pre { type nat hook prerouting priority dstnat;\n"
        f"ip daddr {place.vip} dnat to {place.real_server}\n}}\nchain post {{ type nat hook postrouting priority srcnat;\n"
        f"oif gw-lan snat to {place.lan}\n}}\n}}")
    return Middle(where, place.vip)


def haproxy(where):
    """Connections of its own, copied by the kernel's sockets."""
    place = _in_kernel(where)
    sections = "".join(f"listen s{port}\n bind {place.vip}:{port}\n server s {place.real_server}:{port}\n"
                       for port in (HTTP_PORT, IPERF_PORT))
    config = where.directory / "haproxy.cfg"
    # Without `maxconn` it takes what the limit of open files allows; more than that it refuses to start with.
    config.write_text("global\n nbthread 1\ndefaults\n mode tcp\n timeout connect 5s\n"
                      f" timeout client 60s\n timeout server 60s\n{sections}")
    return _proxy(place, "haproxy", "-db", "-f", config)


def nginx_stream(where):
    """As HAProxy."""
    place = _in_kernel(where)
    servers = "".join(f" server {{ listen {place.vip}:{port} backlog=4096; proxy_pass {place.real_server}:{port}; }}\n"
                      for port in (HTTP_PORT, IPERF_PORT))
    config = where.directory / "stream.conf"
    config.write_text(
        "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\ndaemon off; master_process off;\n"
        f"pid {where.directory}/stream.pid; error_log {where.directory}/stream.log;\n"
        f"events {{ worker_connections 20000; }}\nstream {{\n{servers}}}\n")
    return _proxy(place, "nginx", "-p", where.directory, "-c", config)


def _proxy(place, *argv):
    """A program on the middles' core alone, once it listens."""
    where = place.lab
    log = where.directory / f"{argv[0]}.log"
    with open(log, "wb") as out, lab.pinned(where.polls):
        process = place.space.start(*argv, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)
    where.ends.callback(stop, process, 5)

    def ready():
        if process.poll() is not None:
            raise RuntimeError(f"{argv[0]} ended with {process.returncode}\n{log.read_text()[-2000:]}")
        return listening(place.space, HTTP_PORT)

    wait_until(ready, 10, f"{argv[0]} does not listen")
    return Middle(where, place.vip)


MIDDLES = {
    "fullnatd af_packet": lambda where: fullnatd(where, "af_packet"),
    "testpmd af_packet": lambda where: testpmd(where, "af_packet"),
    "fullnatd af_xdp": lambda where: fullnatd(where, "af_xdp"),
    "testpmd af_xdp": lambda where: testpmd(where, "af_xdp"),
    "nftables": nftables,
    "HAProxy": haproxy,
    "nginx stream": nginx_stream,
    "direct veth": direct,
}
