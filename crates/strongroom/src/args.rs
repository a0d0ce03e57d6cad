//! The command line.

use std::{ffi::OsString, path::PathBuf};

use clap::{Parser, Subcommand};

#[cfg(feature = "server")]
mod server;
mod trust;

#[cfg(feature = "server")]
pub(crate) use server::{ServerCommand, ServerLogCommand, ServerWitnessCommand, WitnessCommand};
#[cfg(feature = "server")]
use sr_wire::{AccountId, SpaceId};
pub(crate) use trust::{PolicyCommand, TrustCommand};

const AUTOMATIC: &str = "\
To back up by itself, one line of crontab (every hour, seven past; write the program's whole path,
which `command -v strongroom` prints):
  7 * * * *  /usr/local/bin/strongroom backup now --auto --quiet

or a systemd timer, two files in ~/.config/systemd/user/:
  strongroom.service:  [Service]
                       ExecStart=/usr/local/bin/strongroom backup now --auto --quiet
  strongroom.timer:    [Timer]
                       OnCalendar=hourly
                       Persistent=true
                       [Install]
                       WantedBy=timers.target
and then: systemctl --user enable --now strongroom.timer";

const RESTORE: &str = "\
SNAPSHOT is `latest`, an id from `backup snapshots`, or the beginning of one. PATH is relative
to the snapshot's folder, or absolute. When several folders are backed up, `latest` needs an
absolute path, which chooses the folder. A folder's content goes into DIR; a file goes into DIR
under its name. Files that are there with the same content stay; others of the same name are
replaced; what the snapshot does not have stays.

Examples:
  strongroom backup restore latest --to /tmp/look
  strongroom backup restore latest:/home/ana/thesis.tex --in-place";

const ADD: &str = "\
Whatever is not left out by a rule is backed up, and what can't be read is listed each time. See
what a rule leaves out before you trust it: --dry-run.

Example:
  strongroom backup add ~ --exclude-caches --exclude '*.iso' --one-file-system --dry-run";

const FORGET: &str = "\
A rule judges the snapshots of each device and folder by themselves. Hours, days and weeks are
those of UTC; those without a snapshot do not count. The newest always stays, and so does every
one that is pinned, or whose time does not fit its place in the list.

Marked snapshots can be restored, and had back with --undo, until `strongroom backup prune` takes
them: three days after this device has seen the mark, in runs on three days at least. After that,
the server keeps their content for three days more (`strongroom backup undelete`).

Example, every night, two commands:
  strongroom backup forget --keep-daily 7 --keep-weekly 4 --keep-monthly 12
  strongroom backup prune";

/// Backup that its operator cannot read, change or roll back unseen
#[derive(Debug, Parser)]
#[command(version, propagate_version = true)]
pub(crate) struct Args {
    /// What to do
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Print one JSON object
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Print nothing when all is well
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
    /// Use another profile than `default`: its own server, keys and folders
    #[arg(long, global = true, value_name = "NAME", default_value = "default", value_parser = profile_name)]
    pub(crate) profile: String,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Back up, list and restore
    Backup {
        /// What to do
        #[command(subcommand)]
        command: BackupCommand,
        /// Look at the backups of an append-only device instead, by its name or id
        #[arg(long, global = true, value_name = "DEVICE")]
        of: Option<String>,
    },
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Link, list, name and take out devices
    #[command(subcommand)]
    Device(DeviceCommand),
    /// Play a compelled operator against this program: list the attacks, run them, try one by hand
    #[cfg(feature = "server")]
    #[command(subcommand)]
    Adversary(AdversaryCommand),
    /// Try everything on this machine, and play the operator
    ///
    /// Runs a server and a client with throw-away keys, backs up a sample, or DIR, restores it, and
    /// then tries as the operator to read, change, swap, roll back and hide. Nothing is left behind,
    /// and DIR is only read.
    #[cfg(feature = "server")]
    Demo {
        /// The folder to back up instead of the sample
        dir: Option<PathBuf>,
    },
    /// Show, verify and hand on what proves that a server broke a rule
    #[command(subcommand)]
    Evidence(EvidenceCommand),
    /// Join a server with an invite
    ///
    /// On a device that has joined this server already, takes over a new address or new vouchers.
    Join {
        /// The line that `strongroom server up` printed; `-` reads it from standard input
        invite: String,
        /// Your name, for your own eyes only
        #[arg(long, value_name = "N")]
        name: Option<String>,
        /// The name of this device in your snapshots; the host name unless given
        #[arg(long, value_name = "D")]
        device_name: Option<String>,
    },
    /// Close the keys of this device; the first time, put them under a passphrase
    ///
    /// Without a passphrase, whoever has this device's disk has its keys. Under one, commands need
    /// `unlock` first; backups that run by themselves do too.
    Lock,
    /// Open the keys of this device until `lock`, or until it is switched off
    Unlock {
        /// Take the passphrase off for good
        #[arg(long)]
        for_good: bool,
    },
    /// Read the public log of all changes that a server took, and verify it; needs no account
    #[command(subcommand)]
    Log(LogCommand),
    /// Answer for what a server holds
    #[cfg(feature = "server")]
    #[command(subcommand)]
    Operator(OperatorCommand),
    /// Make, try and use the recovery kit
    #[command(subcommand)]
    Recovery(RecoveryCommand),
    /// Run a server
    #[cfg(feature = "server")]
    #[command(subcommand)]
    Server(ServerCommand),
    /// Decide about a server what only a person can decide
    #[command(subcommand)]
    Trust(TrustCommand),
    /// Compare what an operator has handed over with what your devices have stored
    VerifyDisclosure {
        /// What `operator disclose --json` printed
        file: PathBuf,
    },
    /// Run a witness: it cosigns the logs of servers, each only if it continues what it has seen
    #[cfg(feature = "server")]
    #[command(subcommand)]
    Witness(WitnessCommand),
    /// Show what the server can see of you, worked out from what your devices have stored
    WhatTheySee,
    /// Show the five promises, whether they hold here, and how to see that without this program
    Tenets,
    /// Show whether you are backed up; exit 3 when the newest snapshot is older than 3 days
    Status,
}

/// `backup …`
#[derive(Debug, Subcommand)]
pub(crate) enum BackupCommand {
    /// Add a folder to what is backed up
    ///
    /// Whoever can put a file into the folder and watches the network learns whether that file was
    /// stored before, the surer the bigger it is (spec/leakage.md has figures). For folders into which
    /// others can put files: --no-dedup-across.
    #[command(after_help = ADD)]
    Add(AddArgs),
    /// List a folder of a snapshot
    Browse {
        /// SNAPSHOT or SNAPSHOT:PATH
        what: OsString,
    },
    /// Show in what two snapshots differ
    Diff {
        /// The earlier one
        before: String,
        /// The later one
        after: String,
    },
    /// Find files and folders in all snapshots
    Find {
        /// Of the name, as '*.txt'; of the whole path if it has a `/`
        pattern: String,
    },
    /// Mark snapshots as to be forgotten: by name, or all that a rule does not keep
    #[command(after_help = FORGET)]
    Forget(ForgetArgs),
    /// List the folders that are backed up
    Ls,
    /// Back up now
    #[command(after_help = AUTOMATIC)]
    Now {
        /// One folder; all of them unless given
        folder: Option<PathBuf>,
        /// All folders
        #[arg(long, conflicts_with = "folder")]
        all: bool,
        /// How much work goes into making small what is new; it can be read all the same
        #[arg(long, value_name = "HOW", value_enum, default_value = "default")]
        compression: HowSmall,
        /// For timers: when nothing changed, only the first run of a day makes a snapshot
        #[arg(long)]
        auto: bool,
        /// Back up standard input instead, as the file NAME in /stdin/NAME
        #[arg(long, value_name = "NAME", conflicts_with_all = ["folder", "all", "auto"])]
        stdin: Option<String>,
        /// Give the new snapshots a tag
        #[arg(long, value_name = "TAG")]
        tag: Vec<String>,
        #[command(flatten)]
        limits: LimitArgs,
    },
    /// Pin snapshots, so that nothing forgets them
    Pin {
        /// Their ids, or `latest`
        #[arg(required = true)]
        snapshots: Vec<String>,
        /// Pin them no longer
        #[arg(long)]
        undo: bool,
    },
    /// Free what no snapshot needs; what was forgotten goes after three days, counted here and at the
    /// server
    Prune {
        /// Only say what would be freed
        #[arg(long)]
        dry_run: bool,
    },
    /// Back up a folder no longer; its snapshots stay
    Rm {
        /// The folder
        path: PathBuf,
    },
    /// Restore a snapshot, a folder or a file of it
    #[command(after_help = RESTORE)]
    Restore {
        /// SNAPSHOT or SNAPSHOT:PATH
        what: OsString,
        /// Into this folder; `-` writes one file to standard output
        #[arg(long, value_name = "DIR", required_unless_present = "in_place")]
        to: Option<PathBuf>,
        /// To where it was
        #[arg(long, conflicts_with = "to")]
        in_place: bool,
        #[command(flatten)]
        limits: LimitArgs,
    },
    /// List the snapshots, oldest first
    Snapshots {
        /// Those that are to be forgotten, and who wants that
        #[arg(long)]
        forgotten: bool,
    },
    /// Give snapshots a tag
    Tag(TagArgs),
    /// Bring back what was pruned, as long as the server has it: three days
    Undelete,
    /// Check that everything can be had back; what is damaged and still here is stored again
    Verify {
        /// Also read the content back: all of it, or so much of it, drawn by lot
        #[arg(long, value_name = "N%", num_args = 0..=1, default_missing_value = "100%",
              value_parser = percent)]
        read_data: Option<u8>,
        #[command(flatten)]
        limits: LimitArgs,
    },
}

/// How fast
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct LimitArgs {
    /// Send no more bytes a second, as in 500k or 2M
    #[arg(long, value_name = "RATE", value_parser = rate)]
    limit_upload: Option<u64>,
    /// Receive no more bytes a second
    #[arg(long, value_name = "RATE", value_parser = rate)]
    limit_download: Option<u64>,
}

impl LimitArgs {
    /// Puts a client under these limits.
    pub(crate) fn apply(self, client: &mut sr_client::Client) {
        client.set_limits(self.limit_upload, self.limit_download);
    }
}

/// `backup add`
#[derive(Debug, clap::Args)]
pub(crate) struct AddArgs {
    /// The folder; one that is there already gets the rules that are given
    pub(crate) path: PathBuf,
    /// Leave out what fits a pattern, as in a .gitignore: '*.iso', 'build/', '/downloads', '!keep.iso'
    #[arg(long, value_name = "PATTERN")]
    pub(crate) exclude: Vec<String>,
    /// Leave out folders named .cache, and what is in folders with a CACHEDIR.TAG
    #[arg(long)]
    pub(crate) exclude_caches: bool,
    /// Leave out all else in folders that have an entry of this name
    #[arg(long, value_name = "NAME")]
    pub(crate) exclude_if_present: Vec<String>,
    /// Leave out files that are larger, as in 500M or 4G
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) exclude_larger_than: Option<u64>,
    /// Leave out what the .gitignore files in the folder name
    #[arg(long)]
    pub(crate) gitignore: bool,
    /// Leave out what is on another file system
    #[arg(long)]
    pub(crate) one_file_system: bool,
    /// For folders into which others can put files, as Downloads: store what is in it even if another
    /// folder has the same, so that nobody learns from the traffic what is in the others
    #[arg(long)]
    pub(crate) no_dedup_across: bool,
    /// Only show what would be left out
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// `backup forget`
#[derive(Debug, clap::Args)]
pub(crate) struct ForgetArgs {
    /// Their ids, or `latest`
    #[arg(conflicts_with_all = RULES)]
    pub(crate) snapshots: Vec<String>,
    /// Take the marks back: of these snapshots, or all of them
    #[arg(long, conflicts_with_all = RULES)]
    pub(crate) undo: bool,
    /// Only say what a rule would keep
    #[arg(long, conflicts_with = "undo")]
    pub(crate) dry_run: bool,
    /// Keep the newest N
    #[arg(long, value_name = "N", default_value = "0")]
    pub(crate) keep_last: usize,
    /// Keep the last of each of N hours
    #[arg(long, value_name = "N", default_value = "0")]
    pub(crate) keep_hourly: usize,
    /// Keep the last of each of N days
    #[arg(long, value_name = "N", default_value = "0")]
    pub(crate) keep_daily: usize,
    /// Keep the last of each of N weeks
    #[arg(long, value_name = "N", default_value = "0")]
    pub(crate) keep_weekly: usize,
    /// Keep the last of each of N months
    #[arg(long, value_name = "N", default_value = "0")]
    pub(crate) keep_monthly: usize,
    /// Keep the last of each of N years
    #[arg(long, value_name = "N", default_value = "0")]
    pub(crate) keep_yearly: usize,
    /// Keep all that are at most so much older than the newest, as in 36h, 7d, 8w or 2y
    #[arg(long, value_name = "TIME", value_parser = duration_s)]
    pub(crate) keep_within: Option<u64>,
    /// Keep those with this tag
    #[arg(long, value_name = "TAG")]
    pub(crate) keep_tag: Vec<String>,
}

const RULES: [&str; 8] = [
    "keep_last",
    "keep_hourly",
    "keep_daily",
    "keep_weekly",
    "keep_monthly",
    "keep_yearly",
    "keep_within",
    "keep_tag",
];

/// `backup tag`
#[derive(Debug, clap::Args)]
pub(crate) struct TagArgs {
    /// The tag
    pub(crate) tag: String,
    /// Their ids, or `latest`
    #[arg(required = true)]
    pub(crate) snapshots: Vec<String>,
    /// Take it away
    #[arg(long)]
    pub(crate) remove: bool,
}

/// `--compression`
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum HowSmall {
    /// For slow machines on fast lines
    Fast,
    /// For most
    Default,
    /// For slow lines: several times the work
    Best,
}

/// `device …`
#[derive(Debug, Subcommand)]
pub(crate) enum DeviceCommand {
    /// Show six words for what this device has been shown, or compare them with those of another one
    ///
    /// Run it on one device, and then with its six words on the other, with no backup in between.
    Compare {
        /// The six words that the other device shows
        #[arg(value_name = "WORD")]
        words: Vec<String>,
    },
    /// Show where the account's history is, which this device has verified from its first step on
    Chain {
        /// Verify it, as is done every time
        #[arg(long)]
        verify: bool,
    },
    /// Link a new device
    ///
    /// On the new one: `device link --server HOST:PORT`, which shows a code. On one that you have:
    /// `device link CODE`. Both then show words to type on the other.
    Link {
        /// The code that the new device shows
        #[arg(conflicts_with = "server")]
        code: Option<String>,
        /// On the new device: where the server is
        #[arg(long, value_name = "HOST:PORT")]
        server: Option<String>,
        /// On the new device: its name; the host name unless given
        #[arg(long, value_name = "D")]
        device_name: Option<String>,
        /// On the new device: it can back up and read its own backups, and nothing else
        ///
        /// For a machine that others may break into: it has a vault of its own, to which it can only
        /// add. What it has stored once, whoever steals its keys can't take away, and what your other
        /// devices store, they can't read.
        #[arg(long, requires = "server")]
        append_only: bool,
    },
    /// List the devices of your account
    Ls,
    /// Give a device a name
    Rename {
        /// Its name, or the beginning of its id
        device: String,
        /// The new name
        name: String,
    },
    /// Take a device out: a stolen laptop reads nothing new and writes nothing
    Revoke {
        /// Its name, or the beginning of its id
        device: String,
    },
    /// List all devices that there ever were
    Show,
}

/// `recovery …`; its `help` helps a person, and `--help` the reader of this program.
#[derive(Debug, Subcommand)]
#[command(disable_help_subcommand = true)]
pub(crate) enum RecoveryCommand {
    /// People who together can bring your account back, and whom no server knows
    #[command(subcommand)]
    Contacts(ContactsCommand),
    /// Try your kit, as a restore would use it
    Drill,
    /// Help somebody whose contact you are, with what `recovery request` gave them
    ///
    /// Compare the words by voice or face to face: whoever asks may be somebody else.
    Help {
        /// The file with their request
        request: PathBuf,
        /// Where to write the answer to give to them
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// Whose account it is, when you are a contact of several people
        #[arg(long = "for", value_name = "NAME")]
        owner: Option<String>,
    },
    /// Make a recovery kit: one page that brings everything back when every device is gone
    Kit {
        /// Show it on the terminal, to be printed or copied by hand; so it is without --pdf
        #[arg(long)]
        print: bool,
        /// Write it as one page of PDF, readable by you only
        #[arg(long, value_name = "FILE", conflicts_with = "print")]
        pdf: Option<PathBuf>,
        /// The old kit is lost: the new one counts after a wait
        #[arg(long)]
        without_old: bool,
    },
    /// Ask your contacts for help, on a device without anything
    Request {
        /// Where to write the request to give to them
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// List what waits, and could be stopped: recoveries, and changes without the kit
    Requests,
    /// Bring everything back, from the kit's page or with your contacts' answers
    Restore {
        /// From the kit: where the server is; it is on the page
        #[arg(long, value_name = "HOST:PORT", required_unless_present = "answers")]
        server: Option<String>,
        /// With your contacts: the files that they gave you
        #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with = "server")]
        answers: Vec<PathBuf>,
        /// The name of this device; the host name unless given
        #[arg(long, value_name = "D")]
        device_name: Option<String>,
        /// A device that was stolen: it can't stop the recovery, and is taken out by it
        #[arg(long, value_name = "DEVICE")]
        stolen: Option<String>,
    },
    /// Take your place at the server back from a thief who shut your other devices out, with your kit
    ///
    /// Take the stolen device out first, with `device revoke`: until then it can do it again.
    TakeBack,
    /// Stop something that waits
    Veto {
        /// Its number, from `recovery requests`
        number: u64,
    },
}

/// `recovery contacts …`
#[derive(Debug, Subcommand)]
pub(crate) enum ContactsCommand {
    /// Keep the share that somebody gave you
    Accept {
        /// The file
        share: PathBuf,
    },
    /// Write your card, for somebody who wants you as a contact
    Card {
        /// Where to write it
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// List your contacts, and whose contact you are
    Ls,
    /// Take your contacts' right to bring your account back away; it needs your kit
    Rm,
    /// Choose your contacts, in place of those before; it needs your kit
    Set {
        /// How many of them are needed together
        #[arg(long, value_name = "K")]
        need: u8,
        /// Where to write the shares to give to them
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// Each contact, as NAME=FILE with the file of their card
        #[arg(required = true, num_args = 2.., value_name = "NAME=FILE")]
        contacts: Vec<String>,
    },
}

/// `log …`
#[derive(Debug, Subcommand)]
pub(crate) enum LogCommand {
    /// Show how long the log is, as the server has signed it
    Status {
        /// Of the server at this address, HOST:PORT, instead of this profile's own
        #[arg(long, value_name = "ADDRESS")]
        from: Option<String>,
        /// The card of the server that is meant, 64 hexadecimal digits: another one is refused
        #[arg(long, value_name = "HEX", requires = "from", value_parser = card)]
        card: Option<[u8; 32]>,
    },
    /// Read every entry, and check that each follows from those before it and is what the server signed
    Verify {
        /// Of the server at this address, HOST:PORT, instead of this profile's own
        #[arg(long, value_name = "ADDRESS")]
        from: Option<String>,
        /// The card of the server that is meant, 64 hexadecimal digits: another one is refused
        #[arg(long, value_name = "HEX", requires = "from", value_parser = card)]
        card: Option<[u8; 32]>,
    },
}

/// `adversary …`
#[cfg(feature = "server")]
#[derive(Debug, Subcommand)]
pub(crate) enum AdversaryCommand {
    /// List the attacks, and what has to come of each
    List,
    /// Play the attacks in a temporary place, against throw-away accounts
    ///
    /// For each the servers and the clients are real; what is bent is what the server stores, its clock, or
    /// its identity. Nothing is left behind.
    Run {
        /// Only this one, with every try; may be repeated
        #[arg(long, value_name = "ID")]
        row: Vec<String>,
    },
    /// Serve a copy of a server's data directory as the operator of one attack would, to try it by hand
    ///
    /// The directory is CHANGED. Copy a server's directory while the server is switched off, and give the
    /// copy; for ST-09 one that is older than what your devices have seen. Let copies of your profiles meet it:
    /// what a device sees or stores there, it holds against your real server.
    Serve {
        /// The attack
        #[arg(long, value_name = "ID")]
        row: String,
        /// Which way of it, from 1; `adversary run --row ID` lists them in order
        #[arg(long, value_name = "N", default_value_t = 1)]
        way: usize,
        /// A copy of a server's data directory
        #[arg(long, value_name = "COPY")]
        data: PathBuf,
        /// Where to listen: where the devices expect their server
        #[arg(long, value_name = "ADDR:PORT", default_value = "[::]:7443")]
        listen: std::net::SocketAddr,
    },
}

/// `evidence …`
#[derive(Debug, Subcommand)]
pub(crate) enum EvidenceCommand {
    /// List what this device has kept
    Ls,
    /// Show one: what was signed, by whom, and what that means
    Show {
        /// Its name in the list, the beginning of it, or a file
        which: String,
        /// As a page for a browser
        #[arg(long)]
        html: bool,
    },
    /// Verify a file, without the network and without an account
    Verify {
        /// The file
        file: PathBuf,
        /// The card of the server that is meant, 64 hexadecimal digits: about another one nothing is proven
        #[arg(long, value_name = "HEX", value_parser = card)]
        card: Option<[u8; 32]>,
    },
    /// Copy one to a file, for somebody else
    Export {
        /// Its name in the list, or the beginning of it
        which: String,
        /// The file, which must not be there yet
        file: PathBuf,
    },
}

/// `operator …`
#[cfg(feature = "server")]
#[derive(Debug, Subcommand)]
pub(crate) enum OperatorCommand {
    /// Print everything that this server could hand over: of one account, of one space, or all of it
    #[command(group = clap::ArgGroup::new("of").required(true))]
    Disclose {
        /// Of this account
        #[arg(group = "of")]
        account: Option<AccountId>,
        /// Of this space
        #[arg(long, value_name = "ID", group = "of")]
        space: Option<SpaceId>,
        /// All of it
        #[arg(long, group = "of")]
        all: bool,
        /// The server's data directory
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
    },
}

/// Reads the hash of a card.
fn card(text: &str) -> Result<[u8; 32], String> {
    sr_crypto::text::hash_from_hex(text)
        .ok_or_else(|| "64 hexadecimal digits, as `strongroom log status` shows them".into())
}

fn profile_name(name: &str) -> Result<String, String> {
    let ok = !name.is_empty()
        && name.len() <= 64
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
    if ok { Ok(name.to_owned()) } else { Err("letters, digits, - and _ only".into()) }
}

/// Reads `36h`, `7d`, `8w` or `2y`, in seconds.
fn duration_s(text: &str) -> Result<u64, String> {
    let unit_s = match text.chars().last() {
        Some('h') => 3_600,
        Some('d') => 86_400,
        Some('w') => 7 * 86_400,
        Some('y') => 365 * 86_400,
        _ => return Err("a number with h, d, w or y behind it".into()),
    };
    let number: u64 = text[..text.len() - 1].parse().map_err(|_| "not a number of h, d, w or y")?;
    number.checked_mul(unit_s).filter(|s| *s > 0).ok_or_else(|| "too long, or nothing".into())
}

/// Reads `3%` or `3`.
fn percent(text: &str) -> Result<u8, String> {
    let number: u8 = text.trim_end_matches('%').parse().map_err(|_| "a number from 1% to 100%")?;
    if (1..=100).contains(&number) { Ok(number) } else { Err("a number from 1% to 100%".into()) }
}

/// Reads `500M` or `4G`, in bytes.
fn size(text: &str) -> Result<u64, String> {
    let unit = match text.chars().last() {
        Some('k' | 'K') => 1_000,
        Some('M') => 1_000_000,
        Some('G') => 1_000_000_000,
        Some('T') => 1_000_000_000_000,
        _ => return Err("a number with k, M, G or T behind it".into()),
    };
    let number: u64 = text[..text.len() - 1].parse().map_err(|_| "not a number of k, M, G or T")?;
    number.checked_mul(unit).ok_or_else(|| "too large".into())
}

/// Reads `500k` or `2M`, in bytes a second. With less, an object of 16 MiB would never arrive in time.
fn rate(text: &str) -> Result<u64, String> {
    const LEAST: u64 = 64_000;
    let rate = size(text)?;
    if rate >= LEAST { Ok(rate) } else { Err("64k is the least".into()) }
}
