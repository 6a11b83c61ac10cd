//! The service proxy: Services and EndpointSlices to a pure rule set to nftables.
