//! The socket table through netstat2.

use super::{Error, SocketTable, Wanted};

/// Reads the table through netstat2.
#[derive(Debug)]
pub struct Portable {}

impl Portable {
    /// Reads the table.
    ///
    /// # Errors
    /// When the table cannot be had whole.
    pub fn read(&mut self, _wanted: Wanted<'_>) -> Result<SocketTable, Error> {
        Err(Error::Incomplete("not built".into()))
    }
}
