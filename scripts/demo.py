#!/usr/bin/python3
"""What scripts/demo.sh shows once everything is installed and built. Run it through that script.

The lab is that of the end-to-end tests (tests/e2e/rig). What stands on the wire at a real server is read from a capture at
its interface with scapy, a parser that the gateway does not share a line with. Whom its nginx takes for the client is what
that nginx has logged: with the receiver (fullnat-toa), attached to a cgroup made for the demonstration, the client itself.
"""

import ipaddress
import os
import pathlib
import signal
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "e2e"))

from rig.capture import Capture  # noqa: E402
from rig.frames import IP, TCP, IPv6, toa_of  # noqa: E402
from rig.gateway import Fullnatd, binary, config, default_services, real_servers  # noqa: E402
from rig.invariants import check_accounting  # noqa: E402
from rig.lab import LIPS, LIPS6, VIP, VIP6, Lab  # noqa: E402
from rig import receiver as receivers  # noqa: E402
from rig.netns import remove_leftovers, wait_until  # noqa: E402
from rig.receiver import Receiver, Unavailable  # noqa: E402
from rig.servers import DUAL_PORT  # noqa: E402

WRK_SECONDS = 10
TTY = sys.stdout.isatty()
BOLD, GREEN, RED, PLAIN = ("\033[1m", "\033[32m", "\033[31m", "\033[0m") if TTY else ("",) * 4

# (what it shows, URL, local addresses that may reach the real server)
REQUESTS = [
    ("IPv4", f"http://{VIP}/", LIPS),
    ("IPv6", f"http://[{VIP6}]/", LIPS6),
    ("IPv6 -> IPv4", f"http://[{VIP6}]:8064/", LIPS),
    ("IPv4 -> IPv6", f"http://{VIP}:8046/", LIPS6),
]


class Wrong(Exception):
    """Something was not as it should be."""


def say(text):
    print(f"{BOLD}==>{PLAIN} {text}", flush=True)


def check(good, text):
    if not good:
        raise Wrong(text)


def endpoint(address, port):
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def handshake_end(capture, match):
    """The client's last segment of the handshake as it came to the real server: (source, whom TOA names)."""
    def last(packet):
        return TCP in packet and packet[TCP].flags == "A" and match(packet)
    packet = capture.wait_for(last, 3, "the end of the handshake")
    return source_of(packet), toa_of(packet)


def source_of(packet):
    return packet[IPv6 if IPv6 in packet else IP].src, packet[TCP].sport


def request(lab, captures, shows, url, lips):
    """One HTTP request, and what each side knows of it."""
    done = lab.client.run("curl", "-sS", "--max-time", 5, "-w", "%{local_ip} %{local_port}", url)
    answer, client = done.stdout.splitlines()
    server, seen = answer.split(" ", 1)
    address, port = client.split()
    client = address, int(port)
    if lab.receiver:
        source, named = handshake_end(captures[server], lambda packet: toa_of(packet) == client)
        logged = f"\n  {'':<13} its nginx logged \"{log_line(lab, server, seen)}\""
        check(plain(seen) == client, "nginx did not see the client")
    else:
        source, named = handshake_end(captures[server], lambda packet: source_of(packet) == plain(seen))
        logged = ""
    print(f"  {shows:<13} client {endpoint(*client)} asked {url}\n"
          f"  {'':<13} {server} answered; on the wire it saw {endpoint(*source)}, "
          f"and TOA named {endpoint(*named) if named else 'nobody'}{logged}", flush=True)
    check(source[0] in lips, f"{source[0]} is no local address of the gateway")
    check(named == client, "TOA did not name the client")
    return server


def plain(seen):
    """Address and port as nginx writes them; an IPv4 client of an IPv6 socket in its own form."""
    address, port = seen.split()
    address = ipaddress.ip_address(address)
    return str(getattr(address, "ipv4_mapped", None) or address), int(port)


def log_line(lab, server, seen):
    """The line that nginx has written about a request, which it does when it has answered."""
    log = lab.directory / server / "access.log"
    wait_until(lambda: seen in log.read_text().splitlines(), 3, f"{seen} in the log of nginx in {server}")
    return seen


def requests(lab):
    captures = {name: Capture(lab.servers[name], "eth0") for name in ("rs1", "rs2")}
    try:
        for shows, url, lips in REQUESTS:
            answered = {request(lab, captures, shows, url, lips) for _ in range(2 * len(captures))}
            check(answered == set(captures), f"only {answered} answered")
    finally:
        for capture in captures.values():
            capture.stop()


def load(lab, gateway):
    """wrk for ten seconds with a line of progress a second."""
    # Where many others use the machine an answer may well take the two seconds after which wrk would give up.
    process = lab.client.start("wrk", "-t1", "-c32", f"-d{WRK_SECONDS}s", "--timeout", "5s", "--latency", f"http://{VIP}/",
                               stdout=subprocess.PIPE, text=True)
    packets, then = gateway.control.counter("rx_packets"), time.monotonic()
    while process.poll() is None:
        try:
            process.wait(1)
        except subprocess.TimeoutExpired:
            now_packets, now = gateway.control.counter("rx_packets"), time.monotonic()
            print(f"  {(now_packets - packets) / (now - then):10,.0f} packets/s, "
                  f"{gateway.control.counter('sessions_live')} sessions", end="\r" if TTY else "\n", flush=True)
            packets, then = now_packets, now
    report = process.stdout.read()
    print("\033[K" if TTY else "", end="")
    for line in report.splitlines():
        if any(word in line for word in ("Requests/sec", "99%", "50%", "requests in", "Socket errors", "Non-2xx")):
            print("  " + line.strip())
    check(process.returncode == 0 and "Requests/sec" in report, "wrk failed")
    check("Socket errors" not in report and "Non-2xx" not in report, "wrk saw errors, see its lines above")


def counters(gateway):
    check_accounting(gateway.control)
    names = ("rx_packets", "originated_packets", "handed_in_packets", "tx_packets", "handed_off_packets",
             "held_packets", "dropped_packets", "sessions_created", "sessions_live")
    workers = gateway.control.workers()
    print(f"  {'':<20}" + "".join(f"{'worker ' + str(w['id']):>14}" for w in workers))
    for name in names:
        print(f"  {name:<20}" + "".join(f"{w[name]:>14,}" for w in workers))
    drops = gateway.control.drops()
    print("  dropped by reason:   " + (", ".join(f"{k} {v:,}" for k, v in drops.items()) or "none"))
    print(f"  {GREEN}rx + handed in + originated = tx + handed off + held + dropped, on every worker{PLAIN}")


def keep(lab, gateway):
    inside = f"ip netns exec {lab.client.name}"
    print(f"""
  It goes on running. In another terminal, as root:
    {inside} curl http://{VIP}/
    {inside} curl 'http://[{VIP6}]/'
    curl --unix-socket {gateway.socket} http://fullnat/v1/services
    {binary('fullnatctl')} --socket {gateway.socket} sessions
  The configuration is {lab.directory}/gateway.toml, the log {gateway.log}.
  Ctrl-C ends it and takes everything away again.""", flush=True)
    try:
        signal.pause()
    except KeyboardInterrupt:
        print()


def attached_receiver():
    """The real servers' side of TOA on a cgroup of its own; None, and a sentence, where this machine cannot have it."""
    receiver = None
    try:
        receivers.remove_leftovers()
        receiver = Receiver()
        receiver.attach("--trust", ",".join([*LIPS, *LIPS6]))
        say("fullnat-toa attached to the cgroup that nginx will run in")
        return receiver
    except Unavailable as missing:
        if receiver is not None:
            receiver.close()
        say(f"no receiver on this machine, nginx will see the gateway: {missing}")
        return None


def demonstrate(keep_running):
    say("network namespaces: client, gateway, switch, real servers with nginx")
    remove_leftovers()
    receiver = attached_receiver()
    lab = gateway = None
    try:
        lab = Lab(with_test_servers=False, receiver=receiver)
        say("fullnatd with 2 workers on veth pairs (net_af_packet)")
        # The services of the tests that need their own servers would only clutter the output.
        services = [s for s in default_services() if s["name"].startswith("web")]
        if receiver:
            # An IPv4 socket cannot say an IPv6 client; one for both families can.
            across = next(s for s in services if s["name"] == "web64")
            across["real_server"] = real_servers(("rs1", "rs2"), DUAL_PORT)
        gateway = Fullnatd(lab, config(2, services)).start()
        say("HTTP requests")
        requests(lab)
        say(f"{WRK_SECONDS} seconds of wrk")
        load(lab, gateway)
        say("counters")
        counters(gateway)
        if keep_running:
            keep(lab, gateway)
        if receiver:
            say("fullnat-toa status")
            print("".join(f"  {line}\n" for line in receiver.run("status").stdout.splitlines()), end="")
        say("tear-down")
        status, took = gateway.stop()
        check(status == 0, f"fullnatd ended with status {status}:\n{gateway.output()}")
        check(took < 1, f"fullnatd took {took:.1f} s to end")
    except BaseException:
        if gateway is not None and gateway.log.exists():
            sys.stderr.write(gateway.output()[-3000:])
        raise
    finally:
        if lab is not None:
            lab.close()
        if receiver is not None:
            receiver.close()
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    check(f"fn-{os.getpid()}-" not in listed, f"namespaces left behind: {listed}")


def main():
    def end(number, frame):
        raise KeyboardInterrupt

    began = time.time()
    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGHUP, end)
    try:
        demonstrate("--keep" in sys.argv[1:])
    except KeyboardInterrupt:
        print(f"\n{RED}interrupted{PLAIN}; everything was taken away again")
        return 130
    except (Wrong, AssertionError, TimeoutError, RuntimeError, OSError) as error:
        print(f"{RED}FAILED{PLAIN}: {error}")
        return 1
    took = time.time() - float(os.environ.get("DEMO_STARTED", began))
    print(f"{GREEN}{BOLD}All as it should be{PLAIN}, after {took:.0f} s in all.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
