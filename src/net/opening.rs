//! The first bytes of a connection have their time.
//!
//! hyper-util tells HTTP/1.1 and HTTP/2 apart by them, without a timer: who says nothing, or a part of
//! HTTP/2's preface, would hold its connection for ever.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

/// What a connection of HTTP/2 begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A stream whose reads fail unless it begins within its time: with all of HTTP/2's preface, or with
/// anything else, which is HTTP/1.1 and has a timer of its own. It costs nothing from then on.
pub(super) struct Opening<S> {
    stream: S,
    awaited: Option<Awaited>,
}

struct Awaited {
    /// What is to come of the preface.
    rest: &'static [u8],
    deadline: Pin<Box<Sleep>>,
}

impl<S> Opening<S> {
    /// From now on it has `within`.
    pub(super) fn new(stream: S, within: Duration) -> Self {
        let awaited = Awaited { rest: PREFACE, deadline: Box::pin(sleep(within)) };
        Self { stream, awaited: Some(awaited) }
    }
}

impl Awaited {
    /// Whether more has to come after these bytes. None are the end.
    fn go_on(&mut self, bytes: &[u8]) -> bool {
        match self.rest.strip_prefix(bytes) {
            Some(rest) => self.rest = rest,
            None => return false,
        }
        !bytes.is_empty() && !self.rest.is_empty()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Opening<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { stream, awaited } = &mut *self;
        let Some(opening) = awaited else {
            return Pin::new(stream).poll_read(context, buffer);
        };
        let before = buffer.filled().len();
        if let Poll::Ready(read) = Pin::new(stream).poll_read(context, buffer) {
            if !opening.go_on(&buffer.filled()[before..]) {
                *awaited = None;
            }
            return Poll::Ready(read);
        }
        ready!(opening.deadline.as_mut().poll(context));
        let error = io::Error::new(io::ErrorKind::TimedOut, "its first bytes did not come in time");
        Poll::Ready(Err(error))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Opening<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
