//! From a file to blocks: read, cut, named, and stored where it is new.

use std::{
    collections::HashSet,
    fs::File,
    io::{self, Read},
    os::{fd::AsFd, unix::fs::FileExt},
    sync::Arc,
};

use rustix::fs::{FileType, Mode, OFlags, fstat, openat};
use sr_vault::{
    CHUNK_LEN_MAX, ChunkId, ChunkIds, Chunker,
    block::{BlockBuilder, Compressor, Kind},
    tree::{Content, Node, stored_len},
};

use crate::{
    attributes::Of,
    progress::Progress,
    scan::{self, Opened, Stamp},
    sink::{Sink, Stopped},
};

/// Bytes that are read at once.
const READ_LEN: usize = 1 << 20;

/// What reading a file gave.
pub(crate) enum Outcome {
    Read {
        stamp: Stamp,
        /// Its node, without its name.
        node: Node,
        changed: bool,
    },
    Unreadable(io::Error),
}

impl Outcome {
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Read { stamp, .. } => stamp.size,
            Self::Unreadable(_) => 0,
        }
    }
}

/// A file of a folder that shares nothing with others: what is stored of it already.
#[derive(Clone, Debug)]
pub(crate) struct Apart {
    /// The folder's number in the profile.
    pub(crate) folder: i64,
    /// The chunks of the file as it was.
    pub(crate) before: Arc<HashSet<ChunkId>>,
}

/// Reads files, each the whole way from file to block; neighbours share a block.
pub(crate) struct FileReader<'a> {
    ids: &'a ChunkIds,
    chunker: &'a Chunker,
    sink: &'a Sink<'a>,
    block: BlockBuilder,
    compressor: Compressor,
    buffer: Vec<u8>,
    apart: Option<Apart>,
}

impl<'a> FileReader<'a> {
    pub(crate) fn new(
        ids: &'a ChunkIds,
        chunker: &'a Chunker,
        sink: &'a Sink<'a>,
        compressor: Compressor,
    ) -> Self {
        let (block, buffer) = (BlockBuilder::default(), Vec::new());
        Self { ids, chunker, sink, block, compressor, buffer, apart: None }
    }

    /// Reads a file, once more if it changes meanwhile, and stores what of it is new: to the vault, or
    /// to the file itself, for a folder that shares nothing with others.
    pub(crate) fn file(
        &mut self,
        folder: &Opened,
        name: &[u8],
        apart: Option<&Apart>,
    ) -> Result<Outcome, Stopped> {
        self.apart = apart.cloned();
        let outcome = self.read(folder, name, true)?;
        if matches!(outcome, Outcome::Read { changed: true, .. }) {
            // Without looking for holes, what is read is always one piece.
            return self.read(folder, name, false);
        }
        Ok(outcome)
    }

    /// Reads a stream to its end, and stores what of it is new. Returns its length and its chunks.
    pub(crate) fn stream(
        &mut self,
        stream: &mut dyn Read,
        progress: &Progress,
    ) -> Result<(u64, Vec<ChunkId>), ReadFailed> {
        let (mut len, mut chunks) = (0, Vec::new());
        self.buffer.clear();
        loop {
            let read = stream.take(READ_LEN as u64).read_to_end(&mut self.buffer)?;
            len += read as u64;
            progress.did(0, read as u64);
            let mut start = 0;
            while self.buffer.len() - start >= if read == 0 { 1 } else { CHUNK_LEN_MAX } {
                start += self.chunk(start, &mut chunks)?;
            }
            self.buffer.drain(..start);
            if read == 0 {
                return Ok((len, chunks));
            }
        }
    }

    /// Stores what is left.
    pub(crate) fn flush(&mut self) -> Result<(), Stopped> {
        if self.block.is_empty() {
            return Ok(());
        }
        let added = self.sink.add(Kind::Data, &self.block.compress(&mut self.compressor));
        self.block.clear();
        added
    }

    fn read(&mut self, folder: &Opened, name: &[u8], sparse: bool) -> Result<Outcome, Stopped> {
        match self.try_read(folder, name, sparse) {
            Ok(outcome) => Ok(outcome),
            Err(ReadFailed::Local(error)) => Ok(Outcome::Unreadable(error)),
            Err(ReadFailed::Stopped(stopped)) => Err(stopped),
        }
    }

    fn try_read(
        &mut self,
        folder: &Opened,
        name: &[u8],
        sparse: bool,
    ) -> Result<Outcome, ReadFailed> {
        let file = open_file(&folder.fd, name)?;
        let stat = fstat(&file).map_err(io::Error::from)?;
        let holes = if sparse { scan::holes(&file, &stat)? } else { Vec::new() };
        let expected = stat.st_size.cast_unsigned();
        let mut pieces = scan::pieces(expected, &holes);
        if holes.is_empty() {
            // To the end, wherever that is by then.
            pieces = vec![(0, u64::MAX)];
        }
        let (read, chunks) = self.chunks(&file, &pieces, expected)?;
        let attributes = Of::File(&file).read()?;
        let after = Stamp::of(&fstat(&file).map_err(io::Error::from)?);
        let is_whole = stored_len(expected, &holes) == Some(read);
        let changed = after != Stamp::of(&stat) || !is_whole;
        // A file of one piece is stored as it was read, whatever became of it.
        let size = if holes.is_empty() { read } else { expected };
        let mut node = scan::node(&stat, folder.device, Content::File { size, chunks, holes });
        node.attributes = attributes;
        Ok(Outcome::Read { stamp: Stamp { size, ..Stamp::of(&stat) }, node, changed })
    }

    /// Reads pieces of a file, cuts what they are together, and stores what is new. Returns how many
    /// bytes there were, and the chunks.
    fn chunks(
        &mut self,
        file: &File,
        pieces: &[(u64, u64)],
        expected: u64,
    ) -> Result<(u64, Vec<ChunkId>), ReadFailed> {
        let (mut read, mut chunks) = (0, Vec::new());
        let mut start = 0;
        self.buffer.clear();
        for (offset, end) in pieces {
            let mut at = *offset;
            loop {
                // One byte more than there should be, so that the end is seen at once.
                let left = end.saturating_sub(at).min(expected.saturating_sub(at).max(4095) + 1);
                let room = usize::try_from(left).map_or(READ_LEN, |left| left.min(READ_LEN));
                let len = if room == 0 { 0 } else { self.read_some(file, at, room)? };
                (read, at) = (read + len as u64, at + len as u64);
                // Less than was asked for is the end of a file that has the length it should have.
                let is_end = len == 0 || (len < room && at == expected);
                while self.buffer.len() - start >= CHUNK_LEN_MAX {
                    start += self.chunk(start, &mut chunks)?;
                }
                self.buffer.drain(..start);
                start = 0;
                if is_end {
                    break;
                }
            }
        }
        while start < self.buffer.len() {
            start += self.chunk(start, &mut chunks)?;
        }
        Ok((read, chunks))
    }

    /// Cuts the next chunk off, and stores it if it is new.
    fn chunk(&mut self, start: usize, chunks: &mut Vec<ChunkId>) -> Result<usize, Stopped> {
        let len = self.chunker.cut(&self.buffer[start..]);
        let chunk = &self.buffer[start..start + len];
        let id = self.ids.data(chunk);
        chunks.push(id);
        let is_new = match &self.apart {
            None => self.sink.claim(id),
            Some(apart) => {
                let is_own = apart.before.contains(&id) && self.sink.is_stored(&id);
                !is_own && self.sink.claim_apart(apart.folder, id)
            }
        };
        if is_new {
            if !self.block.has_room(len) {
                self.flush()?;
            }
            self.block.push(id, &self.buffer[start..start + len]);
        }
        Ok(len)
    }

    /// Appends up to `room` bytes.
    fn read_some(&mut self, file: &File, at: u64, room: usize) -> io::Result<usize> {
        let old_len = self.buffer.len();
        self.buffer.resize(old_len + room, 0);
        let result = loop {
            match file.read_at(&mut self.buffer[old_len..], at) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result,
            }
        };
        self.buffer.truncate(old_len + result.as_ref().map_or(0, |len| *len));
        result
    }
}

/// Why something was not read.
pub(crate) enum ReadFailed {
    Local(io::Error),
    Stopped(Stopped),
}

impl From<io::Error> for ReadFailed {
    fn from(error: io::Error) -> Self {
        Self::Local(error)
    }
}

impl From<Stopped> for ReadFailed {
    fn from(stopped: Stopped) -> Self {
        Self::Stopped(stopped)
    }
}

/// Opens a file and nothing else: a link or pipe that took its place is an error, not a wait.
fn open_file(folder: impl AsFd, name: &[u8]) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = openat(folder, name, flags, Mode::empty())?;
    if FileType::from_raw_mode(fstat(&file)?.st_mode).is_file() {
        Ok(file.into())
    } else {
        Err(io::Error::other("it is not a file any more"))
    }
}
