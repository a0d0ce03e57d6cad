//! The server as a whole: it accepts channels and serves each.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use sr_crypto::Hash;
use sr_store::{BlobStore, Caps, MetaStore, StoreError};
use sr_wire::{
    Card, CardResponse, PackId, Right, SpaceId, TlsKey, api::ErrorCode, encode, labels, limits,
};
use tokio::sync::Semaphore;

use crate::{
    Channel, Identity, Listen,
    connection::Connection,
    link::Links,
    log::{self, Log},
    routes::{self, Refusal},
    witness::Witness,
};

/// Unix seconds now.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// How long the identity key vouches for a TLS key. A client asks at each connection, so it may be
/// short; it is this long that a client's wrong clock accuses nobody.
const TLS_KEY_VALID_S: u64 = 30 * 86_400;
const STREAM_WINDOW: u32 = 2 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;
/// A connection without a request for this long makes room for another.
const IDLE_MAX: Duration = Duration::from_secs(120);
/// A connection that proves no right makes room for one that does.
const UNPROVEN_MAX: Duration = Duration::from_secs(30);
/// How often the server looks whether something that was deleted may go.
const TRASH_INTERVAL: Duration = Duration::from_secs(3600);
/// How often a checkpoint is made, if there is something new.
const PUBLISH_INTERVAL: Duration = Duration::from_secs(1);
const DAY_S: u64 = 86_400;
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(30);

/// Where a server keeps things.
#[derive(Clone)]
pub struct Stores {
    /// Records.
    pub meta: Arc<dyn MetaStore>,
    /// Packs.
    pub blobs: Arc<dyn BlobStore>,
}

impl std::fmt::Debug for Stores {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stores(..)")
    }
}

/// A server, apart from its network.
pub struct Server {
    pub(crate) stores: Stores,
    pub(crate) identity: Identity,
    pub(crate) log: Log,
    pub(crate) witnesses: Vec<Witness>,
    log_failure: Mutex<Option<String>>,
    pub(crate) caps: Caps,
    /// Packs that are being received: one connection at a time writes an id.
    pub(crate) receiving: Mutex<HashSet<PackId>>,
    /// Long requests that are being received.
    pub(crate) give_backs: Semaphore,
    /// Devices that are being linked.
    pub(crate) links: Links,
    /// A day, and how many states of backups came to the log on it: those that go on from another, and first ones.
    freshness: Mutex<(u64, [u64; 2])>,
    clock: Clock,
    report: Box<dyn Fn(&str) + Send + Sync>,
}

impl Server {
    /// Makes a server, and the log of one that had none. `report` is told of the server's own failures; what
    /// it is told names no space, no pack and no client.
    ///
    /// **Errors** [`StoreError`].
    pub fn new(
        identity: Identity,
        stores: Stores,
        caps: Caps,
        clock: Clock,
        report: Box<dyn Fn(&str) + Send + Sync>,
    ) -> Result<Self, StoreError> {
        let meta = &*stores.meta;
        let parse = |(url, keys): &(String, String)| Witness::parse(url, keys);
        let witnesses: Vec<Witness> =
            meta.witnesses()?.iter().map(parse).collect::<Result<_, _>>()?;
        let identity = identity.with_policies(&meta.policies()?);
        log::begin(meta, &identity, clock())?;
        let identity = log::renew_card(meta, identity, &witnesses, clock())?;
        let (receiving, links, log) = (Mutex::default(), Links::default(), Log::default());
        Ok(Self {
            stores,
            identity,
            log,
            witnesses,
            log_failure: Mutex::default(),
            caps,
            receiving,
            give_backs: Semaphore::new(limits::GIVE_BACKS_MAX),
            links,
            freshness: Mutex::default(),
            clock,
            report,
        })
    }

    /// Refuses a state of backups when so many came today: anybody can send some.
    pub(crate) fn has_room_for_freshness(&self, is_first: bool) -> Result<(), ErrorCode> {
        let came = self.today().1[usize::from(is_first)];
        if came < limits::FRESHNESS_PER_DAY_MAX { Ok(()) } else { Err(ErrorCode::QuotaFull) }
    }

    /// Counts one that came.
    pub(crate) fn count_freshness(&self, is_first: bool) {
        self.today().1[usize::from(is_first)] += 1;
    }

    fn today(&self) -> MutexGuard<'_, (u64, [u64; 2])> {
        let mut counted = self.freshness.lock().unwrap_or_else(PoisonError::into_inner);
        let day = self.now_s() / DAY_S;
        if counted.0 != day {
            *counted = (day, [0; 2]);
        }
        counted
    }

    /// Returns the server's card.
    #[must_use]
    pub fn card(&self) -> &Card {
        self.identity.card()
    }

    /// Serves until the future is dropped. One connection's failure is its own.
    pub async fn serve(self: Arc<Self>, mut listener: impl Listen) {
        let connections = Arc::new(Semaphore::new(limits::CONNECTIONS_MAX));
        let spki_hash = listener.spki_hash();
        // A client that knows the log never finds it gone.
        Self::blocking(&self, Self::publish).await;
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(Arc::clone(&self).again_and_again(Self::empty_trash, TRASH_INTERVAL));
        tasks.spawn(Arc::clone(&self).again_and_again(Self::publish, PUBLISH_INTERVAL));
        loop {
            let Ok(permit) = Arc::clone(&connections).acquire_owned().await else { return };
            let handshake = match listener.accept().await {
                Ok(handshake) => handshake,
                Err(error) => {
                    (self.report)(&format!("a connection was not accepted: {error}"));
                    // Out of file descriptors, most likely: accepting at once would spin.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            while tasks.try_join_next().is_some() {}
            let server = Arc::clone(&self);
            tasks.spawn(async move {
                // A client that goes away mid-way is no failure of the server.
                if let Ok(channel) = handshake.await {
                    server.serve_channel(channel, spki_hash).await;
                }
                drop(permit);
            });
        }
    }

    /// Does work that reports its failures itself, now and after each interval.
    async fn again_and_again(self: Arc<Self>, work: fn(&Self), interval: Duration) {
        loop {
            Self::blocking(&self, work).await;
            tokio::time::sleep(interval).await;
        }
    }

    async fn blocking(server: &Arc<Self>, work: fn(&Self)) {
        let server = Arc::clone(server);
        drop(tokio::task::spawn_blocking(move || work(&server)).await);
    }

    /// Deletes the packs that were deleted long enough ago, and old parts of packs. A server that serves does so by itself; a
    /// failure is reported, and nothing is lost by it.
    pub fn empty_trash(&self) {
        let meta = &self.stores.meta;
        let gone = meta.put_back().and_then(|put_back| match put_back {
            // Somebody may have brought back, after the backup, what goes now.
            Some(_) => Ok(Vec::new()),
            None => meta.count_day(self.now_s() / DAY_S),
        });
        let deleted = gone.and_then(|gone| {
            // What a crash leaves here has no record any more, and goes at the next start.
            gone.into_iter().try_for_each(|pack| self.stores.blobs.delete(pack))?;
            self.stores.blobs.drop_old_parts()
        });
        if let Err(error) = deleted {
            self.report(&error);
        }
    }

    /// Publishes the entries that came to the log since the last time. A server that serves does so by
    /// itself, once a second; a failure is reported, and the next time tries again.
    pub fn publish(&self) {
        let failed = self.log.publish(self).and_then(|()| self.log.cosign(self)).err();
        let mut last = self.log_failure.lock().unwrap_or_else(PoisonError::into_inner);
        let text = failed.as_ref().map(ToString::to_string);
        // Once, not each second.
        if let Some(error) = failed
            && *last != text
        {
            self.report(&error);
        }
        *last = text;
    }

    async fn serve_channel(self: Arc<Self>, channel: Channel, spki_hash: Hash) {
        let connection = Arc::new(Connection::new(channel.binding, spki_hash));
        let idle = Arc::clone(&connection);
        let service = service_fn(move |request| {
            routes::handle(Arc::clone(&self), Arc::clone(&connection), request)
        });
        let served = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .max_concurrent_streams(limits::STREAMS_MAX)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(4096)
            .serve_connection(TokioIo::new(channel.io), service);
        // However it ends, a connection's end is no failure of the server.
        tokio::select! {
            _ = served => {}
            () = idle.idle_for(IDLE_MAX) => {}
            () = idle.unproven_for(UNPROVEN_MAX) => {}
        }
    }

    /// Refuses unless the connection has proven the right, by the key that the space has now. (The
    /// right to read is for life.)
    pub(crate) fn require(
        &self,
        connection: &Connection,
        space: SpaceId,
        right: Right,
    ) -> Result<(), Refusal> {
        let proven = connection.proven(space, right).ok_or(ErrorCode::RightRefused)?;
        if right != Right::Read && self.stores.meta.space_keys(space)?.generation != proven {
            return Err(ErrorCode::RightRefused.into());
        }
        Ok(())
    }

    pub(crate) fn now_s(&self) -> u64 {
        (self.clock)()
    }

    pub(crate) fn card_response(&self, spki_hash: Hash) -> Vec<u8> {
        let tls_key = TlsKey { spki_hash, not_after: self.now_s() + TLS_KEY_VALID_S };
        let signing = &self.identity.signing;
        let tls_signature = signing.sign(labels::CARD_TLS, &encode(&tls_key)).into();
        // A card that nobody finds in the log, nobody is shown.
        // But who was put back has shown it before.
        let is_put_back = matches!(self.stores.meta.put_back(), Ok(Some(_)));
        let shown = if is_put_back { usize::MAX } else { self.log.cards() };
        let cards = self.identity.cards.iter().take(shown).cloned().collect();
        encode(&CardResponse { cards, tls_key, tls_signature })
    }

    /// Tells the operator.
    pub(crate) fn tell(&self, what: &str) {
        (self.report)(what);
    }

    pub(crate) fn report(&self, error: &StoreError) {
        let mut text = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        (self.report)(&text);
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("card", &self.card().short_name()).finish_non_exhaustive()
    }
}
