//! What one connection has proven.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sr_crypto::{Hash, verify_capability};
use sr_wire::{
    Right, SpaceId, SpaceKeys,
    api::{CreateSpace, ErrorCode, HeadSwap, Prove, SpaceRotate},
    create_bytes, labels, limits, prove_bytes, rotate_bytes, swap_bytes,
};
use tokio::sync::watch;

/// The state of a connection. It ends with it.
pub(crate) struct Connection {
    binding: [u8; 32],
    pub(crate) spki_hash: Hash,
    state: Mutex<State>,
    requests: watch::Sender<usize>,
}

/// A request that is being answered.
pub(crate) struct InRequest(Arc<Connection>);

impl Drop for InRequest {
    fn drop(&mut self) {
        self.0.requests.send_modify(|requests| *requests -= 1);
    }
}

#[derive(Default)]
struct State {
    /// And of which generation the key was.
    proven: HashMap<(SpaceId, Right), u32>,
    counter: u64,
}

impl Connection {
    pub(crate) fn new(binding: [u8; 32], spki_hash: Hash) -> Self {
        Self { binding, spki_hash, state: Mutex::default(), requests: watch::Sender::new(0) }
    }

    /// Counts a request as long as the guard lives.
    pub(crate) fn request(self: &Arc<Self>) -> InRequest {
        self.requests.send_modify(|requests| *requests += 1);
        InRequest(Arc::clone(self))
    }

    /// Returns when there was no request for `duration`.
    pub(crate) async fn idle_for(&self, duration: Duration) {
        let mut requests = self.requests.subscribe();
        loop {
            // The sender lives in `self`, so neither wait can fail.
            let _ = requests.wait_for(|requests| *requests == 0).await;
            if tokio::time::timeout(duration, requests.changed()).await.is_err() {
                return;
            }
        }
    }

    /// Returns after `duration` if no right was proven by then, and never otherwise.
    pub(crate) async fn unproven_for(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
        if !self.state().proven.is_empty() {
            std::future::pending::<()>().await;
        }
    }

    /// Takes a proof of a right.
    pub(crate) fn prove(&self, proof: &Prove, keys: &SpaceKeys) -> Result<(), ErrorCode> {
        let key = keys.of(proof.right).ok_or(ErrorCode::RightRefused)?;
        let bytes = prove_bytes(&self.binding, proof.space, proof.right);
        verify_capability(labels::PROVE, key, &bytes, &proof.signature)
            .map_err(|_| ErrorCode::RightRefused)?;
        let mut state = self.state();
        let is_new = !state.proven.contains_key(&(proof.space, proof.right));
        if is_new && state.proven.len() >= limits::RIGHTS_PER_CONNECTION_MAX {
            return Err(ErrorCode::QuotaFull);
        }
        state.proven.insert((proof.space, proof.right), keys.generation);
        Ok(())
    }

    /// Returns of which generation the key was that proved the right on this connection.
    pub(crate) fn proven(&self, space: SpaceId, right: Right) -> Option<u32> {
        self.state().proven.get(&(space, right)).copied()
    }

    /// Checks that who makes a space holds the append key that the space will have.
    pub(crate) fn check_create(&self, request: &CreateSpace) -> Result<(), ErrorCode> {
        let bytes = create_bytes(&self.binding, request.space, &request.keys, &request.voucher);
        verify_capability(labels::CREATE, &request.keys.append, &bytes, &request.signature)
            .map_err(|_| ErrorCode::RightRefused)
    }

    /// Checks the signature over one swap, whose counter must be above all before it.
    pub(crate) fn check_swap(&self, swap: &HeadSwap, keys: &SpaceKeys) -> Result<(), ErrorCode> {
        let bytes = swap_bytes(&self.binding, swap.proof.counter, &swap.head);
        verify_capability(labels::SWAP, &keys.append, &bytes, &swap.proof.signature)
            .map_err(|_| ErrorCode::RightRefused)?;
        self.count(swap.proof.counter)
    }

    /// Checks the signature over one rotation, by a right that the space has now.
    pub(crate) fn check_rotate(
        &self,
        rotate: &SpaceRotate,
        keys: &SpaceKeys,
    ) -> Result<(), ErrorCode> {
        let key = keys.of(rotate.by).ok_or(ErrorCode::RightRefused)?;
        let bytes = rotate_bytes(&self.binding, rotate.proof.counter, rotate.space, &rotate.keys);
        verify_capability(labels::ROTATE, key, &bytes, &rotate.proof.signature)
            .map_err(|_| ErrorCode::RightRefused)?;
        self.count(rotate.proof.counter)
    }

    /// The counter of signed acts only rises.
    fn count(&self, counter: u64) -> Result<(), ErrorCode> {
        let mut state = self.state();
        if counter <= state.counter {
            return Err(ErrorCode::RightRefused);
        }
        state.counter = counter;
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
