use std::io;

use thiserror::Error;

/// Why the store did not do it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// What a copy would replace is newer than what it is of.
    #[error("what is in that directory is newer than this server")]
    CopyNewer,
    /// The id is taken.
    #[error("the id is taken")]
    Exists,
    /// The store failed.
    #[error("the store failed while {doing}")]
    Failed {
        /// What it was doing.
        doing: &'static str,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The disk is full.
    #[error("the server's disk is full")]
    Full,
    /// No such space or pack.
    #[error("no such space or pack")]
    NotFound,
    /// Something lies in the data directory that the data dictionary does not know.
    #[error(
        "`{what}` is not in the data dictionary: this server stores nothing that `operator \
         disclose` does not list. Move it out of the data directory, or run the version that made it"
    )]
    NotInDictionary {
        /// The table, column or path.
        what: String,
    },
    /// A limit is reached.
    #[error("the limit of the space or the server is reached")]
    QuotaFull,
    /// The server was put back from a backup, and what came after is being given back.
    #[error(
        "this server was put back from a backup, and nothing new is stored until that is finished"
    )]
    PutBack,
    /// Many packs have no record.
    #[error(
        "{packs} stored packs have no record: the database is older than the packs. Put back the \
         newest one; nothing was deleted"
    )]
    RecordsMissing {
        /// How many.
        packs: usize,
    },
    /// The voucher was never given out, or is spent.
    #[error("the voucher was never given out, or is spent")]
    VoucherUnknown,
}

impl StoreError {
    /// Makes an error of an I/O error met while `doing`. Whether a missing or existing file means a
    /// missing or existing pack, only the caller knows.
    pub fn io(doing: &'static str, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full,
            _ => Self::Failed { doing, source: source.into() },
        }
    }

    pub(crate) fn sql(doing: &'static str, source: rusqlite::Error) -> Self {
        match source.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => Self::Full,
            _ => Self::Failed { doing, source: source.into() },
        }
    }
}
