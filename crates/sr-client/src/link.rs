//! Linking a device, on either side. The ceremony is `sr_keys`' and `spec/linking.md`'s.

use std::{
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use sr_crypto::Rng;
use sr_keys::{
    Anchor, DeviceKeys, LinkAnswer, LinkCode, LinkCommit, LinkOpening, Pins, Transcript, VaultKeys,
};
use sr_trust::{Device, DeviceKind, pop};
use sr_wire::{DeviceId, Invite, Misbehaviour, VLBytes, api::ErrorCode, decode, encode, limits};
use tls_codec::{DeserializeBytes, Serialize, TlsDeserializeBytes, TlsSerialize, TlsSize};

use crate::{
    Client, ClientError, Clock, MakeDialer,
    account::{self, PendingAct},
    client::tls_dialer,
    devices::unless_overtaken,
    heads,
    mirror::checkpoint_of,
    profile::{NewProfile, Profile},
    remote::{Remote, os_rng, runtime},
    root,
};

const COMMIT: u8 = 0;
const ANSWER: u8 = 1;
const OPENING: u8 = 2;
const POP: u8 = 3;
const DONE: u8 = 4;

/// How long either side waits for the other.
pub(crate) const LINK_TIME: Duration = Duration::from_secs(600);
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// Attempts with a wrong word after which the old device links nothing for a while.
const FAILURES_MAX: u64 = 3;
const LOCKED_S: u64 = 3600;
/// Pins of this many vaults of limited devices fit a message.
const PLACES_MAX: usize = 128;

/// The last message: where the account is now, and what the old device had seen.
#[derive(TlsSerialize, TlsDeserializeBytes, TlsSize)]
struct Done {
    seq: u64,
    block: sr_crypto::Hash,
    pins: VLBytes,
}

/// A linking on the new device.
pub struct Linking {
    remote: Remote,
    address: String,
    clock: Clock,
    device: DeviceKeys,
    opening: LinkOpening,
    code: LinkCode,
    transcript: Option<Transcript>,
    done: Option<Done>,
    patience: Duration,
}

impl Linking {
    /// Begins on the new device, at the server of `address`, which is not believed before the words
    /// are compared. A limited device gets a vault of its own, to which it can only add.
    ///
    /// **Errors** [`ClientError::Unreachable`] and those of the network.
    pub fn begin(address: &str, kind: DeviceKind, clock: Clock) -> Result<Self, ClientError> {
        Self::begin_by(address, kind, clock, &tls_dialer())
    }

    /// As [`Linking::begin`], over another network than TLS.
    ///
    /// **Errors** as [`Linking::begin`].
    pub fn begin_by(
        address: &str,
        kind: DeviceKind,
        clock: Clock,
        dialer: &MakeDialer,
    ) -> Result<Self, ClientError> {
        let remote = Remote::new(runtime()?, dialer(address)?, None, Arc::clone(&clock));
        let mut rng = os_rng();
        let (device, mut random) = (DeviceKeys::generate(&mut rng), [0; 32]);
        rng.fill_bytes(&mut random);
        let info = match kind {
            DeviceKind::Full => device.info(),
            DeviceKind::Limited => device.limited_info(),
        };
        let opening = LinkOpening { random, device: info };
        let code = LinkCode::random(&mut rng);
        remote.put_link(code.place(), COMMIT, encode(&opening.commit()))?;
        let address = address.to_owned();
        let (transcript, done) = (None, None);
        let patience = LINK_TIME;
        Ok(Self { remote, address, clock, device, opening, code, transcript, done, patience })
    }

    /// Sets how long this side waits for the other; ten minutes unless set.
    pub fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// Returns the code to type on the old device. It is no secret.
    #[must_use]
    pub fn code(&self) -> String {
        self.code.to_string()
    }

    /// Waits until the code was typed on the old device, and returns the three words to type there.
    ///
    /// **Errors** [`ClientError::LinkExpired`], [`ClientError::Misbehaviour`].
    pub fn words(&mut self) -> Result<Vec<&'static str>, ClientError> {
        let place = self.code.place();
        let answer: LinkAnswer = wait(&self.remote, &self.code, ANSWER, self.patience)?;
        let transcript = Transcript::new(&self.opening.commit(), answer, self.opening.clone())?;
        let account = transcript.answer().account;
        let joins = pop(&self.device.signing(), account, transcript.device(), &transcript.hash());
        self.remote.put_link(place, OPENING, encode(&self.opening))?;
        self.remote.put_link(place, POP, joins)?;
        let words = transcript.words_of_new();
        self.transcript = Some(transcript);
        Ok(words)
    }

    /// Waits until the old device has added this one. It shows three words then.
    ///
    /// **Errors** [`ClientError::LinkExpired`].
    pub fn wait(&mut self) -> Result<(), ClientError> {
        self.done = Some(wait(&self.remote, &self.code, DONE, self.patience)?);
        Ok(())
    }

    /// Makes the profile, if `words` are those that the old device shows. Before that, no block, pin
    /// or account is taken.
    ///
    /// **Errors** [`ClientError::WrongWords`]; [`ClientError::Misbehaviour`] for a server that is not
    /// the old device's, or that shows less than the old device has seen.
    pub fn finish(
        self,
        words: &[String],
        dir: &Path,
        device_name: &str,
    ) -> Result<Client, ClientError> {
        let (Some(transcript), Some(done)) = (self.transcript, self.done) else {
            return Err(ClientError::LinkExpired);
        };
        if !same_words(words, &transcript.words_of_old()) {
            return Err(ClientError::WrongWords);
        }
        let answer = transcript.answer();
        // The card is one of the things that the words are made of.
        let remote = self.remote.pinned(answer.card);
        let pins = Pins::open(done.pins.as_slice(), &transcript, &self.device.sealing())?;
        // SR-030
        let log_note = Vec::from(pins.log);
        let is_note = log_note.is_empty() || checkpoint_of(&log_note).is_some();
        Misbehaviour::LinkAltered.refuse_if(!is_note)?;
        let view = account::first_view(&remote, answer.account, Some((answer.seq, answer.block)))?;
        // SR-029: the block that adds this device is a part of it.
        let is_in = view.account.block_hash(done.seq) == Some(done.block)
            && view.account.device(self.device.id()).is_some_and(Device::is_live);
        Misbehaviour::ChainNotAsPromised.refuse_if(!is_in)?;
        let invite = Invite { address: self.address, card_hash: answer.card, token: [0; 16] };
        let owner = String::from_utf8_lossy(pins.name.as_slice()).into_owned();
        let mut profile = Profile::create(
            dir,
            NewProfile {
                now_s: (self.clock)(),
                invite: &invite,
                name: Some(owner.as_str()).filter(|name| !name.is_empty()),
                device_name,
                device: self.device,
                account: view.account,
                blocks: view.blocks,
                key_block: view.key_block,
                act: None,
                pins: pins.answers,
                places: pins.places,
                log_note,
                policy: pins.policy.into(),
                kept: None,
            },
        )?;
        adopt_spaces(&mut profile)?;
        let mut client = Client::new(profile, remote, self.clock);
        // Before anything is stored there: is it the log that the old device has seen?
        client.sync()?;
        if client.is_limited() {
            client.refresh()?;
        } else {
            client.adopt_record(device_name)?;
        }
        Ok(client)
    }
}

impl std::fmt::Debug for Linking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Linking({})", self.code)
    }
}

/// A linking on the old device, between the code and the words.
#[derive(Debug)]
pub struct LinkOffer {
    code: LinkCode,
    transcript: Transcript,
    pop: Vec<u8>,
    pins: Pins,
}

impl LinkOffer {
    /// Returns the new device if it is to be a limited one.
    #[must_use]
    pub fn limited(&self) -> Option<DeviceId> {
        let device = self.transcript.device();
        (device.kind == DeviceKind::Limited).then(|| device.id())
    }
}

impl Client {
    /// Sets how long this device waits for one that it links; ten minutes unless set.
    pub fn set_link_patience(&mut self, patience: Duration) {
        self.link_patience = patience;
    }

    /// Returns whether this device is a limited one.
    #[must_use]
    pub fn is_limited(&self) -> bool {
        self.profile.keys.is_limited()
    }

    /// Begins on the old device, with the code that the new one shows.
    ///
    /// **Errors** [`ClientError::LinkLocked`], [`ClientError::LinkCode`],
    /// [`ClientError::LinkExpired`], [`ClientError::Misbehaviour`].
    pub fn link(&mut self, code: &str) -> Result<LinkOffer, ClientError> {
        let (failures, locked_s) = self.profile.link_failures()?;
        let now_s = (self.clock)();
        if failures >= FAILURES_MAX && now_s < locked_s {
            return Err(ClientError::LinkLocked { until_s: locked_s });
        }
        let code = LinkCode::parse(code).ok_or(ClientError::LinkCode)?;
        self.fresh(Client::anchors)?;
        self.require_full()?;
        self.require_logged()?;
        let keys = Arc::clone(&self.profile.keys);
        let name = self.profile.name()?.unwrap_or_default().into_bytes().into();
        let log = self.profile.log_note()?.into();
        let policy = self.profile.pinned_policy()?.unwrap_or_default().into_bytes().into();
        let mut pins = Pins { name, answers: Vec::new(), places: Vec::new(), log, policy };
        let commit: LinkCommit = match look(&self.account_remote, &code, COMMIT)? {
            Some(commit) => commit,
            None => return Err(ClientError::LinkExpired),
        };
        // A limited device learns of no other space. Its own is new.
        if commit.kind == DeviceKind::Full {
            pins.answers.extend(self.profile.answer(keys.root()?.space())?);
            for vault in keys.vaults()? {
                let space = vault.space();
                if vault.limited().is_none() {
                    pins.answers.extend(self.profile.answer(space)?);
                } else if let Some(tip) = self.profile.accepted(space)?.tip {
                    pins.places.push(Anchor { space, seq: tip.seq, hash: tip.hash });
                }
            }
            // The newest, as far as there is room in a message.
            let too_many = pins.places.len().saturating_sub(PLACES_MAX);
            pins.places.drain(..too_many);
        } else if self.profile.invite()?.token == [0; 16] {
            // It needs a space, for which only an invite pays.
            return Err(ClientError::ServerRefused(ErrorCode::VoucherRefused));
        }
        let mut random = [0; 32];
        os_rng().fill_bytes(&mut random);
        let answer = LinkAnswer {
            account: keys.account.id(),
            seq: keys.account.seq(),
            block: keys.account.newest(),
            card: self.profile.invite()?.card_hash,
            random,
            pins: pins.hash(),
        };
        match self.account_remote.put_link(code.place(), ANSWER, encode(&answer)) {
            // Somebody has answered this code before.
            Err(ClientError::ServerRefused(ErrorCode::Exists)) => {
                return Err(ClientError::LinkExpired);
            }
            done => done?,
        }
        let opening: LinkOpening = wait(&self.account_remote, &code, OPENING, self.link_patience)?;
        let transcript = Transcript::new(&commit, answer, opening)?;
        let pop = wait_raw(&self.account_remote, &code, POP, self.link_patience)?;
        Ok(LinkOffer { code, transcript, pop, pins })
    }

    /// Adds the new device, if `words` are those that it shows, and returns the three words that it
    /// asks for. A wrong word ends the attempt; after three attempts this device links nothing for
    /// an hour.
    ///
    /// **Errors** [`ClientError::WrongWords`], and those of the account.
    pub fn link_finish(
        &mut self,
        offer: LinkOffer,
        words: &[String],
    ) -> Result<Vec<&'static str>, ClientError> {
        if !same_words(words, &offer.transcript.words_of_new()) {
            let (failures, _) = self.profile.link_failures()?;
            let failures = if failures >= FAILURES_MAX { 1 } else { failures + 1 };
            self.profile.set_link_failures(failures, (self.clock)() + LOCKED_S)?;
            return Err(ClientError::WrongWords);
        }
        self.profile.set_link_failures(0, 0)?;
        if let Some(device) = offer.limited() {
            self.make_limited(device)?;
        }
        unless_overtaken(|| {
            let added = self.try_add(&offer);
            if matches!(added, Err(ClientError::Overtaken)) {
                self.refresh()?;
            }
            added
        })?;
        let account = &self.profile.keys.account;
        let pins = offer.pins.seal(&offer.transcript).map_err(|_| Misbehaviour::LinkAltered)?;
        let done = Done { seq: account.seq(), block: account.newest(), pins: pins.into() };
        self.account_remote.put_link(offer.code.place(), DONE, encode(&done))?;
        Ok(offer.transcript.words_of_old())
    }

    /// Makes the space of a limited device, which must be there when the device is in the account, and
    /// gives it a name.
    fn make_limited(&mut self, device: DeviceId) -> Result<(), ClientError> {
        let keys = Arc::clone(&self.profile.keys);
        self.make_space(&keys.secrets()?.limited_vault(device), &self.remote.apart())?;
        let name = format!("append-only-{}", &device.to_string()[1..5]);
        root::update(&mut self.profile, &self.root_remote, &self.clock, |record| {
            record.set_name(device, &name);
        })?;
        Ok(())
    }

    fn try_add(&mut self, offer: &LinkOffer) -> Result<(), ClientError> {
        let keys = Arc::clone(&self.profile.keys);
        let act = keys.actor((self.clock)())?.add_device(
            &keys.device,
            offer.transcript.device(),
            offer.transcript.hash(),
            offer.pop.clone(),
            &mut os_rng(),
        );
        let act = PendingAct::new(act.map_err(|_| ClientError::NotAllowed)?, None);
        account::act(&mut self.profile, &self.account_remote, act, &self.clock)
    }

    /// Reads the root record on a device that has just joined, and gives this device its name.
    pub(crate) fn adopt_record(&mut self, device_name: &str) -> Result<(), ClientError> {
        let keys = Arc::clone(&self.profile.keys);
        self.make_space(keys.root()?, &self.root_remote)?;
        let device = keys.device.id();
        root::update(&mut self.profile, &self.root_remote, &self.clock, |record| {
            record.set_name(device, device_name);
        })?;
        let keys = Arc::clone(&self.profile.keys);
        if self.profile.space_generation(keys.vault.space())?.is_none() {
            self.profile.set_space_generation(keys.vault.space(), 0)?;
        }
        self.fresh(|client| {
            heads::newest(&mut client.profile, &client.remote, &keys.vault, false).map(drop)
        })
    }
}

/// Marks the root space as made by another device, of a generation that is not known.
pub(crate) fn adopt_spaces(profile: &mut Profile) -> Result<(), ClientError> {
    let Ok(root) = profile.keys.root().map(VaultKeys::space) else { return Ok(()) };
    profile.set_space_generation(root, 0)
}

fn same_words(typed: &[String], words: &[&str]) -> bool {
    let typed: Vec<String> = typed.iter().map(|word| word.trim().to_lowercase()).collect();
    typed.iter().map(String::as_str).eq(words.iter().copied())
}

/// Returns a message if it is there.
fn look<T: DeserializeBytes + Serialize>(
    remote: &Remote,
    code: &LinkCode,
    number: u8,
) -> Result<Option<T>, ClientError> {
    look_raw(remote, code, number)?.map(|bytes| parse(&bytes)).transpose()
}

fn look_raw(remote: &Remote, code: &LinkCode, number: u8) -> Result<Option<Vec<u8>>, ClientError> {
    match remote.get_link(code.place(), number) {
        Err(ClientError::ServerRefused(ErrorCode::NotFound)) => Err(ClientError::LinkExpired),
        done => done,
    }
}

fn wait<T: DeserializeBytes + Serialize>(
    remote: &Remote,
    code: &LinkCode,
    number: u8,
    patience: Duration,
) -> Result<T, ClientError> {
    parse(&wait_raw(remote, code, number, patience)?)
}

fn wait_raw(
    remote: &Remote,
    code: &LinkCode,
    number: u8,
    patience: Duration,
) -> Result<Vec<u8>, ClientError> {
    let began = Instant::now();
    while began.elapsed() < patience {
        if let Some(message) = look_raw(remote, code, number)? {
            return Ok(message);
        }
        thread::sleep(POLL_INTERVAL);
    }
    Err(ClientError::LinkExpired)
}

fn parse<T: DeserializeBytes + Serialize>(bytes: &[u8]) -> Result<T, ClientError> {
    // SR-030
    Ok(decode("link message", bytes, limits::LINK_MESSAGE_LEN_MAX)
        .map_err(|_| Misbehaviour::LinkAltered)?)
}
