#!/usr/bin/env bash
# Derives what the traffic generators need from a gateway's configuration.
# usage: scripts/trex-config.sh GATEWAY.TOML [--interfaces WAN,LAN] [--wan-mac MAC] [--clients-first ADDRESS] [--out DIR]
# Writes to DIR (default: conf/trex beside the profiles):
#   trex_cfg.yaml   for t-rex-64 --cfg: port 0 is the router of the clients, port 1 that of the real servers
#   gateway.json    for the profiles: VIPs, real servers, client network
#   udp.pkt         for pktgen -f: the same addresses, ranges of clients and ports; only with --wan-mac
# --interfaces are the generator's PCI addresses. --wan-mac is the MAC address of the gateway's wan port: pktgen needs it,
# for it asks nobody; TRex finds it by ARP if it is not given.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

exec "$PYTHON" "$ROOT/scripts/bench/generators.py" "$@"
