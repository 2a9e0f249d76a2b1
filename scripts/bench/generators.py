"""What traffic generators need, from the gateway's own configuration. See scripts/trex-config.sh."""

import argparse
import ipaddress
import json
import pathlib
import sys
import tomllib

ROOT = pathlib.Path(__file__).resolve().parents[2]
PKTGEN_TEMPLATE = ROOT / "conf" / "pktgen" / "udp.pkt.in"
# Both advance with every packet: only numbers without a common divisor meet in every pair.
PKTGEN_CLIENTS, PKTGEN_PORTS = 15_625, 64


class Unfit(Exception):
    """The configuration cannot be measured this way, and why."""


def facts(config, clients_first=None, wan_mac=None):
    """VIPs, real servers, who stands where; IPv4, as RFC 2544 trials are."""
    ports = [{"name": port["name"], **_interface(port)} for port in config.get("port", [])]
    if len(ports) < 2:
        raise Unfit("two ports are wanted, one for clients and one for real servers; use conf/qualify.toml")
    services = [entry for service in config.get("service", []) for entry in _services(service)]
    if not services:
        raise Unfit("no service listens on an IPv4 address; add one")
    lan_name = config["local_pool"][0]["port"]
    lan = next(port for port in ports if port["name"] == lan_name)
    wan = next(port for port in ports if port["name"] != lan_name)
    route, router = _client_route(config, wan)
    first = clients_first or str(route.network_address + 1 if route.num_addresses > 1 else route.network_address)
    return {"wan": wan, "lan": lan, "router": str(router), "server_router": _server_router(config, lan, services),
            "clients_first": first, "wan_mac": wan_mac, "services": services}


def _interface(port):
    for text in port.get("addresses", []):
        interface = ipaddress.ip_interface(text)
        if interface.version == 4:
            return {"address": str(interface.ip), "network": str(interface.network)}
    raise Unfit(f"port {port['name']} has no IPv4 address")


def _client_route(config, wan):
    """Where clients are: the widest route behind the wan port, else its own subnet."""
    network = ipaddress.ip_network(wan["network"])
    behind = [(ipaddress.ip_network(route["to"]), ipaddress.ip_address(route["via"]))
              for route in config.get("route", []) if ipaddress.ip_address(route["via"]) in network]
    if not behind:
        return network, next(host for host in network.hosts() if str(host) != wan["address"])
    route, via = min(behind, key=lambda found: found[0].prefixlen)
    # Clients behind the default route get the block that is set aside for nobody's hosts but ours.
    return (ipaddress.ip_network("16.0.0.0/8") if route.prefixlen == 0 else route), via


def _server_router(config, lan, services):
    """The one address behind which all real servers are: generators answer ARP for one address per port."""
    network = ipaddress.ip_network(lan["network"])
    routes = [(ipaddress.ip_network(route["to"]), ipaddress.ip_address(route["via"])) for route in config.get("route", [])]
    servers = {ipaddress.ip_address(address) for service in services for address, _ in service["real_servers"]}
    next_hops = {hop for server in servers if (hop := _next_hop(server, network, routes))}
    if len(next_hops) != 1 or not all(hop in network for hop in next_hops):
        through = ", ".join(map(str, sorted(next_hops))) or "no route"
        raise Unfit(f"a generator answers for one address per port, but real servers are reached through {through}: "
                    f"put all of them behind one [[route]] whose `via` is in {network}, as conf/qualify.toml does")
    return str(next_hops.pop())


def _next_hop(server, network, routes):
    """Whom the gateway asks for by ARP; the longest prefix decides."""
    ways = [(to.prefixlen, via) for to, via in routes if to.version == server.version and server in to]
    if server in network:
        ways.append((network.prefixlen, server))
    return max(ways, key=lambda way: way[0], default=(0, None))[1]


def _services(service):
    listens = service["listen"] if isinstance(service["listen"], list) else [service["listen"]]
    for listen in listens:
        vip, _, port = listen.rpartition(":")
        if vip.startswith("["):
            continue
        first_port = int(port.split("-")[0])
        servers = [_endpoint(server["address"], first_port) for server in service.get("real_server", [])
                   if server.get("weight", 1) > 0]
        yield {"name": service["name"], "protocol": service["protocol"], "vip": vip, "port": first_port,
               "real_servers": [server for server in servers if server]}


def _endpoint(text, default_port):
    if text.startswith("["):
        return None
    address, _, port = text.partition(":")
    return [address, int(port) if port else default_port]


def trex_cfg(found, interfaces):
    """The platform file: port 0 plays the router of the clients, port 1 that of the real servers."""
    lines = ["- version: 2", f"  interfaces: [{', '.join(json.dumps(name) for name in interfaces)}]", "  port_info:"]
    for address, gateway in ((found["router"], found["wan"]["address"]), (found["server_router"], found["lan"]["address"])):
        lines += [f"    - ip: {address}", f"      default_gw: {gateway}"]
    return "\n".join(lines) + "\n"


def pktgen(found):
    """The commands for pktgen, from conf/pktgen/udp.pkt.in."""
    udp = next((service for service in found["services"] if service["protocol"] == "udp"), None)
    if udp is None:
        raise Unfit("pktgen wants a UDP service; use conf/qualify.toml")
    if not found["wan_mac"]:
        raise Unfit("pktgen asks nobody for a MAC address, and the gateway drops what is not for its own: "
                    "give --wan-mac, the MAC address of the gateway's wan port")
    first = ipaddress.ip_address(found["clients_first"])
    values = {"CLIENT_FIRST": first, "CLIENT_LAST": first + PKTGEN_CLIENTS - 1,
              "PORT_LAST": 1024 + PKTGEN_PORTS - 1, "VIP": udp["vip"], "PORT": udp["port"],
              "SERVER_ROUTER": found["server_router"], "LAN_PREFIX": ipaddress.ip_network(found["lan"]["network"]).prefixlen,
              "WAN_MAC": found["wan_mac"]}
    text = PKTGEN_TEMPLATE.read_text(encoding="ascii")
    for name, value in values.items():
        text = text.replace(f"@{name}@", str(value))
    return text


def main(arguments):
    parser = argparse.ArgumentParser(prog="scripts/trex-config.sh", description=__doc__.splitlines()[0])
    parser.add_argument("config", type=pathlib.Path)
    parser.add_argument("--interfaces", default="0000:00:00.0,0000:00:00.1", help="PCI addresses of the generator")
    parser.add_argument("--wan-mac", help="MAC address of the gateway's wan port; udp.pkt needs it")
    parser.add_argument("--clients-first", help="address of the first client")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "conf" / "trex")
    options = parser.parse_args(arguments)
    try:
        found = facts(tomllib.loads(options.config.read_text(encoding="utf-8")), options.clients_first, options.wan_mac)
    except Unfit as error:
        sys.exit(f"{options.config}: {error}")
    files = {"trex_cfg.yaml": trex_cfg(found, options.interfaces.split(",")),
             "gateway.json": json.dumps(found, indent=2) + "\n"}
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        files["udp.pkt"] = pktgen(found)
    except Unfit as error:
        (options.out / "udp.pkt").unlink(missing_ok=True)  # one from before would have other addresses
        print(f"no udp.pkt: {error}", file=sys.stderr)
    for name, text in files.items():
        (options.out / name).write_text(text, encoding="ascii")
        print(options.out / name)


if __name__ == "__main__":
    main(sys.argv[1:])
