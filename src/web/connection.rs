//! One connection: TLS where it is asked for, HTTP/1 or HTTP/2, watched for what it is at and closed when it is due.

use std::convert::Infallible;
use std::future::Future;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::header::{CONTENT_LENGTH, HeaderValue};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::server::TlsStream;

use super::Options;
use super::activity::{Activity, Delivery};
use super::places::Place;
use super::routes::Front;
use super::tls::{self, Failure};
use crate::log::Limiter;
use crate::refusals::Reason;

/// Bytes of a request's head, and of an answer's head that wait to be written.
const HEAD_BYTES: usize = 16 << 10;

/// Requests at a time on one connection of HTTP/2. Prometheus has one for each target it has at this address.
const STREAMS: u32 = 16;
/// Streams a client may reset before they were taken up, and streams reset for the client's errors, until the connection
/// is closed.
const RESETS: usize = 32;
/// How much of an answer is handed over at a time, and how much of it may wait for the client beside what the front holds.
const CHUNK_BYTES: usize = 16 << 10;
const SEND_BYTES: usize = 64 << 10;
/// How much of a request's body, which nobody reads, a client may send.
const RECEIVE_BYTES: u32 = 64 << 10;

/// How a connection ended.
enum End {
    /// By itself, or by an error of the client.
    Done(hyper::Result<()>),
    /// It took too long.
    Late,
    /// Its place was needed.
    Displaced,
}

/// Serves a connection until it ends, is due, is displaced, or `closing` has its sender dropped and the requests under way
/// are answered.
pub(super) async fn run(
    stream: TcpStream,
    peer: SocketAddr,
    place: Place,
    front: Arc<Front>,
    options: Arc<Options>,
    closing: watch::Receiver<()>,
) {
    let connection = Connection {
        peer,
        place: Arc::new(place),
        front,
        options,
        closing,
    };
    match connection.serve(stream).await {
        End::Done(Ok(())) => {}
        // At debug, since anybody can bring these about, as often as they like.
        End::Done(Err(error)) => tracing::debug!(%peer, %error, "connection failed"),
        End::Late => tracing::debug!(%peer, "connection closed: it took too long"),
        End::Displaced => tracing::debug!(%peer, "connection closed: its place was needed"),
    }
}

/// Serves HTTP/1 over any stream.
#[cfg(all(target_os = "linux", any(test, fuzzing)))]
pub(super) async fn run_http1(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: SocketAddr,
    place: Place,
    front: Arc<Front>,
    options: Arc<Options>,
    closing: watch::Receiver<()>,
) {
    let connection = Connection {
        peer,
        place: Arc::new(place),
        front,
        options,
        closing,
    };
    connection.http1(stream).await;
}

struct Connection {
    peer: SocketAddr,
    place: Arc<Place>,
    front: Arc<Front>,
    options: Arc<Options>,
    closing: watch::Receiver<()>,
}

impl Connection {
    async fn serve(mut self, stream: TcpStream) -> End {
        let settings = self.front.settings().await;
        let Some(config) = settings.and_then(|settings| settings.tls.clone()) else {
            return self.http1(stream).await;
        };
        match self.handshake(stream, config).await {
            Ok(stream) if stream.get_ref().1.alpn_protocol() == Some(b"h2") => {
                self.http2(stream).await
            }
            Ok(stream) => self.http1(stream).await,
            Err(end) => end,
        }
    }

    /// The handshake, in the time that the first request's head has with it.
    async fn handshake(
        &mut self,
        stream: TcpStream,
        config: Arc<ServerConfig>,
    ) -> Result<TlsStream<TcpStream>, End> {
        let due = self.place.activity().due(&self.options);
        let late = async {
            match due {
                Some(due) => sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        let accepted = tokio::select! {
            accepted = tls::accept(stream, config) => accepted,
            () = late => {
                self.refuse(Reason::Tls, "it took too long");
                return Err(End::Late);
            }
            () = self.place.closed() => return Err(End::Displaced),
            _ = self.closing.changed() => return Err(End::Done(Ok(()))),
        };
        accepted.map_err(|failure| {
            if let Failure::Refused(reason, message) = failure {
                self.refuse(reason, &message);
            }
            End::Done(Ok(()))
        })
    }

    fn refuse(&self, reason: Reason, error: &str) {
        static HANDSHAKES: Limiter = Limiter::new(2, Duration::from_secs(60));
        static CERTIFICATES: Limiter = Limiter::new(2, Duration::from_secs(60));

        self.options.refusals.count(reason);
        let peer = self.peer;
        if reason == Reason::ClientCertificate {
            if let Some(left_out) = CERTIFICATES.admit() {
                tracing::warn!(%peer, error, left_out, "client certificate refused");
            }
        } else if let Some(left_out) = HANDSHAKES.admit() {
            tracing::warn!(%peer, error, left_out, "TLS handshake failed");
        }
    }

    async fn http1(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> End {
        let Self {
            peer,
            place,
            front,
            options,
            closing,
        } = self;
        let activity = place.activity();
        let service = service_fn(async |request| {
            let work = activity.begin();
            let response = front.answer(peer, &request).await;
            place.answered(work).until_drained();
            Ok::<_, Infallible>(response)
        });
        let connection = http1::Builder::new()
            // Its own time-out would close idle connections as well; the phases tell the two apart.
            .header_read_timeout(None)
            .max_buf_size(HEAD_BYTES)
            .serve_connection(TokioIo::new(Watched::http1(stream, activity)), service);
        drive(connection, &place, &options, closing).await
    }

    async fn http2(self, stream: TlsStream<TcpStream>) -> End {
        let Self {
            peer,
            place,
            front,
            options,
            closing,
        } = self;
        let service = {
            let place = Arc::clone(&place);
            service_fn(move |request: Request<Incoming>| {
                // Here and not in the future, which another task polls later.
                let work = place.activity().begin();
                let (front, place) = (Arc::clone(&front), Arc::clone(&place));
                async move {
                    let is_head = *request.method() == Method::HEAD;
                    let response = front.answer(peer, &request).await;
                    Ok::<_, Infallible>(in_chunks(response, place.answered(work), is_head))
                }
            })
        };
        let connection = http2::Builder::new(TokioExecutor::new())
            .max_concurrent_streams(STREAMS)
            .max_header_list_size(HEAD_BYTES as u32)
            .max_pending_accept_reset_streams(RESETS)
            .max_local_error_reset_streams(RESETS)
            .max_send_buf_size(SEND_BYTES)
            .initial_stream_window_size(RECEIVE_BYTES)
            .initial_connection_window_size(RECEIVE_BYTES)
            .serve_connection(TokioIo::new(stream), service);
        drive(connection, &place, &options, closing).await
    }
}

/// What hyper's two kinds of connection have in common.
trait Drive: Future<Output = hyper::Result<()>> {
    /// No more requests; what is under way is answered.
    fn end(self: Pin<&mut Self>);
}

impl<I, S, B> Drive for http1::Connection<I, S>
where
    Self: Future<Output = hyper::Result<()>>,
    S: hyper::service::HttpService<Incoming, ResBody = B>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
    B: Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn end(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<I, S, B> Drive for http2::Connection<I, S, TokioExecutor>
where
    Self: Future<Output = hyper::Result<()>>,
    S: hyper::service::HttpService<Incoming, ResBody = B>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
    B: Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    TokioExecutor: hyper::rt::bounds::Http2ServerConnExec<S::Future, B>,
{
    fn end(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

async fn drive(
    connection: impl Drive,
    place: &Place,
    options: &Options,
    mut closing: watch::Receiver<()>,
) -> End {
    let activity = place.activity();
    let mut connection = pin!(connection);
    let mut clock = pin!(sleep_until(Instant::now()));
    let mut displaced = pin!(place.closed());
    let mut end = pin!(closing.changed());
    let mut is_ending = false;

    std::future::poll_fn(move |context| {
        if displaced.as_mut().poll(context).is_ready() {
            return Poll::Ready(End::Displaced);
        }
        if !is_ending && end.as_mut().poll(context).is_ready() {
            is_ending = true;
            connection.as_mut().end();
        }
        if let Poll::Ready(ended) = connection.as_mut().poll(context) {
            return Poll::Ready(End::Done(ended));
        }
        // What has come by now has just been read; the rest of a head is not waited for.
        if is_ending && activity.is_without_work() {
            return Poll::Ready(End::Done(Ok(())));
        }
        // Polling the connection is what moves it from one phase to the next, so the clock is set after it.
        let Some(due) = activity.due(options) else {
            return Poll::Pending;
        };
        if clock.deadline() != due {
            clock.as_mut().reset(due);
        }
        ready!(clock.as_mut().poll(context));
        Poll::Ready(End::Late)
    })
    .await
}

/// An answer that is handed over in pieces, so that what the client does not take is not copied for it, and that tells when
/// it is gone.
struct Chunks {
    rest: Bytes,
    _delivery: Delivery,
}

fn in_chunks(
    response: Response<Full<Bytes>>,
    delivery: Delivery,
    is_head: bool,
) -> Response<Chunks> {
    let (mut head, body) = response.into_parts();
    let mut rest = body.into_inner().unwrap_or_default();
    if is_head {
        head.headers
            .insert(CONTENT_LENGTH, HeaderValue::from(rest.len()));
        rest.clear();
    }
    let chunks = Chunks {
        rest,
        _delivery: delivery,
    };
    Response::from_parts(head, chunks)
}

impl Body for Chunks {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let length = self.rest.len().min(CHUNK_BYTES);
        let chunk = self.rest.split_to(length);
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}

/// A stream of HTTP/1 that tells what passes.
struct Watched<T> {
    stream: T,
    activity: Arc<Activity>,
}

impl<T> Watched<T> {
    fn http1(stream: T, activity: &Arc<Activity>) -> Self {
        Self {
            stream,
            activity: Arc::clone(activity),
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.activity.received();
        }
        polled
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// hyper flushes a stream once it has written all it holds.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = ready!(Pin::new(&mut self.stream).poll_flush(context));
        self.activity.drained();
        Poll::Ready(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
