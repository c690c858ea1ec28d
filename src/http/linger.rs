//! A request body that keeps being read when nobody wants it any more.
//!
//! An answer may come before the body has been read: a refusal, say. Closing a connection that
//! has unread bytes resets it, and a sender that is still writing then never sees the answer. So
//! the rest is read and thrown away, for a while; the connection stays good for the next request.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, SizeHint};

/// How long the rest of an unwanted body is read.
const LINGER: Duration = Duration::from_secs(5);

/// A body whose unread rest is thrown away in the background when it is dropped.
pub struct Lingering<B>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Send,
{
    /// `None` after its end or an error.
    inner: Option<B>,
    /// The client holds the body back until it is asked for: unread, it will not come.
    awaits_continue: bool,
}

impl<B> Lingering<B>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Send,
{
    /// `expects_continue`: the request bears `Expect: 100-continue`.
    pub fn new(body: B, expects_continue: bool) -> Self {
        Self {
            inner: Some(body),
            awaits_continue: expects_continue,
        }
    }
}

impl<B> Body for Lingering<B>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Send,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        self.awaits_continue = false;
        let Some(inner) = &mut self.inner else {
            return Poll::Ready(None);
        };
        let polled = Pin::new(inner).poll_frame(context);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            self.inner = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let inner = self.inner.as_ref();
        inner.map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl<B> Drop for Lingering<B>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Send,
{
    fn drop(&mut self) {
        let Some(mut rest) = self.inner.take() else {
            return;
        };
        if rest.is_end_stream() || self.awaits_continue {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        // Detached, but never for long: it ends with the body, with its connection, or with time.
        runtime.spawn(async move {
            let _over = tokio::time::timeout(LINGER, async {
                while let Some(Ok(_unwanted)) = rest.frame().await {}
            })
            .await;
        });
    }
}
