//! Netlink and nftables: pod networks, routes, rule sets.
