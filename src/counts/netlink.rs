//! The netlink tier.
