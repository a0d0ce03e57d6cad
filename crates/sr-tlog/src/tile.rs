//! Tiles: the tree in pieces that never change once they are full (c2sp.org/tlog-tiles).

use crate::{Digest, LogError};

/// Hashes in a full tile, and entries in a full bundle.
pub const TILE_WIDTH: usize = 256;
/// No entry is longer: its length has two bytes.
pub const ENTRY_LEN_MAX: usize = u16::MAX as usize;
/// No tree has more levels of tiles: 256^8 entries are more than a size can say.
const LEVELS_MAX: u8 = 8;

/// A piece of the tree: up to 256 hashes of one level, side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tile {
    /// 0 for hashes of entries; each hash of the level above stands for a full tile.
    pub level: u8,
    /// Its number in the level.
    pub index: u64,
    /// How many hashes it has, 1 to 256; a narrower one is partial.
    pub width: u16,
}

impl Tile {
    /// Returns the tile's path below the log's prefix: `tile/L/N`, with `.p/W` for a partial one.
    #[must_use]
    pub fn path(&self) -> String {
        format!("tile/{}/{}", self.level, place(self.index, self.width))
    }

    /// Returns the path of the entries that a tile of level 0 hashes.
    #[must_use]
    pub fn entries_path(&self) -> String {
        format!("tile/entries/{}", place(self.index, self.width))
    }

    /// Reads a path as [`Tile::path`] or [`Tile::entries_path`] writes it; says whether it is the latter,
    /// whose tile has level 0.
    #[must_use]
    pub fn parse_path(path: &str) -> Option<(Self, bool)> {
        let (level, rest) = path.strip_prefix("tile/")?.split_once('/')?;
        let is_entries = level == "entries";
        let (number, width) = rest.split_once(".p/").unwrap_or((rest, "256"));
        let number: String = number.chars().filter(|c| !matches!(c, 'x' | '/')).collect();
        let tile = Self {
            level: if is_entries { 0 } else { level.parse().ok()? },
            index: number.parse().ok()?,
            width: width.parse().ok()?,
        };
        let written = if is_entries { tile.entries_path() } else { tile.path() };
        // There is one way to write it.
        (written == path).then_some((tile, is_entries))
    }

    /// Returns the hashes in the bytes of this tile.
    ///
    /// **Errors** [`LogError::Malformed`] for another length than 32 bytes for each.
    pub fn parse(&self, bytes: &[u8]) -> Result<Vec<Digest>, LogError> {
        let (hashes, rest) = bytes.as_chunks::<32>();
        if rest.is_empty() && hashes.len() == usize::from(self.width) {
            Ok(hashes.to_vec())
        } else {
            Err(LogError::Malformed("tile"))
        }
    }
}

/// Returns the tiles that a tree with `new` entries has, and that the one with `old` has not, or not as
/// wide, the lowest level first.
#[must_use]
pub fn tiles_between(old: u64, new: u64) -> Vec<Tile> {
    let mut tiles = Vec::new();
    for level in 0..LEVELS_MAX {
        let (had, has) = (old >> (8 * level), new >> (8 * level));
        if has == 0 {
            break;
        }
        if had == has {
            continue;
        }
        let wide = TILE_WIDTH as u64;
        for index in had / wide..=(has - 1) / wide {
            let width = (has - index * wide).min(wide);
            tiles.push(Tile { level, index, width: u16::try_from(width).unwrap_or(u16::MAX) });
        }
    }
    tiles
}

/// Returns the bundle of these entries: each with its length before it, in two bytes.
///
/// **Errors** [`LogError::Malformed`] for an entry that is too long.
pub fn bundle(entries: &[impl AsRef<[u8]>]) -> Result<Vec<u8>, LogError> {
    let mut bytes = Vec::new();
    for entry in entries.iter().map(AsRef::as_ref) {
        let len = u16::try_from(entry.len()).map_err(|_| LogError::Malformed("entry"))?;
        bytes.extend_from_slice(&len.to_be_bytes());
        bytes.extend_from_slice(entry);
    }
    Ok(bytes)
}

/// Returns the entries of a bundle, which must be `count`.
///
/// **Errors** [`LogError::Malformed`].
pub fn entries_of(mut bundle: &[u8], count: usize) -> Result<Vec<&[u8]>, LogError> {
    let malformed = LogError::Malformed("bundle of entries");
    let mut entries = Vec::with_capacity(count.min(TILE_WIDTH));
    while let Some((len, rest)) = bundle.split_first_chunk::<2>() {
        let len = usize::from(u16::from_be_bytes(*len));
        let (entry, rest) = rest.split_at_checked(len).ok_or(malformed)?;
        entries.push(entry);
        bundle = rest;
    }
    if bundle.is_empty() && entries.len() == count { Ok(entries) } else { Err(malformed) }
}

/// `N[.p/W]`, where N is in groups of three digits, all but the last with an `x` before them.
fn place(index: u64, width: u16) -> String {
    let mut place = format!("{:03}", index % 1000);
    let mut rest = index / 1000;
    while rest > 0 {
        place = format!("x{:03}/{place}", rest % 1000);
        rest /= 1000;
    }
    if usize::from(width) < TILE_WIDTH {
        place.push_str(&format!(".p/{width}"));
    }
    place
}
