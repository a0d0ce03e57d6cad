//! Fills files with their content, pack by pack in the order in which they lie: each pack is fetched
//! once, each block expanded once, whichever files share them. A file gets its place when it is whole.

use std::{
    fs::File,
    io,
    ops::Range,
    os::{fd::OwnedFd, unix::fs::FileExt},
    path::PathBuf,
    sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering},
    thread,
};

use rustix::fs::{AtFlags, Mode, OFlags, ftruncate, openat, unlinkat};
use sr_vault::{
    pack::{OpenSlots, Slots},
    tree::{Content, Hole, Node, stored_len},
};
use sr_wire::Misbehaviour;

use super::{EntryError, Part, Restore, WORKERS, is_disk_full, name, rename};
use crate::{
    ClientError, RefusedFile,
    backup::join_all,
    read::{ReadError, expand},
    scan::pieces,
};

/// Of a pack of which no more slots are needed, only those are fetched.
const FEW_SLOTS: usize = 8;

/// A chunk, and where it belongs.
struct Use {
    block: u32,
    offset: u32,
    len: u32,
    /// Number of the file among those that are filled.
    file: u32,
    /// Number of the chunk in the file.
    chunk: u32,
    /// Where it begins in what of the file lies in no hole.
    at: u64,
}

/// A file that is being filled.
struct Filling {
    job: usize,
    /// Chunks that are not there yet.
    left: AtomicU32,
    is_bad: AtomicBool,
}

/// What a worker has open: the file and the folder that it used last.
#[derive(Default)]
struct Opened {
    file: Option<(usize, File)>,
    folder: Option<(usize, OwnedFd)>,
}

impl Restore<'_> {
    /// Fills the files of these jobs, which have content.
    pub(super) fn fill(&self, part: &Part, jobs: &[usize]) -> Result<(), ClientError> {
        let (mut uses, mut files) = (Vec::new(), Vec::with_capacity(jobs.len()));
        for job in jobs {
            let before = uses.len();
            let file = u32::try_from(files.len()).unwrap_or(u32::MAX);
            let found = self.uses(&part.jobs[*job].node, file, &mut uses);
            let left = u32::try_from(uses.len() - before).unwrap_or(u32::MAX);
            let filling =
                Filling { job: *job, left: AtomicU32::new(left), is_bad: AtomicBool::new(false) };
            if let Err(misbehaviour) = found {
                uses.truncate(before);
                self.spoil(part, &filling, ReadError::from(misbehaviour).into())?;
            }
            files.push(filling);
        }
        uses.sort_unstable_by_key(|a| (a.block, a.offset));
        let (packs, cursor) = (self.by_pack(&uses), AtomicUsize::new(0));
        thread::scope(|scope| {
            let work = || {
                let mut opened = Opened::default();
                loop {
                    let next = packs.get(cursor.fetch_add(1, Ordering::Relaxed));
                    let Some(range) = next else { return Ok(()) };
                    self.fill_from_pack(part, &files, &uses[range.clone()], &mut opened)?;
                }
            };
            join_all((0..WORKERS).map(|_| scope.spawn(work)).collect())
        })
    }

    /// Makes a file in which nothing lies outside of holes.
    pub(super) fn fill_with_nothing(
        &self,
        folder: &OwnedFd,
        node: &Node,
        path: &std::path::Path,
    ) -> io::Result<()> {
        let temporary = self.temporary();
        let file = self.open_temporary(&temporary)?;
        self.finish_file(&file, node, path)?;
        rename(&self.staging, &temporary, folder, node)
    }

    fn uses(&self, node: &Node, file: u32, uses: &mut Vec<Use>) -> Result<(), Misbehaviour> {
        let Content::File { size, chunks, holes } = &node.content else { return Ok(()) };
        let mut at = 0;
        for (chunk, id) in (0..).zip(chunks) {
            // SR-003: a verified tree names a chunk that no verified index knows.
            let place = self.reader.place(id).ok_or(Misbehaviour::PackMissing)?;
            let (block, offset, len) = (place.block, place.offset, place.len);
            uses.push(Use { block, offset, len, file, chunk, at });
            at += u64::from(len);
        }
        // SR-015: the chunks are the right ones, so what the node says must be theirs.
        Misbehaviour::ObjectMalformed.refuse_if(stored_len(*size, holes) != Some(at))
    }

    /// Returns which of the uses, sorted, are of the same pack.
    fn by_pack(&self, uses: &[Use]) -> Vec<Range<usize>> {
        let pack = |a: &Use| self.reader.block_place(a.block).map(|block| block.pack);
        let mut start = 0;
        let ranges = uses.chunk_by(|a, b| pack(a) == pack(b)).map(|same| {
            start += same.len();
            start - same.len()..start
        });
        ranges.collect()
    }

    fn fill_from_pack(
        &self,
        part: &Part,
        files: &[Filling],
        uses: &[Use],
        opened: &mut Opened,
    ) -> Result<(), ClientError> {
        let blocks = || uses.chunk_by(|a, b| a.block == b.block);
        let slots = |uses: &[Use]| {
            let place = self.reader.block_place(uses.first()?.block)?;
            Some(Slots::of_range(place.offset as usize, place.stored_len as usize))
        };
        let needed: usize =
            blocks().filter_map(slots).map(|slots| slots.last - slots.first + 1).sum();
        let whole = (needed > FEW_SLOTS).then(|| self.open(uses, Slots::ALL));
        for uses in blocks() {
            let done = match &whole {
                Some(Ok(pack)) => self.fill_from_block(part, files, uses, pack, opened)?,
                Some(Err(error)) => Err(error.clone()),
                None => match self.open(uses, slots(uses).unwrap_or(Slots::ALL)) {
                    Ok(pack) => self.fill_from_block(part, files, uses, &pack, opened)?,
                    Err(error) => Err(error),
                },
            };
            if let Err(error) = done {
                for one in uses {
                    let file = &files[one.file as usize];
                    self.spoil(part, file, error.clone().into())?;
                    self.tick(part, file, opened)?;
                }
            }
        }
        Ok(())
    }

    fn open(&self, uses: &[Use], slots: Slots) -> Result<OpenSlots, ReadError> {
        let malformed = Misbehaviour::ObjectMalformed;
        let block = uses.first().and_then(|first| self.reader.block_place(first.block));
        self.reader.open_pack(block.ok_or(malformed)?.pack, slots)
    }

    /// The inner error is of the block, and nothing was filled from it.
    fn fill_from_block(
        &self,
        part: &Part,
        files: &[Filling],
        uses: &[Use],
        pack: &OpenSlots,
        opened: &mut Opened,
    ) -> Result<Result<(), ReadError>, ClientError> {
        let place = uses.first().and_then(|first| self.reader.block_place(first.block));
        let block = place.ok_or(ReadError::from(Misbehaviour::ObjectMalformed));
        let raw = match block.and_then(|place| expand(pack, place)) {
            Ok(raw) => raw,
            Err(error) => return Ok(Err(error)),
        };
        let mut hashed = None;
        for one in uses {
            let file = &files[one.file as usize];
            let Content::File { chunks, holes, .. } = &part.jobs[file.job].node.content else {
                continue;
            };
            let id = chunks.get(one.chunk as usize).copied();
            let (start, len) = (one.offset as usize, one.len as usize);
            let chunk = raw.get(start..start + len).unwrap_or_default();
            // Several files may have the same chunk. What was hashed before counts for its place only.
            let (_, actual) = hashed
                .filter(|(place, _)| *place == (start, len))
                .unwrap_or_else(|| ((start, len), self.reader.data_id(chunk)));
            hashed = Some(((start, len), actual));
            // SR-004: whatever index or pack it came from, it must be the chunk that the tree names.
            let put = match Misbehaviour::ChunkMismatch.refuse_if(Some(actual) != id) {
                Err(misbehaviour) => Err(ReadError::from(misbehaviour).into()),
                Ok(()) if file.is_bad.load(Ordering::Relaxed) => Ok(()),
                Ok(()) => self.put(file, part, holes, one.at, chunk, opened),
            };
            if let Err(error) = put {
                self.spoil(part, file, error)?;
            }
            self.tick(part, file, opened)?;
        }
        Ok(Ok(()))
    }

    /// Writes a chunk where it belongs.
    fn put(
        &self,
        file: &Filling,
        part: &Part,
        holes: &[Hole],
        mut at: u64,
        mut chunk: &[u8],
        opened: &mut Opened,
    ) -> Result<(), EntryError> {
        if opened.file.as_ref().is_none_or(|(job, _)| *job != file.job) {
            opened.file = Some((file.job, self.open_temporary(&temporary(file.job))?));
        }
        let Some((_, open)) = &opened.file else { return Ok(()) };
        if holes.is_empty() {
            return Ok(open.write_all_at(chunk, at)?);
        }
        let Content::File { size, .. } = part.jobs[file.job].node.content else { return Ok(()) };
        for (start, end) in pieces(size, holes) {
            let len = (end - start).saturating_sub(at).min(chunk.len() as u64);
            let (now, later) = chunk.split_at(usize::try_from(len).unwrap_or(chunk.len()));
            open.write_all_at(now, start + at)?;
            at = (at + len).saturating_sub(end - start);
            chunk = later;
        }
        Ok(())
    }

    /// Counts a chunk that is there, or will never be; after the last, the file gets its place.
    fn tick(&self, part: &Part, file: &Filling, opened: &mut Opened) -> Result<(), ClientError> {
        if file.left.fetch_sub(1, Ordering::AcqRel) != 1 {
            return Ok(());
        }
        if file.is_bad.load(Ordering::Relaxed) {
            // The whole staging folder goes at the end; this only keeps it small.
            let _ = unlinkat(&self.staging, temporary(file.job), AtFlags::empty());
            return Ok(());
        }
        match self.place(part, file.job, opened) {
            Ok(()) => self.did(&part.jobs[file.job].node),
            Err(error) => self.spoil(part, file, error.into())?,
        }
        Ok(())
    }

    fn place(&self, part: &Part, job: usize, opened: &mut Opened) -> io::Result<()> {
        let (folder, node) = (part.jobs[job].folder, &part.jobs[job].node);
        let file = match opened.file.take() {
            Some((number, file)) if number == job => file,
            _ => self.open_temporary(&temporary(job))?,
        };
        self.finish_file(&file, node, &path(part, job))?;
        if opened.folder.as_ref().is_none_or(|(number, _)| *number != folder) {
            opened.folder = Some((folder, self.open_folder(&part.folders[folder].path)?));
        }
        let Some((_, folder)) = &opened.folder else { return Ok(()) };
        rename(&self.staging, &temporary(job), folder, node)
    }

    fn finish_file(&self, file: &File, node: &Node, path: &std::path::Path) -> io::Result<()> {
        if let Content::File { size, holes, .. } = &node.content
            && !holes.is_empty()
        {
            ftruncate(file, *size)?;
        }
        self.set_meta(file, node, path)
    }

    /// Lists a file that can't be had back, once; what ends the whole restore is an error.
    fn spoil(&self, part: &Part, file: &Filling, error: EntryError) -> Result<(), ClientError> {
        let is_first = !file.is_bad.swap(true, Ordering::Relaxed);
        let path = path(part, file.job);
        match error {
            EntryError::Read(ReadError::Damaged(misbehaviour)) => {
                if is_first {
                    let why = misbehaviour.to_string();
                    self.report().refused.push(RefusedFile { path, why });
                }
            }
            EntryError::Read(error) => return Err(error.into()),
            EntryError::Local(error) if is_disk_full(&error) => {
                return Err(ClientError::local("writing", self.target.join(path))(error));
            }
            EntryError::Local(error) if is_first => self.fail(&path, &error),
            EntryError::Local(_) => {}
        }
        Ok(())
    }

    fn open_temporary(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(openat(&self.staging, name, flags, Mode::from_raw_mode(0o600))?.into())
    }
}

/// The name of a job's file until it is whole.
fn temporary(job: usize) -> String {
    format!("f{job}")
}

fn path(part: &Part, job: usize) -> PathBuf {
    part.folders[part.jobs[job].folder].path.join(name(&part.jobs[job].node))
}
