//! The TLS handshake, and what becomes of one that comes to nothing.

use std::io;
use std::sync::Arc;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::{CertificateError, Error, OtherError, ServerConfig};
use tokio_rustls::server::TlsStream;

use crate::refusals::Reason;

/// The first byte of a TLS connection: a record of type handshake (RFC 8446, section 5.1).
const HANDSHAKE: u8 = 22;

/// Why there is no TLS connection.
#[derive(Debug)]
pub(super) enum Failure {
    /// The client went away before it said anything, as a look whether the port is open does.
    Gone,
    /// Anything else.
    Refused(Reason, String),
}

/// Makes a TLS connection of a connection. Who speaks HTTP without TLS is told so.
pub(super) async fn accept(
    mut stream: TcpStream,
    config: Arc<ServerConfig>,
) -> Result<TlsStream<TcpStream>, Failure> {
    let mut first = [0];
    match stream.peek(&mut first).await {
        Ok(0) | Err(_) => return Err(Failure::Gone),
        Ok(_) if first[0] != HANDSHAKE => {
            if first[0].is_ascii_uppercase() {
                answer_plain_http(&mut stream).await;
            }
            let message = "the client does not speak TLS".to_owned();
            return Err(Failure::Refused(Reason::Tls, message));
        }
        Ok(_) => {}
    }
    TlsAcceptor::from(config)
        .accept(stream)
        .await
        .map_err(|error| explain(&error))
}

/// Best effort: nobody is owed this.
async fn answer_plain_http(stream: &mut TcpStream) {
    const ANSWER: &str = "HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n\
                          This is an HTTPS server: write https:// in front, or scheme: https in Prometheus.\n";
    // What is left unread would reset the connection, and the answer with it.
    let mut head = vec![0; 16 << 10];
    let _ = stream.try_read(&mut head);
    let _ = stream.write_all(ANSWER.as_bytes()).await;
    let _ = stream.shutdown().await;
}

fn explain(error: &io::Error) -> Failure {
    let cause = error
        .get_ref()
        .and_then(|cause| cause.downcast_ref::<Error>());
    let reason = match cause {
        Some(Error::InvalidCertificate(_) | Error::NoCertificatesPresented) => {
            Reason::ClientCertificate
        }
        _ => Reason::Tls,
    };
    let message = match cause {
        Some(Error::NoCertificatesPresented) => "the client has shown no certificate".to_owned(),
        Some(Error::InvalidCertificate(CertificateError::Other(OtherError(cause)))) => {
            cause.to_string()
        }
        Some(Error::AlertReceived(alert)) => {
            format!("the client refused: {alert:?}")
        }
        Some(cause) => cause.to_string(),
        None => error.to_string(),
    };
    Failure::Refused(reason, message)
}
