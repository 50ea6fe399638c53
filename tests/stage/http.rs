//! As much HTTP as asking a Prometheus and an exporter on loopback takes: HTTP/1.0, so that an answer ends with the connection.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// The body of the answer, or what went wrong, with the status line and the body.
pub fn get(to: SocketAddr, path: &str) -> Result<String, String> {
    exchange(
        to,
        &format!("GET {path} HTTP/1.0\r\nHost: {to}\r\n\r\n"),
        &[],
    )
}

pub fn post(to: SocketAddr, path: &str, headers: &str, body: &[u8]) -> Result<String, String> {
    let head = format!(
        "POST {path} HTTP/1.0\r\nHost: {to}\r\n{headers}Content-Length: {}\r\n\r\n",
        body.len()
    );
    exchange(to, &head, body)
}

fn exchange(to: SocketAddr, head: &str, body: &[u8]) -> Result<String, String> {
    let answer = send(to, head, body).map_err(|error| format!("{to}: {error}"))?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .ok_or("an answer without a head")?;
    let status = head.lines().next().unwrap_or_default();
    if status
        .split(' ')
        .nth(1)
        .is_some_and(|code| code.starts_with('2'))
    {
        Ok(body.to_owned())
    } else {
        Err(format!("{status}: {body}"))
    }
}

fn send(to: SocketAddr, head: &str, body: &[u8]) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(120)))?;
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// A value for a query string.
pub fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}
