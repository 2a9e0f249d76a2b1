/*
 * DPDK's inline functions and thread-local variables as symbols that Rust can call. One call per burst costs nothing
 * that could be measured; what is needed per packet is read in src/dpdk/mbuf.rs without a call.
 */
#ifndef FULLNAT_SHIM_H
#define FULLNAT_SHIM_H

#include <stddef.h>
#include <stdint.h>

struct rte_mbuf;
struct rte_mempool;

/* rte_eth_rx_burst: up to `count` packets of a queue into `packets`; how many. */
uint16_t shim_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **packets, uint16_t count);
/* rte_eth_tx_burst: how many of `packets` the device took; the others stay the caller's. */
uint16_t shim_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **packets, uint16_t count);

/* rte_pktmbuf_alloc: an empty packet, or NULL. */
struct rte_mbuf *shim_mbuf_alloc(struct rte_mempool *pool);
/* rte_pktmbuf_alloc_bulk: all of `count` packets and 0, or none. */
/* rte_pktmbuf_free: all segments of a packet. */
void shim_mbuf_free(struct rte_mbuf *packet);
/* rte_pktmbuf_free_seg: one segment. */
void shim_mbuf_free_segment(struct rte_mbuf *segment);
/* rte_pktmbuf_data_room_size: bytes of a pool's buffers, headroom included. */
uint16_t shim_pool_data_room(struct rte_mempool *pool);

/* rte_errno of this thread. */
int shim_errno(void);
/* The lcore id of this thread, UINT32_MAX without one. */
uint32_t shim_lcore_id(void);

/* The state of a port's link; its own structure because rte_eth_link is made of bit fields that moved in 24.11. */
struct shim_link {
	uint32_t speed_mbps; /* 0 or UINT32_MAX: unknown */
	uint8_t full_duplex;
	uint8_t up;
};
/* rte_eth_link_get_nowait: 0, or a negative errno. */
int shim_link(uint16_t port, struct shim_link *link);

/* Gives every line of DPDK's log to `sink` with its severity (RTE_LOG_*); 0, or -1. Once per process. */
typedef void (*shim_log_sink)(uint32_t level, const char *text, size_t length);
int shim_capture_log(shim_log_sink sink);
/* Writes out what C's stdout and stderr still hold. */
void shim_flush_stdio(void);

#endif
