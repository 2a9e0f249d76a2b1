-- RFC 2544 §26.1 throughput by bisection: the highest rate at which not more than `loss_max` of the frames are lost.
-- usage, within pktgen: load udp.pkt first, then `script rfc2544.lua`. Results: rfc2544.csv in the working directory.
-- pktgen draws clients in sequence: call a result by this script sequential, and compare it with TRex's (docs/qualify.md).
package.path = package.path .. ";?.lua;test/?.lua;app/?.lua;../?.lua"
require "Pktgen"

local settings = {
  tx = "0",            -- toward the gateway's wan port
  rx = "1",            -- where the real servers are
  sizes = { 64, 128, 256, 512, 1024, 1280, 1518 },
  loss_max = 0,        -- a share; 0.0001 for one in ten thousand
  trial_ms = 60000,    -- RFC 2544 §24: at least 60 seconds
  settle_ms = 2000,
  precision = 0.1,     -- percent of line rate
  flows = 1000000,     -- as udp.pkt has
}

local function counted(port, field)
  return pktgen.portStats(port, "port")[tonumber(port)][field]
end

-- Frames sent and received by one trial at a rate in percent of the line.
local function trial(rate, milliseconds)
  pktgen.set(settings.tx, "rate", rate)
  pktgen.clr()
  pktgen.start(settings.tx)
  pktgen.delay(milliseconds)
  pktgen.stop(settings.tx)
  pktgen.delay(settings.settle_ms)
  return counted(settings.tx, "opackets"), counted(settings.rx, "ipackets")
end

-- Opens every session before anything is counted: pktgen goes through its packets in turn, so two packets for every flow
-- reach all of them even if some of the first are lost while neighbours are asked for.
local function open_sessions()
  local sent = 0
  while sent < 2 * settings.flows do
    local more = trial(1, 10000)
    assert(more > 0, "nothing is sent: is the link up, and udp.pkt loaded?")
    sent = sent + more
  end
end

local function passes(rate)
  local sent, received = trial(rate, settings.trial_ms)
  return sent > 0 and (sent - received) <= sent * settings.loss_max, sent
end

local function throughput(size)
  pktgen.range.pkt_size(settings.tx, "start", size)
  pktgen.range.pkt_size(settings.tx, "min", size)
  pktgen.range.pkt_size(settings.tx, "max", size)
  open_sessions()
  local low, high, best = 0, 100, 0
  while high - low > settings.precision do
    local rate = (low + high) / 2
    local passed, sent = passes(rate)
    if passed then
      low, best = rate, sent * 1000 / settings.trial_ms
    else
      high = rate
    end
  end
  return low, best
end

local out = assert(io.open("rfc2544.csv", "w"))
out:write("frame_bytes,percent_of_line,packets_per_second,loss_max\n")
for _, size in ipairs(settings.sizes) do
  local rate, packets = throughput(size)
  out:write(string.format("%d,%.2f,%.0f,%g\n", size, rate, packets, settings.loss_max))
  out:flush()
end
out:close()
