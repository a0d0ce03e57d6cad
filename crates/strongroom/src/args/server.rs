//! `server …` and `witness …`.

use std::{net::SocketAddr, path::PathBuf};

use clap::Subcommand;

/// `server …`
#[derive(Debug, Subcommand)]
pub(crate) enum ServerCommand {
    /// Run the server until Ctrl-C; the first time, make it and print an invite
    Up {
        /// The data directory; /var/lib/strongroom for root, else in ~/.local/share
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
        /// Where to listen
        #[arg(long, value_name = "ADDR:PORT", default_value = "[::]:7443")]
        listen: SocketAddr,
        /// The data directory was put back from a backup: store nothing new until the devices have given
        /// back what came after it, and `server log reseed --finish` says so
        #[arg(long)]
        restored: bool,
    },
    /// Copy a server that may be running to another directory, best on another disk
    ///
    /// The first time all of it, from then on what is new. The copy has the server's identity: keep it
    /// as safe as the server itself. To put it back: stop the server, copy the directory back, and start
    /// the server with `--restored`.
    Backup {
        /// The data directory
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
        /// Where the copy is, or will be
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
    },
    /// The server's log
    #[command(subcommand)]
    Log(ServerLogCommand),
    /// The witnesses of the server's log
    #[command(subcommand)]
    Witness(ServerWitnessCommand),
    /// Print a new invite; the server may be running
    Invite {
        /// The data directory
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
        /// Where clients reach the server, as HOST:PORT; every address of this machine at port 7443
        /// unless given
        #[arg(long, value_name = "HOST:PORT")]
        address: Vec<String>,
    },
}

/// `server log …`
#[derive(Debug, Subcommand)]
pub(crate) enum ServerLogCommand {
    /// Show what a server that was put back from a backup has got back, or finish it
    ///
    /// Each device gives back what it knows at its next command. Wait for those that people use: what nobody
    /// has given back when you finish can contradict what comes later. The server may be running.
    Reseed {
        /// The data directory
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
        /// All is back that will come back: store what is new again
        #[arg(long)]
        finish: bool,
    },
}

/// `server witness …`
#[derive(Debug, Subcommand)]
pub(crate) enum ServerWitnessCommand {
    /// Ask a witness to cosign this server's log, from the next start on
    ///
    /// Its operator prints the address and the keys with `strongroom witness ls`, and adds this server's log with
    /// what `strongroom server witness ls` prints. Invites that are made after that start name the witness; who
    /// has joined before asks it from `strongroom trust policy set` on.
    Add {
        /// Where it is, as http://HOST:PORT
        url: String,
        /// Its one or two keys
        #[arg(value_name = "VKEY", required = true, num_args = 1..=2)]
        keys: Vec<String>,
        /// The data directory
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
    },
    /// Show what a witness needs to know of this server, its witnesses, and the policy that names them
    Ls {
        /// The data directory
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
    },
    /// Ask a witness no more, from the next start on
    Rm {
        /// Where it is
        url: String,
        /// The data directory
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
    },
}

/// `witness …`
#[derive(Debug, Subcommand)]
pub(crate) enum WitnessCommand {
    /// Run the witness until Ctrl-C; the first time, make it
    ///
    /// It speaks plain HTTP: what it says is public, and signed. Run it on another machine than the servers that
    /// it watches, best by somebody else.
    Up {
        /// The witness's directory; /var/lib/strongroom-witness for root, else in ~/.local/share
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
        /// Where to listen
        #[arg(long, value_name = "ADDR:PORT", default_value = "[::]:7444")]
        listen: SocketAddr,
    },
    /// Watch the log of a server; the witness may be running
    Add {
        /// A file with the two `log` lines that `strongroom server witness ls` prints; - for standard input
        card: PathBuf,
        /// The witness's directory
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
    },
    /// Show the witness's keys, and the logs that it watches
    Ls {
        /// The witness's directory
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
    },
}
