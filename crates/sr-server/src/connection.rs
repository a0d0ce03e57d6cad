//! What one connection has proven.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sr_crypto::{CAPABILITY_KEY_LEN, Hash, Label, verify_capability};
use sr_wire::{
    Right, SpaceId, SpaceKeys, SwapProof,
    api::{CreateSpace, ErrorCode, Prove},
    create_bytes, labels, limits, prove_bytes,
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

    /// Checks a right's signature over one act, whose counter must be above all before it. `bytes`
    /// returns what was signed, from the binding and the counter.
    pub(crate) fn check_act(
        &self,
        label: Label,
        key: &[u8; CAPABILITY_KEY_LEN],
        proof: &SwapProof,
        bytes: impl FnOnce(&[u8; 32], u64) -> Vec<u8>,
    ) -> Result<(), ErrorCode> {
        let refused = ErrorCode::RightRefused;
        let bytes = bytes(&self.binding, proof.counter);
        verify_capability(label, key, &bytes, &proof.signature).map_err(|_| refused)?;
        let mut state = self.state();
        if proof.counter <= state.counter {
            return Err(refused);
        }
        state.counter = proof.counter;
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
