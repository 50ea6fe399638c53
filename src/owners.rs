//! Whose socket it is.

/// The owner of a listening socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Could not be read.
    Unknown,
}

impl Owner {
    /// The process name.
    #[must_use]
    pub fn process(&self) -> &str {
        ""
    }

    /// The user name.
    #[must_use]
    pub fn user(&self) -> &str {
        ""
    }

    /// The systemd unit or container id.
    #[must_use]
    pub fn unit(&self) -> &str {
        ""
    }
}
