//! Trees: one folder each, as a list of nodes that is stored like the content of a file.
//!
//! A folder of any size is a list of chunks, so that a change in a huge one stores little anew and
//! no tree is too large. See `spec/tree.md`.

use sr_wire::{Malformed, decode_first, encode};
use tls_codec::{TlsDeserializeBytes, TlsSerialize, TlsSize, VLBytes};

use crate::ChunkId;

/// No tree is longer than this: two million entries of common size.
pub const TREE_LEN_MAX: usize = 256 << 20;
const NAME_LEN_MAX: usize = 255;
const TARGET_LEN_MAX: usize = 4096;
const ATTRIBUTE_LEN_MAX: usize = 64 << 10;
/// A file has no more holes; where it has more, the zeros of the others are stored.
pub const HOLES_MAX: usize = 1 << 18;

/// An entry of a folder.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct Node {
    /// Name in its folder: 1 to 255 bytes, none of them `/` or zero, not `.` or `..`. The root of a
    /// snapshot has an empty one.
    pub name: VLBytes,
    /// Permission bits, `0o7777` at most.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Owning group.
    pub gid: u32,
    /// Time of last change: seconds since 1970 in two's complement.
    pub mtime_s: u64,
    /// Nanoseconds of the time of last change.
    pub mtime_ns: u32,
    /// The same number for all names of one file in a snapshot; none for a file that has one name.
    pub links: Option<u64>,
    /// Extended attributes, access control lists among them, sorted by name.
    pub attributes: Vec<Attribute>,
    /// What it is.
    pub content: Content,
}

/// An extended attribute.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct Attribute {
    /// Its name with its namespace: 1 to 255 bytes, none of them zero.
    pub name: VLBytes,
    /// Its value, 64 KiB at most.
    pub value: VLBytes,
}

/// A part of a file that reads as zeros and takes no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct Hole {
    /// Where it begins.
    pub offset: u64,
    /// Its length, above 0.
    pub len: u64,
}

/// What a node is.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
#[repr(u8)]
pub enum Content {
    /// A file: its length in bytes and its chunks.
    #[tls_codec(discriminant = 1)]
    File {
        /// Length in bytes, with the holes.
        size: u64,
        /// The chunks of all that is not in a hole, in order.
        chunks: Vec<ChunkId>,
        /// The holes, in order; there is something between any two.
        holes: Vec<Hole>,
    },
    /// A folder: the chunks of its tree.
    #[tls_codec(discriminant = 2)]
    Folder {
        /// The chunks in order.
        chunks: Vec<ChunkId>,
    },
    /// A symbolic link.
    #[tls_codec(discriminant = 3)]
    Symlink {
        /// Where it points to.
        target: VLBytes,
    },
    /// A named pipe.
    #[tls_codec(discriminant = 4)]
    Fifo,
    /// A character device.
    #[tls_codec(discriminant = 5)]
    CharacterDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    #[tls_codec(discriminant = 6)]
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
}

/// Returns how many bytes of a file are in no hole; `None` for holes that no file can have.
#[must_use]
pub fn stored_len(size: u64, holes: &[Hole]) -> Option<u64> {
    let (mut end, mut stored) = (0u64, size);
    for (number, hole) in holes.iter().enumerate() {
        let is_apart = if number == 0 { hole.offset >= end } else { hole.offset > end };
        end = hole.offset.checked_add(hole.len).filter(|end| *end <= size)?;
        stored = stored.checked_sub(hole.len).filter(|_| is_apart && hole.len > 0)?;
    }
    Some(stored)
}

/// Returns the bytes of a tree: its nodes one after the other. `nodes` are sorted by name.
#[must_use]
pub fn to_bytes<'a>(nodes: impl IntoIterator<Item = &'a Node>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for node in nodes {
        bytes.extend_from_slice(&encode(node));
    }
    bytes
}

/// Reads a tree and checks every name.
///
/// **Errors** [`Malformed`] for anything that this client would not have written: a name that
/// could leave the folder, that is double or out of order, or a field out of range.
pub fn parse(bytes: &[u8]) -> Result<Vec<Node>, Malformed> {
    let malformed = Malformed { what: "tree" };
    if bytes.len() > TREE_LEN_MAX {
        return Err(malformed);
    }
    let mut nodes: Vec<Node> = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (node, after): (Node, _) = decode_first("tree", rest)?;
        let in_order =
            nodes.last().is_none_or(|before| before.name.as_slice() < node.name.as_slice());
        if !in_order || !is_name(node.name.as_slice()) || !node.is_valid() {
            return Err(malformed);
        }
        nodes.push(node);
        rest = after;
    }
    Ok(nodes)
}

impl Node {
    /// Returns whether this can be the root of a snapshot.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.name.as_slice().is_empty()
            && self.is_valid()
            && matches!(self.content, Content::File { .. } | Content::Folder { .. })
    }

    fn is_valid(&self) -> bool {
        let content_ok = match &self.content {
            Content::File { size, chunks, holes } => {
                holes.len() <= HOLES_MAX
                    && stored_len(*size, holes).is_some_and(|len| (len == 0) == chunks.is_empty())
            }
            Content::Folder { .. }
            | Content::Fifo
            | Content::CharacterDevice { .. }
            | Content::BlockDevice { .. } => true,
            Content::Symlink { target } => {
                let target = target.as_slice();
                (1..=TARGET_LEN_MAX).contains(&target.len()) && !target.contains(&0)
            }
        };
        let names = self.attributes.iter().map(|attribute| attribute.name.as_slice());
        content_ok
            && self.mode <= 0o7777
            && self.mtime_ns < 1_000_000_000
            && names.is_sorted_by(|a, b| a < b)
            && self.attributes.iter().all(Attribute::is_valid)
            // A folder has one name; a file's other names are entries of their own.
            && (self.links.is_none() || !matches!(self.content, Content::Folder { .. }))
    }
}

impl Attribute {
    fn is_valid(&self) -> bool {
        let name = self.name.as_slice();
        (1..=NAME_LEN_MAX).contains(&name.len())
            && !name.contains(&0)
            && self.value.as_slice().len() <= ATTRIBUTE_LEN_MAX
    }
}

/// Returns whether `name` can only name something inside its folder.
#[must_use]
pub fn is_name(name: &[u8]) -> bool {
    (1..=NAME_LEN_MAX).contains(&name.len())
        && name != b"."
        && name != b".."
        && !name.iter().any(|byte| matches!(byte, 0 | b'/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &[u8]) -> Node {
        Node {
            name: name.to_vec().into(),
            mode: 0o644,
            uid: 1000,
            gid: 1000,
            mtime_s: -1i64 as u64,
            mtime_ns: 999_999_999,
            links: None,
            attributes: Vec::new(),
            content: file(3, vec![]),
        }
    }

    fn file(size: u64, holes: Vec<Hole>) -> Content {
        Content::File { size, chunks: vec![ChunkId([1; 32])], holes }
    }

    fn attribute(name: &[u8]) -> Attribute {
        Attribute { name: name.to_vec().into(), value: b"x".to_vec().into() }
    }

    #[test]
    fn round_trips() {
        let mut nodes: Vec<Node> =
            [&b"a"[..], b"b\xff", b"c", b"d", b"e", b"f", b"g"].map(node).to_vec();
        nodes[0].links = Some(7);
        nodes[1].content = Content::Folder { chunks: vec![] };
        nodes[1].attributes = vec![attribute(b"system.posix_acl_default"), attribute(b"user.a")];
        nodes[2].content = Content::Symlink { target: b"../x".to_vec().into() };
        nodes[3].content = Content::Fifo;
        nodes[4].content = Content::CharacterDevice { major: 1, minor: 3 };
        nodes[5].content = Content::BlockDevice { major: 8, minor: u32::MAX };
        let holes = vec![Hole { offset: 0, len: 4096 }, Hole { offset: 4099, len: 1 }];
        nodes[6].content = file(4100, holes);
        assert_eq!(parse(&to_bytes(&nodes)), Ok(nodes));
        assert_eq!(parse(&[]), Ok(vec![]));
    }

    #[test]
    fn names_that_could_leave_the_folder_are_refused() {
        for name in [&b""[..], b".", b"..", b"a/b", b"/", b"/etc", b"a\0", &[b'x'; 256]] {
            assert!(parse(&to_bytes(&[node(name)])).is_err(), "{name:?}");
        }
    }

    #[test]
    fn disorder_and_fields_out_of_range_are_refused() {
        assert!(parse(&to_bytes(&[node(b"b"), node(b"a")])).is_err());
        assert!(parse(&to_bytes(&[node(b"a"), node(b"a")])).is_err());
        let refused = |change: fn(&mut Node)| {
            let mut wrong = node(b"a");
            change(&mut wrong);
            assert!(parse(&to_bytes(&[wrong])).is_err());
        };
        refused(|n| n.mode = 0o10000);
        refused(|n| n.mtime_ns = 1_000_000_000);
        refused(|n| n.content = file(0, vec![]));
        refused(|n| n.content = Content::File { size: 1, chunks: vec![], holes: vec![] });
        refused(|n| n.attributes = vec![attribute(b"")]);
        refused(|n| n.attributes = vec![attribute(b"user.\0")]);
        refused(|n| n.attributes = vec![attribute(b"user.a"), attribute(b"user.a")]);
        refused(|n| n.attributes = vec![attribute(b"user.b"), attribute(b"user.a")]);
        refused(|n| {
            n.content = Content::Folder { chunks: vec![] };
            n.links = Some(1);
        });
        let hole = |offset, len| Hole { offset, len };
        let bad_holes = [
            vec![hole(0, 0)],
            vec![hole(0, 11)],
            vec![hole(0, 10)],
            vec![hole(u64::MAX, 1)],
            vec![hole(1, u64::MAX)],
            vec![hole(1, 2), hole(3, 1)],
            vec![hole(1, 3), hole(2, 1)],
            vec![hole(5, 1), hole(1, 1)],
        ];
        for holes in bad_holes {
            let wrong = Node { content: file(10, holes.clone()), ..node(b"a") };
            assert!(parse(&to_bytes(&[wrong])).is_err(), "{holes:?}");
        }
        refused(|n| n.content = Content::Symlink { target: vec![].into() });
        refused(|n| n.content = Content::Symlink { target: b"a\0b".to_vec().into() });
        let mut bytes = to_bytes(&[node(b"a")]);
        assert!(parse(&bytes[..bytes.len() - 1]).is_err());
        bytes.push(1);
        assert!(parse(&bytes).is_err());
    }
}
