/*
 * What is bound of DPDK: the headers bindgen reads (build.rs has the list of what it keeps), and the constants that
 * DPDK has as macros, as enumerators or only in the layout of a structure.
 *
 * Written for DPDK 22.11, 23.11 and 24.11. The fields of struct rte_mbuf moved into anonymous unions on the way; their
 * offsets below are the same source for all three, so that src/dpdk/mbuf.rs needs no binding of the structure itself.
 */
#ifndef FULLNAT_DPDK_H
#define FULLNAT_DPDK_H

#include <stddef.h>
#include <stdint.h>

#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_ether.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <rte_version.h>

#include "shim.h"

#if RTE_VERSION < RTE_VERSION_NUM(22, 11, 0, 0)
#error "fullnat needs DPDK 22.11 or later"
#endif

/* Where the fields of a packet buffer lie, in bytes. */
static const size_t MBUF_BUF_ADDR = offsetof(struct rte_mbuf, buf_addr);
static const size_t MBUF_DATA_OFF = offsetof(struct rte_mbuf, data_off);
static const size_t MBUF_NB_SEGS = offsetof(struct rte_mbuf, nb_segs);
static const size_t MBUF_OL_FLAGS = offsetof(struct rte_mbuf, ol_flags);
static const size_t MBUF_PKT_LEN = offsetof(struct rte_mbuf, pkt_len);
static const size_t MBUF_DATA_LEN = offsetof(struct rte_mbuf, data_len);
static const size_t MBUF_RSS = offsetof(struct rte_mbuf, hash.rss);
static const size_t MBUF_BUF_LEN = offsetof(struct rte_mbuf, buf_len);
static const size_t MBUF_NEXT = offsetof(struct rte_mbuf, next);
static const size_t MBUF_TX_OFFLOAD = offsetof(struct rte_mbuf, tx_offload);
static const size_t MBUF_SIZE = sizeof(struct rte_mbuf);
static const uint32_t MBUF_L2_LEN_SHIFT = RTE_MBUF_L2_LEN_OFS;
static const uint32_t MBUF_L3_LEN_SHIFT = RTE_MBUF_L3_LEN_OFS;
static const uint16_t MBUF_HEADROOM = RTE_PKTMBUF_HEADROOM;

/* Bits of ol_flags. */
static const uint64_t MBUF_RX_L4_MASK = RTE_MBUF_F_RX_L4_CKSUM_MASK;
static const uint64_t MBUF_RX_L4_GOOD = RTE_MBUF_F_RX_L4_CKSUM_GOOD;
static const uint64_t MBUF_RX_L4_BAD = RTE_MBUF_F_RX_L4_CKSUM_BAD;
static const uint64_t MBUF_RX_RSS_HASH = RTE_MBUF_F_RX_RSS_HASH;
static const uint64_t MBUF_TX_IPV4 = RTE_MBUF_F_TX_IPV4;
static const uint64_t MBUF_TX_IPV6 = RTE_MBUF_F_TX_IPV6;
static const uint64_t MBUF_TX_TCP_CKSUM = RTE_MBUF_F_TX_TCP_CKSUM;
static const uint64_t MBUF_TX_UDP_CKSUM = RTE_MBUF_F_TX_UDP_CKSUM;
static const uint64_t MBUF_TX_L4_MASK = RTE_MBUF_F_TX_L4_MASK;

/* What a port can do. */
static const uint64_t RX_OFFLOAD_IPV4_CKSUM = RTE_ETH_RX_OFFLOAD_IPV4_CKSUM;
static const uint64_t RX_OFFLOAD_UDP_CKSUM = RTE_ETH_RX_OFFLOAD_UDP_CKSUM;
static const uint64_t RX_OFFLOAD_TCP_CKSUM = RTE_ETH_RX_OFFLOAD_TCP_CKSUM;
static const uint64_t RX_OFFLOAD_SCATTER = RTE_ETH_RX_OFFLOAD_SCATTER;
static const uint64_t RX_OFFLOAD_RSS_HASH = RTE_ETH_RX_OFFLOAD_RSS_HASH;
static const uint64_t TX_OFFLOAD_UDP_CKSUM = RTE_ETH_TX_OFFLOAD_UDP_CKSUM;
static const uint64_t TX_OFFLOAD_TCP_CKSUM = RTE_ETH_TX_OFFLOAD_TCP_CKSUM;
static const uint64_t TX_OFFLOAD_MULTI_SEGS = RTE_ETH_TX_OFFLOAD_MULTI_SEGS;
static const uint64_t TX_OFFLOAD_FAST_FREE = RTE_ETH_TX_OFFLOAD_MBUF_FAST_FREE;
static const uint64_t RSS_IPV4_TCP = RTE_ETH_RSS_NONFRAG_IPV4_TCP;
static const uint64_t RSS_IPV4_UDP = RTE_ETH_RSS_NONFRAG_IPV4_UDP;
static const uint64_t RSS_IPV6_TCP = RTE_ETH_RSS_NONFRAG_IPV6_TCP;
static const uint64_t RSS_IPV6_UDP = RTE_ETH_RSS_NONFRAG_IPV6_UDP;
static const uint32_t MQ_RX_NONE = RTE_ETH_MQ_RX_NONE;
static const uint32_t MQ_RX_RSS = RTE_ETH_MQ_RX_RSS;
static const uint32_t RETA_GROUP_SIZE = RTE_ETH_RETA_GROUP_SIZE;
static const uint16_t ETHER_OVERHEAD = RTE_ETHER_HDR_LEN + RTE_ETHER_CRC_LEN;

/* Limits of the build of DPDK. */
static const uint32_t MEMPOOL_CACHE_MAX = RTE_MEMPOOL_CACHE_MAX_SIZE;
static const uint32_t MEMPOOL_NAME_MAX = RTE_MEMPOOL_NAMESIZE;
static const int32_t SOCKET_ANY = SOCKET_ID_ANY;

/* Severities of DPDK's log. */
static const uint32_t LOG_ERR = RTE_LOG_ERR;
static const uint32_t LOG_WARNING = RTE_LOG_WARNING;
static const uint32_t LOG_NOTICE = RTE_LOG_NOTICE;
static const uint32_t LOG_INFO = RTE_LOG_INFO;

#endif
