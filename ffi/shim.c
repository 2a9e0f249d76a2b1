#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* fopencookie */
#endif
#include <stdio.h>
#include <string.h>
#include <sys/types.h>

#include "dpdk.h"

/* src/dpdk/mbuf.rs reads these fields with the widths and the byte order that are asserted here. */
#define FIELD_IS(field, type) \
	_Static_assert(sizeof(((struct rte_mbuf *)0)->field) == sizeof(type), "rte_mbuf." #field " is not a " #type)
FIELD_IS(buf_addr, void *);
FIELD_IS(data_off, uint16_t);
FIELD_IS(nb_segs, uint16_t);
FIELD_IS(ol_flags, uint64_t);
FIELD_IS(pkt_len, uint32_t);
FIELD_IS(data_len, uint16_t);
FIELD_IS(hash.rss, uint32_t);
FIELD_IS(buf_len, uint16_t);
FIELD_IS(next, void *);
FIELD_IS(tx_offload, uint64_t);
#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the places of l2_len and l3_len within tx_offload are known for little-endian machines only"
#endif

uint16_t shim_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **packets, uint16_t count)
{
	return rte_eth_rx_burst(port, queue, packets, count);
}

uint16_t shim_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **packets, uint16_t count)
{
	return rte_eth_tx_burst(port, queue, packets, count);
}

struct rte_mbuf *shim_mbuf_alloc(struct rte_mempool *pool)
{
	return rte_pktmbuf_alloc(pool);
}

void shim_mbuf_free(struct rte_mbuf *packet)
{
	rte_pktmbuf_free(packet);
}

void shim_mbuf_free_segment(struct rte_mbuf *segment)
{
	rte_pktmbuf_free_seg(segment);
}

uint16_t shim_pool_data_room(struct rte_mempool *pool)
{
	return rte_pktmbuf_data_room_size(pool);
}

int shim_errno(void)
{
	return rte_errno;
}

uint32_t shim_lcore_id(void)
{
	return rte_lcore_id();
}

int shim_link(uint16_t port, struct shim_link *link)
{
	struct rte_eth_link state;
	int error;

	memset(&state, 0, sizeof(state));
	error = rte_eth_link_get_nowait(port, &state);
	if (error != 0)
		return error;
	link->speed_mbps = state.link_speed;
	link->full_duplex = state.link_duplex == RTE_ETH_LINK_FULL_DUPLEX;
	link->up = state.link_status == RTE_ETH_LINK_UP;
	return 0;
}

static shim_log_sink log_sink;

static ssize_t write_to_sink(void *cookie, const char *text, size_t length)
{
	int level = rte_log_cur_msg_loglevel();

	(void)cookie;
	log_sink(level < 0 ? RTE_LOG_INFO : (uint32_t)level, text, length);
	return (ssize_t)length;
}

int shim_capture_log(shim_log_sink sink)
{
	const cookie_io_functions_t functions = {.write = write_to_sink};
	FILE *stream;

	log_sink = sink;
	stream = fopencookie(NULL, "w", functions);
	if (stream == NULL)
		return -1;
	setvbuf(stream, NULL, _IOLBF, 0);
	return rte_openlog_stream(stream);
}

void shim_flush_stdio(void)
{
	fflush(stdout);
	fflush(stderr);
}
