//! What a folder's rules leave out of its backup.

use std::{
    ffi::OsStr,
    io::{self, Read},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use ignore::{
    Match,
    gitignore::{Gitignore, GitignoreBuilder},
};
use rustix::fs::{Mode, OFlags, fstat, openat};
use sr_vault::tree::Content;
use tls_codec::{TlsDeserializeBytes, TlsSerialize, TlsSize, VLBytes};

use crate::{
    ClientError,
    beneath::open_beneath,
    scan::{Item, Opened, inside},
};

/// How a folder is backed up, and which entries of it are not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Patterns as in a `.gitignore` at the top of the folder.
    pub patterns: Vec<String>,
    /// In folders that have an entry of one of these names, everything else.
    pub if_present: Vec<String>,
    /// Folders named `.cache`, and what is in folders with a `CACHEDIR.TAG` besides that.
    pub caches: bool,
    /// What `.gitignore` files in the folder name.
    pub gitignore: bool,
    /// What lies on another file system than the folder.
    pub one_file_system: bool,
    /// Files with more bytes.
    pub larger_than: Option<u64>,
    /// Nothing is left out by this, but content is stored even if another folder has it already: so
    /// nobody who puts a file here learns from the traffic what is elsewhere.
    pub no_dedup_across: bool,
}

/// The rules, as a profile keeps them.
#[derive(TlsSerialize, TlsDeserializeBytes, TlsSize)]
struct Encoded {
    patterns: Vec<VLBytes>,
    if_present: Vec<VLBytes>,
    caches: u8,
    gitignore: u8,
    one_file_system: u8,
    larger_than: Option<u64>,
    no_dedup_across: u8,
}

/// An entry that is left out, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// Its path.
    pub path: PathBuf,
    /// By which rule, in a few words.
    pub why: &'static str,
}

/// What a backup of a folder would have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preview {
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What is left out by a rule; of a folder only itself.
    pub left_out: Vec<LeftOut>,
    /// What can't be read, or is of no kind that is backed up.
    pub skipped: Vec<crate::Skipped>,
}

impl Rules {
    /// Returns whether the folder is backed up like any other, and all of it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let texts = |list: &[String]| list.iter().map(|s| s.as_bytes().to_vec().into()).collect();
        sr_wire::encode(&Encoded {
            patterns: texts(&self.patterns),
            if_present: texts(&self.if_present),
            caches: self.caches.into(),
            gitignore: self.gitignore.into(),
            one_file_system: self.one_file_system.into(),
            larger_than: self.larger_than,
            no_dedup_across: self.no_dedup_across.into(),
        })
    }

    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        if bytes.is_empty() {
            return Some(Self::default());
        }
        let encoded: Encoded = sr_wire::decode("rules", bytes, bytes.len()).ok()?;
        let texts = |list: Vec<VLBytes>| {
            list.into_iter().map(|s| String::from_utf8(s.into()).ok()).collect::<Option<Vec<_>>>()
        };
        Some(Self {
            patterns: texts(encoded.patterns)?,
            if_present: texts(encoded.if_present)?,
            caches: encoded.caches != 0,
            gitignore: encoded.gitignore != 0,
            one_file_system: encoded.one_file_system != 0,
            larger_than: encoded.larger_than,
            no_dedup_across: encoded.no_dedup_across != 0,
        })
    }
}

/// The first line of a `CACHEDIR.TAG`. Source: "Cache Directory Tagging Specification", Bryan Ford, 2004.
const CACHE_TAG: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55";
const CACHE_TAG_NAME: &str = "CACHEDIR.TAG";
const GITIGNORE: &str = ".gitignore";
/// Of a `.gitignore`, no more is read.
const GITIGNORE_LEN_MAX: u64 = 1 << 20;

/// The rules of a folder, ready to be asked.
pub(crate) struct Excluder<'a> {
    rules: &'a Rules,
    patterns: Gitignore,
}

/// The `.gitignore` files of a folder and of those that it is in, the innermost first.
pub(crate) struct Ignores {
    folder: PathBuf,
    matcher: Gitignore,
    above: Option<Arc<Ignores>>,
}

impl<'a> Excluder<'a> {
    /// **Errors** [`ClientError::Pattern`].
    pub(crate) fn new(rules: &'a Rules) -> Result<Self, ClientError> {
        let mut builder = GitignoreBuilder::new("");
        let wrong = |error: ignore::Error| ClientError::Pattern(error.to_string());
        for pattern in &rules.patterns {
            builder.add_line(None, pattern).map_err(wrong)?;
        }
        Ok(Self { rules, patterns: builder.build().map_err(wrong)? })
    }

    /// Takes what is left out off the entries of a folder, and returns it. `folder` is below the root;
    /// `above` are the `.gitignore` files of those that it is in, and becomes those of its own folders.
    pub(crate) fn apply(
        &self,
        opened: &Opened,
        folder: &Path,
        items: &mut Vec<Item>,
        above: &mut Option<Arc<Ignores>>,
    ) -> io::Result<Vec<LeftOut>> {
        let mut left_out = Vec::new();
        if self.rules.is_empty() {
            return Ok(left_out);
        }
        if self.rules.one_file_system && fstat(&opened.fd)?.st_dev != opened.device {
            items.clear();
            left_out.push(LeftOut { path: opened.path.clone(), why: "on another file system" });
            return Ok(left_out);
        }
        if self.rules.gitignore && items.iter().any(|item| name(item) == GITIGNORE) {
            *above = Some(Arc::new(read_gitignore(opened, folder, above.take())));
        }
        let marker = self.marker(opened, items);
        items.retain(|item| {
            let why = match &marker {
                Some((kept, why)) => (name(item) != kept.as_str()).then_some(*why),
                None => self.why(folder, item, above.as_deref()),
            };
            let path = || opened.path.join(name(item));
            left_out.extend(why.map(|why| LeftOut { path: path(), why }));
            why.is_none()
        });
        Ok(left_out)
    }

    /// Returns the entry that says that nothing else of a folder is wanted.
    fn marker(&self, opened: &Opened, items: &[Item]) -> Option<(String, &'static str)> {
        let has = |wanted: &str| items.iter().any(|item| name(item) == wanted);
        if self.rules.caches && has(CACHE_TAG_NAME) && is_cache_tag(opened) {
            return Some((CACHE_TAG_NAME.into(), "in a folder that CACHEDIR.TAG calls a cache"));
        }
        let marker = self.rules.if_present.iter().find(|marker| has(marker))?;
        Some((marker.clone(), "in a folder with a file that says so"))
    }

    fn why(&self, folder: &Path, item: &Item, above: Option<&Ignores>) -> Option<&'static str> {
        let is_folder = matches!(item.node.content, Content::Folder { .. });
        let path = folder.join(name(item));
        if self.rules.caches && is_folder && name(item) == ".cache" {
            return Some("a cache by its name");
        }
        match self.patterns.matched(&path, is_folder) {
            Match::Ignore(_) => return Some("by a pattern"),
            Match::Whitelist(_) => return None,
            Match::None => {}
        }
        let is_file = matches!(item.node.content, Content::File { .. });
        if is_file && self.rules.larger_than.is_some_and(|max| item.stamp.size > max) {
            return Some("larger than the limit");
        }
        let mut ignores = above;
        while let Some(here) = ignores {
            let below = path.strip_prefix(&here.folder).unwrap_or(&path);
            match here.matcher.matched(below, is_folder) {
                Match::Ignore(_) => return Some("by a .gitignore"),
                Match::Whitelist(_) => return None,
                Match::None => ignores = here.above.as_deref(),
            }
        }
        None
    }
}

/// Looks at what a backup of `path` would have, without storing anything.
///
/// **Errors** [`ClientError::Local`] for that path, [`ClientError::Pattern`].
pub(crate) fn preview(path: &Path, rules: &Rules, profile: &Path) -> Result<Preview, ClientError> {
    let cannot = |error: io::Error| ClientError::local("reading", path)(error);
    let excluder = Excluder::new(rules)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(path, flags, Mode::empty()).map_err(|e| cannot(e.into()))?;
    let device = fstat(&root).map_err(|e| cannot(e.into()))?.st_dev;
    let profile = inside(path, profile);
    let mut preview = Preview::default();
    let mut stack = vec![(PathBuf::new(), None)];
    while let Some((folder, mut ignores)) = stack.pop() {
        let own = profile.as_ref().filter(|(inside, _)| *inside == folder);
        let mut list = || -> io::Result<Vec<Item>> {
            let fd = open_beneath(&root, &folder)?;
            let opened = Opened { fd, path: path.join(&folder), device };
            let mut items =
                opened.list(|name| own.is_some_and(|(_, n)| n == name), &mut preview.skipped)?;
            let left_out = excluder.apply(&opened, &folder, &mut items, &mut ignores)?;
            preview.left_out.extend(left_out);
            Ok(items)
        };
        let items = match list() {
            Ok(items) => items,
            Err(error) if folder.as_os_str().is_empty() => return Err(cannot(error)),
            Err(error) => {
                preview.skipped.push(crate::Skipped::unreadable(path.join(&folder), &error));
                continue;
            }
        };
        for item in &items {
            match item.node.content {
                Content::Folder { .. } => stack.push((folder.join(name(item)), ignores.clone())),
                Content::File { .. } => {
                    preview.files += 1;
                    preview.bytes += item.stamp.size;
                }
                _ => {}
            }
        }
    }
    preview.left_out.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(preview)
}

fn read_gitignore(opened: &Opened, folder: &Path, above: Option<Arc<Ignores>>) -> Ignores {
    let mut builder = GitignoreBuilder::new("");
    // One that can't be read leaves nothing out.
    let text = read_start(opened, GITIGNORE, GITIGNORE_LEN_MAX).unwrap_or_default();
    for line in String::from_utf8_lossy(&text).lines() {
        // What is no pattern names nothing, as in git.
        let _ = builder.add_line(None, line);
    }
    let matcher = builder.build().unwrap_or_else(|_| Gitignore::empty());
    Ignores { folder: folder.to_owned(), matcher, above }
}

fn is_cache_tag(opened: &Opened) -> bool {
    let len = CACHE_TAG.len() as u64;
    read_start(opened, CACHE_TAG_NAME, len).is_ok_and(|start| start == CACHE_TAG)
}

/// Reads the first bytes of a regular file.
fn read_start(opened: &Opened, name: &str, len: u64) -> io::Result<Vec<u8>> {
    // A pipe of that name would never answer.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = std::fs::File::from(openat(&opened.fd, name, flags, Mode::empty())?);
    let mut start = Vec::new();
    if file.metadata()?.is_file() {
        file.take(len).read_to_end(&mut start)?;
    }
    Ok(start)
}

fn name(item: &Item) -> &OsStr {
    OsStr::from_bytes(item.node.name.as_slice())
}
