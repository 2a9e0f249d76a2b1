#!/usr/bin/env bash
# Derives what the traffic generators need from a gateway's configuration.
# usage: scripts/trex-config.sh GATEWAY.TOML [--interfaces WAN,LAN] [--wan-mac MAC] [--clients-first ADDRESS] [--out DIR]
# Writes to DIR (default: conf/trex beside the profiles):
#   trex_cfg.yaml   for t-rex-64 --cfg: port 0 is the gateway's router and clients, port 1 its real servers
#   gateway.json    for the profiles: VIPs, real servers, client network
#   udp.pkt         for pktgen -f: the same addresses, ranges of clients and ports
# --interfaces are the generator's PCI addresses; --wan-mac saves the profiles an ARP.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

exec "$PYTHON" "$ROOT/scripts/bench/generators.py" "$@"
