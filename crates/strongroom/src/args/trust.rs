//! `trust …`.

use std::path::PathBuf;

use clap::Subcommand;

/// `trust …`
#[derive(Debug, Subcommand)]
pub(crate) enum TrustCommand {
    /// Go on with an older state of a server that has lost the newer one for good
    ///
    /// First gives the server back all that this device holds. Then shows what would be forgotten, and asks.
    /// It counts for this device; each other one asks by itself.
    AcceptRollback,
    /// Which witnesses must have cosigned the server's log before this account relies on it
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Show what the server's log is checked by, and since when it was not
    Status,
}

/// `trust policy …`
#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Have the account ask other witnesses, for all of its devices
    ///
    /// At once with the recovery kit; without it the change waits, and any other device of yours can stop it
    /// meanwhile (`strongroom recovery veto`).
    Set {
        /// A file with a policy as c2sp.org/tlog-policy has it, such as `trust policy show --of-server` prints
        file: PathBuf,
        /// Do without the kit, and wait
        #[arg(long)]
        without_kit: bool,
    },
    /// Print the policy of the account, or the one that its server names
    Show {
        /// The one that the server names now
        #[arg(long)]
        of_server: bool,
    },
}
