//! One connection: HTTP/1 over any stream, watched for what it is at and closed when it is due.

use std::convert::Infallible;
use std::future::Future;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::Options;
use super::places::{Activity, Place};
use super::routes::Front;

/// Bytes of a request's head, and of an answer's head that wait to be written.
const HEAD_BYTES: usize = 16 << 10;

/// How a connection ended.
enum End {
    /// By itself, or by an error of the client.
    Done(hyper::Result<()>),
    /// It took too long.
    Late,
    /// Its place was needed.
    Displaced,
}

/// Serves a connection until it ends, is due, is displaced, or `closing` has its sender dropped and the request under way
/// is answered.
pub(super) async fn run(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: SocketAddr,
    place: Place,
    front: Arc<Front>,
    options: Arc<Options>,
    closing: watch::Receiver<()>,
) {
    match drive(stream, peer, &place, &front, &options, closing).await {
        End::Done(Ok(())) => {}
        // At debug, since anybody can bring these about, as often as they like.
        End::Done(Err(error)) => tracing::debug!(%peer, %error, "connection failed"),
        End::Late => tracing::debug!(%peer, "connection closed: it took too long"),
        End::Displaced => tracing::debug!(%peer, "connection closed: its place was needed"),
    }
}

async fn drive(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: SocketAddr,
    place: &Place,
    front: &Front,
    options: &Options,
    mut closing: watch::Receiver<()>,
) -> End {
    let activity = place.activity();
    let service = service_fn(async |request| {
        activity.busy();
        let response = front.answer(peer, &request).await;
        place.writing();
        Ok::<_, Infallible>(response)
    });
    let stream = Watched {
        stream,
        activity: Arc::clone(activity),
    };
    let mut connection = pin!(
        http1::Builder::new()
            // Its own time-out would close idle connections as well; the phases tell the two apart.
            .header_read_timeout(None)
            .max_buf_size(HEAD_BYTES)
            .serve_connection(TokioIo::new(stream), service)
    );
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
            connection.as_mut().graceful_shutdown();
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

/// A stream that tells what passes.
struct Watched<T> {
    stream: T,
    activity: Arc<Activity>,
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
