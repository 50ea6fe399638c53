//! Stands in for the kernel tier where there is none. Nothing here can be made, so nothing here can be called.

use std::convert::Infallible;

use super::{Error, ListenerEvent, Missing, Options, Space, StartError};
use crate::counts::{PortCounts, SpaceCounts};
use crate::port::{Port, PortSet};
use crate::privileges::Capability;

/// The kernel tier, which this platform does not have.
#[derive(Debug)]
pub struct Kernel(Infallible);

/// The counters, which this platform does not have.
#[derive(Debug)]
pub struct Reading<'a>(Infallible, std::marker::PhantomData<&'a ()>);

/// The follower of events, which this platform does not have.
#[derive(Debug)]
pub struct Watcher(Infallible);

impl Kernel {
    /// Tells that there is no such tier here.
    ///
    /// # Errors
    /// Always.
    pub fn start(_: &Options) -> Result<(Self, Watcher, Vec<Missing>), StartError> {
        Err(StartError::Unsupported)
    }

    /// Cannot be called.
    ///
    /// # Errors
    /// None.
    pub fn watch(&mut self, _: &PortSet) -> Result<(), Error> {
        match self.0 {}
    }

    /// Cannot be called.
    #[must_use]
    pub fn addresses_are_current(&self) -> bool {
        match self.0 {}
    }

    /// Cannot be called.
    #[must_use]
    pub fn read(&self) -> Reading<'_> {
        match self.0 {}
    }

    /// Cannot be called.
    #[must_use]
    pub fn lost(&self) -> u64 {
        match self.0 {}
    }

    /// Cannot be called.
    #[must_use]
    pub fn needs(&self) -> &'static [Capability] {
        match self.0 {}
    }
}

impl Reading<'_> {
    /// Cannot be called.
    #[must_use]
    pub fn counts(&self, _: Port) -> PortCounts {
        match self.0 {}
    }

    /// Cannot be called.
    #[must_use]
    pub fn opened_cookie(&self, _: Port) -> Option<std::num::NonZeroU64> {
        match self.0 {}
    }

    /// Cannot be called.
    #[must_use]
    pub fn udp_refused(&self) -> Option<u64> {
        match self.0 {}
    }

    /// Cannot be called.
    #[must_use]
    pub fn knocks_are_counted(&self) -> bool {
        match self.0 {}
    }

    /// Cannot be called.
    #[must_use]
    pub fn space(&self, _: &mut Space) -> SpaceCounts {
        match self.0 {}
    }

    /// Cannot be called.
    #[must_use]
    pub fn hand_over(&self, _: &mut Space, _: &mut Space) -> (SpaceCounts, SpaceCounts) {
        match self.0 {}
    }
}

impl Watcher {
    /// Cannot be called.
    pub fn drain(&mut self, _: impl FnMut(ListenerEvent)) {
        match self.0 {}
    }

    /// Cannot be called.
    ///
    /// # Errors
    /// None.
    pub fn run(self, _: impl FnMut(ListenerEvent)) -> std::io::Result<()> {
        match self.0 {}
    }
}
