//! The polled tier.
