//! What a profile remembers of each space: the head that it accepted, the one that it sent, and what the
//! server has signed.

use sr_crypto::Hash;
use sr_vault::head::HeadPlace;
use sr_wire::{DeviceId, SealedHead, SignedAnswer, SpaceId, decode, encode, limits};
use tls_codec::{TlsDeserializeBytes, TlsSerialize, TlsSize};

use crate::{ClientError, profile::Profile};

/// What this client accepted of a space.
#[derive(Clone, Debug, Default)]
pub(crate) struct Accepted {
    /// The newest head, whoever signed it.
    pub(crate) tip: Option<HeadPlace>,
    /// Its place in the account chain.
    pub(crate) chain_seq: u64,
    /// The newest head that counts.
    pub(crate) head: Option<SealedHead>,
}

#[derive(TlsSerialize, TlsDeserializeBytes, TlsSize)]
struct AcceptedRow {
    seq: u64,
    hash: Hash,
    chain_seq: u64,
    head: Option<SealedHead>,
}

impl Profile {
    /// Returns what this client accepted of a space.
    pub(crate) fn accepted(&self, space: SpaceId) -> Result<Accepted, ClientError> {
        let Some(bytes) = self.get(&format!("head/{space}"))? else {
            return Ok(Accepted::default());
        };
        let row: AcceptedRow =
            decode("head", &bytes, limits::MESSAGE_LEN_MAX).map_err(|_| self.damaged())?;
        let tip = Some(HeadPlace { seq: row.seq, hash: row.hash });
        Ok(Accepted { tip, chain_seq: row.chain_seq, head: row.head })
    }

    /// Accepts a head: from here on, nothing older is. The one that was sent is answered by it.
    pub(crate) fn set_accepted(
        &mut self,
        space: SpaceId,
        tip: HeadPlace,
        chain_seq: u64,
        head: Option<SealedHead>,
    ) -> Result<(), ClientError> {
        let row = AcceptedRow { seq: tip.seq, hash: tip.hash, chain_seq, head };
        self.set(&format!("head/{space}"), &encode(&row))
    }

    /// Returns the head that was sent and not answered.
    pub(crate) fn sent(&self, space: SpaceId) -> Result<Option<SealedHead>, ClientError> {
        self.get(&format!("sent/{space}"))?
            .map(|bytes| decode("head", &bytes, limits::MESSAGE_LEN_MAX))
            .transpose()
            .map_err(|_| self.damaged())
    }

    /// Remembers a head before it is sent.
    pub(crate) fn set_sent(&self, head: &SealedHead) -> Result<(), ClientError> {
        self.set(&format!("sent/{}", head.space), &encode(head))
    }

    /// Returns the limited device that was last seen to have written what it may not.
    pub(crate) fn overreach(&self, space: SpaceId) -> Result<Option<DeviceId>, ClientError> {
        let bytes = self.get(&format!("overreach/{space}"))?;
        Ok(bytes.and_then(|bytes| Some(DeviceId(bytes.try_into().ok()?))))
    }

    pub(crate) fn set_overreach(
        &self,
        space: SpaceId,
        device: DeviceId,
    ) -> Result<(), ClientError> {
        self.set(&format!("overreach/{space}"), &device.0)
    }

    /// Returns at which state of the account the heads of a space were judged.
    pub(crate) fn judged(&self, space: SpaceId) -> Result<Option<u64>, ClientError> {
        let bytes = self.get(&format!("judged/{space}"))?;
        Ok(bytes.and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes))
    }

    pub(crate) fn set_judged(&self, space: SpaceId, seq: u64) -> Result<(), ClientError> {
        self.set(&format!("judged/{space}"), &seq.to_be_bytes())
    }

    /// Returns the newest signed answer about a space.
    pub(crate) fn answer(&self, space: SpaceId) -> Result<Option<SignedAnswer>, ClientError> {
        self.get(&format!("answer/{space}"))?
            .map(|bytes| decode("answer", &bytes, limits::MESSAGE_LEN_MAX))
            .transpose()
            .map_err(|_| self.damaged())
    }

    /// Remembers the newest signed answer about a space.
    pub(crate) fn set_answer(
        &self,
        space: SpaceId,
        answer: &SignedAnswer,
    ) -> Result<(), ClientError> {
        self.set(&format!("answer/{space}"), &encode(answer))
    }
}
