//! `--limit-upload` and `--limit-download`: bytes a second over all connections of a client together.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};

use crate::Io;

/// What may move at once, as time.
const PIECE: Duration = Duration::from_millis(50);
const PIECES_PER_S: u64 = 20;

/// What a client may send and receive. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Limits {
    up: Option<Arc<Line>>,
    down: Option<Arc<Line>>,
}

impl Limits {
    /// In bytes a second; none is no limit.
    pub(crate) fn new(up: Option<u64>, down: Option<u64>) -> Self {
        let line = |rate: u64| Arc::new(Line { rate: rate.max(1), free_at: Mutex::new(None) });
        Self { up: up.map(line), down: down.map(line) }
    }

    /// Puts a connection under these limits.
    pub(crate) fn apply(&self, io: Box<dyn Io>) -> Box<dyn Io> {
        if self.up.is_none() && self.down.is_none() {
            return io;
        }
        let waits = |line: &Option<Arc<Line>>| line.clone().map(|line| Wait { line, sleep: None });
        Box::new(Limited { io, up: waits(&self.up), down: waits(&self.down) })
    }
}

/// One direction of the line.
#[derive(Debug)]
struct Line {
    rate: u64,
    /// When what was moved so far would be through.
    free_at: Mutex<Option<Instant>>,
}

impl Line {
    fn piece(&self) -> usize {
        usize::try_from((self.rate / PIECES_PER_S).max(1)).unwrap_or(usize::MAX)
    }

    fn free_at(&self) -> Option<Instant> {
        *self.free_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn moved(&self, bytes: usize) {
        let micros = (bytes as u64).saturating_mul(1_000_000) / self.rate;
        let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let from = free_at.map_or(now, |free_at| free_at.max(now));
        *free_at = Some(from + Duration::from_micros(micros));
    }
}

struct Wait {
    line: Arc<Line>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Wait {
    /// Is ready when the line is free.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            if let Some(sleep) = &mut self.sleep {
                ready!(sleep.as_mut().poll(context));
                self.sleep = None;
            }
            match self.line.free_at() {
                // Timers tick in milliseconds: what is ahead by less than a piece goes on.
                Some(free_at) if free_at > Instant::now() + PIECE => {
                    self.sleep = Some(Box::pin(tokio::time::sleep_until(free_at)));
                }
                _ => return Poll::Ready(()),
            }
        }
    }
}

struct Limited {
    io: Box<dyn Io>,
    up: Option<Wait>,
    down: Option<Wait>,
}

impl AsyncRead for Limited {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let Some(down) = &mut this.down else {
            return Pin::new(&mut this.io).poll_read(context, buffer);
        };
        ready!(down.poll(context));
        let mut piece = vec![0; buffer.remaining().min(down.line.piece())];
        let mut read = ReadBuf::new(&mut piece);
        ready!(Pin::new(&mut this.io).poll_read(context, &mut read))?;
        buffer.put_slice(read.filled());
        down.line.moved(read.filled().len());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Limited {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let Some(up) = &mut this.up else {
            return Pin::new(&mut this.io).poll_write(context, bytes);
        };
        ready!(up.poll(context));
        let piece = &bytes[..bytes.len().min(up.line.piece())];
        let written = ready!(Pin::new(&mut this.io).poll_write(context, piece))?;
        up.line.moved(written);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}
