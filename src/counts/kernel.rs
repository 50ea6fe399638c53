//! The kernel tier.
