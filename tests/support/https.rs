//! A client that speaks HTTP/1 over TLS, one request a connection.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;

use socket2::{Domain, Socket, Type};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::{
    ALL_VERSIONS, ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    SupportedProtocolVersion,
};

use super::DEADLINE;
use super::pki::Identity;

/// What the client trusts, shows and offers.
#[derive(Clone)]
pub struct Https {
    pub config: Arc<ClientConfig>,
    /// Where it speaks from; an address of this host.
    pub from: Option<IpAddr>,
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    fn parse(text: &str) -> io::Result<Self> {
        let cut = || io::Error::other(format!("cut off: {text:?}"));
        let (head, body) = text.split_once("\r\n\r\n").ok_or_else(cut)?;
        Ok(Self {
            status: head
                .get(9..12)
                .and_then(|status| status.parse().ok())
                .ok_or_else(cut)?,
            head: head.to_owned(),
            body: body.to_owned(),
        })
    }
}

impl Https {
    /// Trusts these and shows nothing.
    pub fn trusting(roots: RootCertStore) -> Self {
        Self::new(roots, None, ALL_VERSIONS)
    }

    pub fn new(
        roots: RootCertStore,
        identity: Option<&Identity>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Self {
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        let config = match identity {
            Some(identity) => builder
                .with_client_auth_cert(identity.chain(), identity.private_key())
                .unwrap(),
            None => builder.with_no_client_auth(),
        };
        Self {
            config: Arc::new(config),
            from: None,
        }
    }

    /// As this, but offering these protocols.
    pub fn offering(&self, protocols: &[&[u8]]) -> Self {
        let mut config = (*self.config).clone();
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        Self {
            config: Arc::new(config),
            from: self.from,
        }
    }

    /// A connection with the handshake behind it.
    pub fn connect(&self, to: SocketAddr) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
        let mut stream = self.dial(to)?;
        let mut session =
            ClientConnection::new(Arc::clone(&self.config), "localhost".try_into().unwrap())
                .map_err(io::Error::other)?;
        while session.is_handshaking() {
            session.complete_io(&mut stream)?;
        }
        Ok(StreamOwned::new(session, stream))
    }

    fn dial(&self, to: SocketAddr) -> io::Result<TcpStream> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        if let Some(from) = self.from {
            socket.bind(&SocketAddr::new(from, 0).into())?;
        }
        socket.connect(&to.into())?;
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(DEADLINE))?;
        // Several small writes make a handshake and a request.
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// Without TLS, from where it speaks.
    pub fn ask_plain(&self, to: SocketAddr, path: &str, headers: &str) -> Reply {
        exchange(self.dial(to).unwrap(), "GET", path, headers).unwrap()
    }

    pub fn get(&self, to: SocketAddr, path: &str) -> io::Result<Reply> {
        self.ask(to, "GET", path, "")
    }

    /// `headers` are whole lines.
    pub fn ask(
        &self,
        to: SocketAddr,
        method: &str,
        path: &str,
        headers: &str,
    ) -> io::Result<Reply> {
        let mut stream = self.connect(to)?;
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n"
        )?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Reply::parse(&String::from_utf8(answer).map_err(io::Error::other)?)
    }
}

/// The same without TLS.
pub fn plain(to: SocketAddr, method: &str, path: &str, headers: &str) -> Reply {
    try_plain(to, method, path, headers).unwrap()
}

/// The same where it may fail.
pub fn try_plain(to: SocketAddr, method: &str, path: &str, headers: &str) -> io::Result<Reply> {
    let stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    exchange(stream, method, path, headers)
}

fn exchange(mut stream: TcpStream, method: &str, path: &str, headers: &str) -> io::Result<Reply> {
    // In one piece: who is refused at the first byte would otherwise be cut off in the middle of asking.
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Reply::parse(&String::from_utf8(answer).map_err(io::Error::other)?)
}

/// The header that carries a name and a password.
pub fn basic(name: &str, password: &str) -> String {
    use base64::Engine as _;
    let pair = base64::engine::general_purpose::STANDARD.encode(format!("{name}:{password}"));
    format!("Authorization: Basic {pair}\r\n")
}
