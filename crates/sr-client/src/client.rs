//! The client's API.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    io::Read,
    os::unix::ffi::OsStrExt,
    path::{Component, Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use sr_keys::{DeviceKeys, KitNote};
use sr_trust::{Block, DELAY_DEFAULT_S, Verified};
use sr_vault::{
    ChunkIds,
    block::Compression,
    manifest::{Forgotten, Listed, Manifest, Snapshot, TAGS_MAX},
};
use sr_wire::{DeviceId, Invite, Misbehaviour, SnapshotId, VLBytes, api::ErrorCode, card_hash};

use crate::{
    AcceptedRollback, BackupReport, ClientError, Clock, Dial, Folder, LogState, Progress, PutBack,
    ReadData, RestoreReport, Sealed, Target, TlsDialer, VerifyReport,
    account::{Keys, PendingAct},
    backup::{self, What},
    delay::{UptimeClock, uptime},
    devices::{TRIES_MAX, unless_overtaken},
    exclude::{self, Excluder, Preview, Rules},
    keep::check_tag,
    limit::Limits,
    link::LINK_TIME,
    profile::{NewProfile, Profile},
    remote::{Remote, os_rng, runtime},
    restore, root, verify,
    view::{For, View},
};

/// Makes a dialer to an address; a simulated network has its own.
pub type MakeDialer = Arc<dyn Fn(&str) -> Result<Arc<dyn Dial>, ClientError> + Send + Sync>;

/// One profile on this device. It is locked as long as this lives.
pub struct Client {
    pub(crate) profile: Profile,
    /// The connection about the vault; the others are about the account, about its root space, and about
    /// nothing that the server could tell: the log.
    pub(crate) remote: Remote,
    pub(crate) account_remote: Remote,
    pub(crate) root_remote: Remote,
    pub(crate) log_remote: Remote,
    pub(crate) log_state: LogState,
    pub(crate) clock: Clock,
    pub(crate) link_patience: Duration,
    pub(crate) uptime: UptimeClock,
    compression: Compression,
    automatic: bool,
    tags: Vec<String>,
    lost_packs: u64,
    unmended: u64,
    marked_by_others: u64,
    /// By how many states the server's is older than the newest in its log, if it was refused for that.
    pub(crate) older_by: Option<u64>,
}

/// A snapshot, as people see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// Its id.
    pub id: SnapshotId,
    /// Unix seconds.
    pub time_s: u64,
    /// The device that made it.
    pub device: String,
    /// The folder.
    pub path: PathBuf,
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Entries that are not in it.
    pub skipped: u64,
    /// Its tags.
    pub tags: Vec<String>,
    /// Who wants it gone, and since when.
    pub forgotten: Option<Forgotten>,
}

/// What a profile is and has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Address of the server.
    pub server: String,
    /// The nine characters by which people compare servers, once it was reached.
    pub server_name: Option<String>,
    /// Why the server was not reached, when it was not.
    pub unreachable: Option<String>,
    /// The person's name, which only this device knows.
    pub name: Option<String>,
    /// Name of this device.
    pub device: String,
    /// Whether it is append-only.
    pub is_limited: bool,
    /// The key file, without which nothing can be had back.
    pub key_file: PathBuf,
    /// The account.
    pub account: sr_wire::AccountId,
    /// Its newest change.
    pub account_seq: u64,
    /// Its live devices.
    pub devices: u64,
    /// Those of them that are append-only.
    pub limited_devices: u64,
    /// Whether it has a recovery kit.
    pub has_kit: bool,
    /// Whether it has recovery contacts.
    pub has_contacts: bool,
    /// What the devices know of the kit.
    pub kit: Option<KitNote>,
    /// Whether the kit in force can take the account's place at the server back from a thief.
    pub kit_owns: bool,
    /// The folders.
    pub folders: Vec<PathBuf>,
    /// Number of snapshots, when the server was reached.
    pub snapshots: Option<u64>,
    /// Unix seconds of the newest snapshot.
    pub newest_s: Option<u64>,
    /// Snapshots that other devices have marked as to be forgotten.
    pub marked_by_others: u64,
    /// Append-only devices that have written what they may not.
    pub overreaching: Vec<DeviceId>,
    /// Since when nothing is sent to the server, which has broken a rule.
    pub sealed: Option<Sealed>,
    /// When the server last showed an older state, and was given back what came after it.
    pub put_back: Option<PutBack>,
    /// Whether the kit in force opens nothing at the server any more, as far as this device can tell.
    pub is_kit_lost: bool,
    /// When somebody has last let this device go on with an older state.
    pub accepted_rollback: Option<AcceptedRollback>,
    /// What this device knows of the server's log, when the server was reached.
    pub log: Option<LogState>,
    /// Unix seconds now.
    pub now_s: u64,
}

impl Client {
    /// Joins the server of `invite`: makes a profile in `dir`, and an account with this device.
    /// Nothing is made when the server is not the one that the invite names. In a profile that has
    /// joined this server already, what was interrupted goes on, and the address and the vouchers are
    /// those of the new invite.
    ///
    /// **Errors** [`ClientError::AlreadyJoined`], [`ClientError::Misbehaviour`],
    /// [`ClientError::Unreachable`] and those of local files.
    pub fn join(
        dir: &Path,
        invite: &Invite,
        name: Option<&str>,
        device_name: &str,
        clock: Clock,
    ) -> Result<Self, ClientError> {
        Self::join_by(dir, invite, name, device_name, clock, &tls_dialer())
    }

    /// As [`Client::join`], over another network than TLS.
    ///
    /// **Errors** as [`Client::join`].
    pub fn join_by(
        dir: &Path,
        invite: &Invite,
        name: Option<&str>,
        device_name: &str,
        clock: Clock,
        dialer: &MakeDialer,
    ) -> Result<Self, ClientError> {
        let dial = dialer(&invite.address)?;
        let remote = Remote::new(runtime()?, dial, Some(invite.card_hash), Arc::clone(&clock));
        let profile = match Profile::open(dir) {
            Err(ClientError::NotJoined) => {
                remote.card()?;
                Profile::create(dir, begin(invite, name, device_name, &clock)?)?
            }
            Ok(profile) => {
                // An invite may name an older or a newer card of the same server.
                let pinned = profile.invite()?.card_hash;
                let card_by = |remote: &Remote| match remote.card() {
                    Err(ClientError::Misbehaviour(Misbehaviour::CardMismatch))
                        if pinned != invite.card_hash =>
                    {
                        Err(ClientError::AlreadyJoined)
                    }
                    card => card,
                };
                let card = card_by(&remote.pinned(pinned))?;
                if card_by(&remote)? != card {
                    return Err(ClientError::AlreadyJoined);
                }
                profile.set_invite(&Invite { card_hash: card_hash(&card), ..invite.clone() })?;
                profile
            }
            Err(error) => return Err(error),
        };
        let mut client = Self::new(profile, remote, clock);
        client.refresh()?;
        Ok(client)
    }

    /// Opens the profile in `dir`.
    ///
    /// **Errors** [`ClientError::NotJoined`], [`ClientError::Locked`], and those of local files.
    pub fn open(dir: &Path, clock: Clock) -> Result<Self, ClientError> {
        Self::open_by(dir, clock, &tls_dialer())
    }

    /// As [`Client::open`], over another network than TLS.
    ///
    /// **Errors** as [`Client::open`].
    pub fn open_by(dir: &Path, clock: Clock, dialer: &MakeDialer) -> Result<Self, ClientError> {
        let profile = Profile::open(dir)?;
        let invite = profile.invite()?;
        let dial = dialer(&invite.address)?;
        let remote = Remote::new(runtime()?, dial, Some(invite.card_hash), Arc::clone(&clock));
        Ok(Self::new(profile, remote, clock))
    }

    pub(crate) fn new(profile: Profile, remote: Remote, clock: Clock) -> Self {
        let (account_remote, root_remote) = (remote.apart(), remote.apart());
        let log_remote = remote.apart();
        Self {
            profile,
            remote,
            account_remote,
            root_remote,
            log_remote,
            log_state: LogState::default(),
            clock,
            link_patience: LINK_TIME,
            uptime: Arc::new(uptime),
            compression: Compression::Default,
            automatic: false,
            tags: Vec::new(),
            lost_packs: 0,
            unmended: 0,
            marked_by_others: 0,
            older_by: None,
        }
    }

    /// Brings the account up to date, and finishes what an interruption left: blocks that were not
    /// sent, spaces that were not made, rights that were not rotated, a record that was not written,
    /// waits that are over.
    pub(crate) fn refresh(&mut self) -> Result<(), ClientError> {
        self.giving_back(Self::refresh_all)
    }

    fn refresh_all(&mut self) -> Result<(), ClientError> {
        let mut tries = 0;
        loop {
            let before = self.profile.keys.account.newest();
            let again =
                match self.refresh_once() {
                    Ok(()) => {
                        self.try_finish_waits()?;
                        false
                    }
                    // Another device is doing the same, or knows the account better.
                    Err(ClientError::ServerRefused(
                        ErrorCode::RightRefused | ErrorCode::Conflict,
                    )) if tries < TRIES_MAX => true,
                    Err(error) => return Err(error),
                };
            if !again && self.profile.keys.account.newest() == before {
                return Ok(());
            }
            tries += 1;
        }
    }

    /// Finishes what has waited long enough. What can't be finished now is no reason not to read.
    fn try_finish_waits(&mut self) -> Result<(), ClientError> {
        match self.finish_waits() {
            Err(
                ClientError::ServerRefused(
                    ErrorCode::TooEarly | ErrorCode::BlockRefused | ErrorCode::PutBack,
                )
                | ClientError::NotAllowed
                | ClientError::Overtaken
                | ClientError::AccountWaits { .. }
                | ClientError::Sealed { .. },
            ) => Ok(()),
            done => done,
        }
    }

    fn refresh_once(&mut self) -> Result<(), ClientError> {
        self.sync()?;
        self.check_freshness()?;
        self.meet_devices()?;
        if self.profile.sealed()?.is_some() {
            return Ok(());
        }
        let keys = Arc::clone(&self.profile.keys);
        if keys.is_limited() {
            // Full devices make its space and give it other keys.
            return self.profile.set_space_generation(keys.vault.space(), keys.vault.generation());
        }
        self.make_space(keys.root()?, &self.root_remote)?;
        if self.profile.record()?.is_none_or(|record| record.vaults.is_empty()) {
            // A device that does not count writes no record.
            self.require_full()?;
            let name = self.profile.device_name()?;
            let (device, name) = (keys.device.id(), String::from_utf8_lossy(&name).into_owned());
            root::update(&mut self.profile, &self.root_remote, &self.clock, |record| {
                root::with_vault(record);
                record.set_name(device, &name);
            })?;
        }
        self.make_vaults()
    }

    /// Does what needs the account as it is now; once more if the account moved on meanwhile.
    pub(crate) fn fresh<T>(
        &mut self,
        work: impl Fn(&mut Self) -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        self.refresh()?;
        self.giving_back(|client| client.on_newest(&work))
    }

    fn on_newest<T>(
        &mut self,
        work: &impl Fn(&mut Self) -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        let before = self.profile.keys.account.newest();
        let refused = match work(self) {
            Err(
                error @ (ClientError::Misbehaviour(
                    Misbehaviour::PlaceMismatch | Misbehaviour::HeadAltered,
                )
                | ClientError::ServerRefused(ErrorCode::RightRefused)),
            ) => error,
            done => return done,
        };
        self.refresh()?;
        if self.profile.keys.account.newest() == before { Err(refused) } else { work(self) }
    }

    /// Returns the key file, without which nothing can be had back.
    #[must_use]
    pub fn key_file(&self) -> PathBuf {
        self.profile.key_file()
    }

    /// Returns the address of the server.
    ///
    /// **Errors** those of the local state.
    pub fn server(&self) -> Result<String, ClientError> {
        Ok(self.profile.invite()?.address)
    }

    /// Adds a folder to what is backed up; returns false for one that is there already.
    ///
    /// **Errors** [`ClientError::Local`] when it is no folder.
    pub fn add_folder(&mut self, path: &Path) -> Result<bool, ClientError> {
        self.add_folder_with(path, &Rules::default())
    }

    /// As [`Client::add_folder`], without what `rules` leave out. If there are such, one that is there
    /// already gets them.
    ///
    /// **Errors** [`ClientError::Pattern`], [`ClientError::Local`] when it is no folder.
    pub fn add_folder_with(&mut self, path: &Path, rules: &Rules) -> Result<bool, ClientError> {
        let path = path.canonicalize().map_err(ClientError::local("opening", path))?;
        if !path.is_dir() {
            let error = std::io::Error::from(std::io::ErrorKind::NotADirectory);
            return Err(ClientError::local("opening", path)(error));
        }
        Excluder::new(rules)?;
        let added = self.profile.add_folder(&path)?;
        if !rules.is_empty() {
            self.profile.set_rules(&path, rules)?;
        }
        Ok(added)
    }

    /// Returns what a backup of a folder would have, and what `rules` leave out. Nothing is stored.
    ///
    /// **Errors** [`ClientError::Pattern`], [`ClientError::Local`].
    pub fn preview(&self, path: &Path, rules: &Rules) -> Result<Preview, ClientError> {
        let path = path.canonicalize().map_err(ClientError::local("opening", path))?;
        exclude::preview(&path, rules, self.profile.dir())
    }

    /// Removes a folder from what is backed up; its snapshots stay. Returns false for one that is not
    /// there.
    ///
    /// **Errors** those of the local state.
    pub fn remove_folder(&mut self, path: &Path) -> Result<bool, ClientError> {
        let absolute = std::path::absolute(path).map_err(ClientError::local("resolving", path))?;
        Ok(self.profile.remove_folder(&path.canonicalize().unwrap_or_else(|_| absolute.clone()))?
            || self.profile.remove_folder(&absolute)?)
    }

    /// Returns the folders that are backed up.
    ///
    /// **Errors** those of the local state.
    pub fn folders(&self) -> Result<Vec<Folder>, ClientError> {
        self.profile.folders()
    }

    /// Says how many bytes a second may be sent and received, over all connections that are made from now
    /// on.
    pub fn set_limits(&mut self, upload: Option<u64>, download: Option<u64>) {
        let limits = Limits::new(upload, download);
        let accounts = [&mut self.account_remote, &mut self.root_remote, &mut self.log_remote];
        for remote in accounts.into_iter().chain([&mut self.remote]) {
            remote.limits = limits.clone();
        }
    }

    /// Says how much work the next backups put into making what they store small.
    pub fn set_compression(&mut self, compression: Compression) {
        self.compression = compression;
    }

    /// Says whether the next backups run by themselves: then, without a change, only the first of a day
    /// makes a snapshot.
    pub fn set_automatic(&mut self, automatic: bool) {
        self.automatic = automatic;
    }

    /// Says which tags the snapshots of the next backups get.
    ///
    /// **Errors** [`ClientError::Tag`].
    pub fn set_tags(&mut self, tags: &[String]) -> Result<(), ClientError> {
        if tags.len() > TAGS_MAX {
            return Err(ClientError::Tag);
        }
        tags.iter().try_for_each(|tag| check_tag(tag))?;
        self.tags = tags.to_vec();
        Ok(())
    }

    /// Backs up one folder, or all of them. The first time, it makes the space on the server.
    ///
    /// **Errors** [`ClientError::FolderUnknown`], [`ClientError::NotFound`] when there is no
    /// folder, and all that storing can end in.
    pub fn backup(
        &mut self,
        folder: Option<&Path>,
        progress: &Progress,
    ) -> Result<Vec<BackupReport>, ClientError> {
        let mut folders = self.profile.folders()?;
        if let Some(path) = folder {
            let canonical = path.canonicalize().unwrap_or_else(|_| path.to_owned());
            folders.retain(|folder| folder.path == canonical);
            if folders.is_empty() {
                return Err(ClientError::FolderUnknown(path.to_owned()));
            }
        }
        if folders.is_empty() {
            return Err(ClientError::NotFound("folder to back up".into()));
        }
        unless_overtaken(|| self.fresh(|client| client.run(What::Folders(&folders), progress)))
    }

    /// Backs up what a program writes, as the file `/stdin/NAME`. It can be read once only, so another
    /// device that prunes meanwhile ends this with an error.
    ///
    /// **Errors** [`ClientError::Name`], and all that storing can end in.
    pub fn backup_stream(
        &mut self,
        name: &str,
        stream: &mut (dyn Read + Send),
        progress: &Progress,
    ) -> Result<Vec<BackupReport>, ClientError> {
        if !sr_vault::tree::is_name(name.as_bytes()) {
            return Err(ClientError::Name);
        }
        self.refresh()?;
        self.run(What::Stream(name, stream), progress)
    }

    fn run(
        &mut self,
        what: What<'_>,
        progress: &Progress,
    ) -> Result<Vec<BackupReport>, ClientError> {
        self.require_writer()?;
        let (compression, automatic) = (self.compression, self.automatic);
        let how = backup::How { compression, automatic, tags: self.tags.clone() };
        let (profile, remote) = (&mut self.profile, &self.remote);
        let ran = backup::run(profile, remote, what, &self.clock, &how, progress)?;
        self.count_delay(&ran.manifest)?;
        self.marked_by_others = self.marks_of_others(&ran.manifest);
        self.lost_packs = ran.lost.len() as u64;
        self.unmended = ran.unmended;
        self.send_freshness()?;
        self.tell()?;
        Ok(ran.reports)
    }

    /// Counts the snapshots that other devices have marked as to be forgotten.
    fn marks_of_others(&self, manifest: &Manifest) -> u64 {
        let Ok(delay) = self.profile.delay() else { return 0 };
        let marked = manifest.snapshots.iter().filter(|listed| listed.forgotten.is_some());
        let ids = ChunkIds::new(&self.profile.keys.vault);
        marked.filter(|listed| !self.is_own_mark(&delay, listed, &ids)).count() as u64
    }

    /// Returns how many packs the server had lost, by its own word, when the last backup began. That
    /// backup has stored again what of their content is still on this device.
    #[must_use]
    pub fn lost_packs(&self) -> u64 {
        self.lost_packs
    }

    /// Returns how many pieces of content the server has lost or damaged, as far as the last backup knew,
    /// that were not on this device to be stored again.
    #[must_use]
    pub fn unmended(&self) -> u64 {
        self.unmended
    }

    /// Returns how many snapshots other devices have marked as to be forgotten, as the last backup saw
    /// it.
    #[must_use]
    pub fn marked_by_others(&self) -> u64 {
        self.marked_by_others
    }

    /// Returns all snapshots that are not forgotten, oldest first.
    ///
    /// **Errors** those of reading the vault.
    pub fn snapshots(&mut self) -> Result<Vec<SnapshotInfo>, ClientError> {
        let (_, ids, view) = self.view(For::Reading)?;
        Ok(view.manifest.live().map(|listed| info(listed, &ids)).collect())
    }

    /// Restores `path` of a snapshot, and says which snapshot it was. `which` is `latest`, an id, or the beginning of one; `path` is
    /// relative to the snapshot's folder, or absolute, and with `latest` an absolute one also chooses
    /// the folder.
    ///
    /// **Errors** [`ClientError::NotFound`], and those of reading the vault and writing files. Files
    /// that are damaged on the server are no error here but in the report.
    pub fn restore(
        &mut self,
        which: &str,
        path: Option<&Path>,
        target: &Target,
        progress: &Progress,
    ) -> Result<(SnapshotInfo, RestoreReport), ClientError> {
        self.at(which, path, |reader, node, mut place| {
            let target = match target {
                Target::Folder(folder) => folder.clone(),
                Target::InPlace => {
                    if !matches!(node.content, sr_vault::tree::Content::Folder { .. }) {
                        place.pop();
                    }
                    place
                }
            };
            restore::restore(reader, node, &target, progress)
        })
    }

    /// Checks whether everything can be had back, and reads that much of it. What was found damaged is
    /// remembered: until all is read again and is whole, it counts as damaged, and the next backup stores
    /// anew what of it is still on this device.
    ///
    /// **Errors** those of reading the vault. What is damaged is no error here but in the report.
    pub fn verify(
        &mut self,
        read_data: ReadData,
        progress: &Progress,
    ) -> Result<VerifyReport, ClientError> {
        let (keys, ids, view) = self.view(For::Checking)?;
        let (vault, remote, known) = (&keys.vault, &self.remote, self.profile.damaged_packs()?);
        let mut report = verify::verify(&view, vault, &ids, remote, read_data, &known, progress)?;
        report.all_read_s = self.profile.all_read_s()?;
        let damaged: Vec<_> = report.bad_packs.iter().map(|(pack, _)| *pack).collect();
        if read_data == ReadData::All {
            self.profile.clear_damaged()?;
            self.profile.set_all_read_s((self.clock)())?;
        }
        self.profile.add_damaged(&damaged)?;
        Ok(report)
    }

    /// Returns the state of the profile. A server that can't be reached is a part of it; one that
    /// misbehaves is an error.
    ///
    /// **Errors** those of the local state, and [`ClientError::Misbehaviour`].
    pub fn status(&mut self) -> Result<Status, ClientError> {
        let invite = self.profile.invite()?;
        let mut status = Status {
            server: invite.address,
            server_name: None,
            unreachable: None,
            name: self.profile.name()?,
            device: String::from_utf8_lossy(&self.profile.device_name()?).into_owned(),
            is_limited: self.is_limited(),
            key_file: self.profile.key_file(),
            account: self.profile.keys.account.id(),
            account_seq: 0,
            devices: 0,
            limited_devices: 0,
            has_kit: false,
            has_contacts: false,
            kit: None,
            kit_owns: false,
            folders: self.profile.folders()?.into_iter().map(|folder| folder.path).collect(),
            snapshots: None,
            newest_s: self.profile.newest_snapshot_s()?,
            marked_by_others: 0,
            overreaching: Vec::new(),
            sealed: self.profile.sealed()?,
            put_back: None,
            is_kit_lost: false,
            accepted_rollback: None,
            log: None,
            now_s: (self.clock)(),
        };
        let card = match self.remote.card() {
            Ok(card) => card,
            Err(error @ ClientError::Unreachable { .. }) => {
                status.unreachable = Some(error.to_string());
                return self.with_account(status);
            }
            Err(error) => return Err(error),
        };
        status.server_name = Some(card.short_name());
        let (_, _, view) = self.view(For::Reading)?;
        if !self.is_limited() {
            // What other devices have noted since.
            self.fresh(|client| root::read(&mut client.profile, &client.root_remote))?;
        }
        status.overreaching = self.overreaching()?;
        status.log = Some(self.log_state.clone());
        status.sealed = self.profile.sealed()?;
        status.put_back = self.profile.put_back()?;
        status.accepted_rollback = self.profile.accepted_rollback()?;
        status.is_kit_lost = self.is_kit_lost()?;
        status.snapshots = Some(view.manifest.live().count() as u64);
        status.newest_s = view.manifest.live().map(|listed| listed.snapshot.time_s).max();
        status.marked_by_others = self.marks_of_others(&view.manifest);
        self.with_account(status)
    }

    fn with_account(&self, mut status: Status) -> Result<Status, ClientError> {
        let account = &self.profile.keys.account;
        status.account_seq = account.seq();
        status.devices = account.live().count() as u64;
        status.limited_devices = self.limited_devices();
        status.has_kit = self.has_kit();
        status.has_contacts = account.policy().contacts.is_some();
        let record = self.profile.record()?.unwrap_or_default();
        status.kit = record.kit();
        let kit = account.policy().kit.as_ref();
        status.kit_owns = kit.is_some_and(|kit| record.owner == Some(kit.id()));
        Ok(status)
    }

    pub(crate) fn view(
        &mut self,
        purpose: For<'_>,
    ) -> Result<(Arc<Keys>, ChunkIds, View), ClientError> {
        self.fresh(|client| {
            let keys = Arc::clone(&client.profile.keys);
            let ids = ChunkIds::new(&keys.vault);
            let view = View::open(&mut client.profile, &client.remote, purpose)?;
            Ok((keys, ids, view))
        })
    }
}

/// Returns what a new account's first profile begins with.
fn begin<'a>(
    invite: &'a Invite,
    name: Option<&'a str>,
    device_name: &'a str,
    clock: &Clock,
) -> Result<NewProfile<'a>, ClientError> {
    let mut rng = os_rng();
    let device = DeviceKeys::generate(&mut rng);
    let (id, act, _) =
        sr_keys::begin(&device, DELAY_DEFAULT_S, invite.card_hash, clock(), &mut rng)?;
    let genesis = Block::parse(&act.block).map_err(|_| Misbehaviour::ActNotAllowed)?;
    let account = Verified::begin(id, &genesis)?;
    let (blocks, key_block) = (vec![act.block.clone()], act.key_block.clone().unwrap_or_default());
    let act = Some(PendingAct::new(act, None));
    let (pins, places, log_note, kept) = (Vec::new(), Vec::new(), Vec::new(), None);
    Ok(NewProfile {
        now_s: clock(),
        invite,
        name,
        device_name,
        device,
        account,
        blocks,
        key_block,
        act,
        pins,
        places,
        log_note,
        policy: Vec::new(),
        kept,
    })
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("profile", &self.profile.dir()).finish_non_exhaustive()
    }
}

pub(crate) fn tls_dialer() -> MakeDialer {
    Arc::new(|address| {
        let dialer = TlsDialer::new(address.to_owned())
            .map_err(|error| ClientError::Resources(error.to_string()))?;
        Ok(Arc::new(dialer) as Arc<dyn Dial>)
    })
}

pub(crate) fn info(listed: &Listed, ids: &ChunkIds) -> SnapshotInfo {
    let snapshot = &listed.snapshot;
    let tag = |tag: &VLBytes| String::from_utf8_lossy(tag.as_slice()).into_owned();
    SnapshotInfo {
        id: snapshot.id(ids),
        time_s: snapshot.time_s,
        device: String::from_utf8_lossy(snapshot.device.as_slice()).into_owned(),
        path: PathBuf::from(OsStr::from_bytes(snapshot.path.as_slice())),
        files: snapshot.files,
        bytes: snapshot.bytes,
        skipped: snapshot.skipped,
        tags: listed.tags.iter().map(tag).collect(),
        forgotten: listed.forgotten,
    }
}

/// Finds the snapshot that `which` and `path` mean, and the names below its folder. One that is
/// forgotten is found by its id.
pub(crate) fn choose<'a>(
    manifest: &'a Manifest,
    ids: &ChunkIds,
    which: &str,
    path: Option<&Path>,
) -> Result<(&'a Listed, Vec<std::ffi::OsString>), ClientError> {
    let path = path.unwrap_or_else(|| Path::new(""));
    let which = which.to_lowercase();
    let matching: Vec<&Listed> = if which == "latest" {
        let folders: BTreeSet<&[u8]> =
            manifest.live().map(|l| l.snapshot.path.as_slice()).collect();
        if folders.len() > 1 && !path.is_absolute() {
            return Err(ClientError::FolderAmbiguous);
        }
        let live = manifest.live().rev();
        live.filter(|listed| below(&listed.snapshot, path).is_some()).take(1).collect()
    } else {
        manifest
            .snapshots
            .iter()
            .filter(|l| l.snapshot.id(ids).to_string().starts_with(&which))
            .collect()
    };
    let listed = match matching.as_slice() {
        [listed] => *listed,
        [] if which == "latest" && path.is_absolute() => {
            return Err(ClientError::NotFound(format!("snapshot with {}", path.display())));
        }
        [] => return Err(ClientError::NotFound(format!("snapshot {which}"))),
        _ => {
            return Err(ClientError::NotFound(format!("single snapshot that begins with {which}")));
        }
    };
    let inner = below(&listed.snapshot, path)
        .ok_or_else(|| ClientError::NotFound(format!("{} in that snapshot", path.display())))?;
    Ok((listed, inner))
}

/// Returns the names that lead from the snapshot's folder to `path`.
fn below(snapshot: &Snapshot, path: &Path) -> Option<Vec<std::ffi::OsString>> {
    let base = Path::new(OsStr::from_bytes(snapshot.path.as_slice()));
    let inner = if path.is_absolute() { path.strip_prefix(base).ok()? } else { path };
    inner
        .components()
        .filter(|component| *component != Component::CurDir)
        .map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            _ => None,
        })
        .collect()
}
