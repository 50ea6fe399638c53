//! Sockets that systemd listens on and hands over (sd_listen_fds(3)).

use std::net::TcpListener;

/// Why there are no such sockets.
#[derive(Debug, thiserror::Error)]
pub enum ActivationError {
    /// Nothing was handed over.
    #[error(
        "--web.systemd-socket: no socket was handed over ({0}): start it by a systemd socket unit with ListenStream=, or leave the flag out"
    )]
    None(&'static str),
    /// What was handed over cannot be served on.
    #[error(
        "--web.systemd-socket: socket {number} of {all}: {problem}: write ListenStream= with a TCP port, and Accept=no"
    )]
    Unfit {
        /// Which one, from 1.
        number: usize,
        /// How many there are.
        all: usize,
        /// What is wrong with it.
        problem: String,
    },
}

/// Takes the sockets that were handed to this process, which do not block. A second call finds none. It changes the
/// environment, so it belongs before there is a second thread.
///
/// # Errors
/// When there are none, or one of them is no listening TCP socket.
#[cfg(target_os = "linux")]
pub fn activated() -> Result<Vec<TcpListener>, ActivationError> {
    let given = std::env::var_os("LISTEN_FDS").is_some();
    let mut sockets = listenfd::ListenFd::from_env();
    let all = sockets.len();
    if all == 0 {
        return Err(ActivationError::None(if given {
            "LISTEN_FDS is 0 or LISTEN_PID is another process"
        } else {
            "LISTEN_FDS is not set"
        }));
    }
    (0..all)
        .map(|index| {
            listener(&mut sockets, index).map_err(|problem| ActivationError::Unfit {
                number: index + 1,
                all,
                problem,
            })
        })
        .collect()
}

#[cfg(target_os = "linux")]
fn listener(sockets: &mut listenfd::ListenFd, index: usize) -> Result<TcpListener, String> {
    let listener = sockets
        .take_tcp_listener(index)
        .map_err(|error| error.to_string())?
        .ok_or("it is not there")?;
    let listens = socket2::SockRef::from(&listener)
        .is_listener()
        .map_err(|error| error.to_string())?;
    if !listens {
        return Err("it is a connection and does not listen".to_owned());
    }
    listener
        .set_nonblocking(true)
        .map_err(|error| error.to_string())?;
    Ok(listener)
}

/// There is no systemd here.
///
/// # Errors
/// Always.
#[cfg(not(target_os = "linux"))]
pub fn activated() -> Result<Vec<TcpListener>, ActivationError> {
    Err(ActivationError::None("only Linux has systemd"))
}
