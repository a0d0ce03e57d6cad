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

/// A file, folder or symbolic link.
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
    /// What it is.
    pub content: Content,
}

/// What a node is.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
#[repr(u8)]
pub enum Content {
    /// A file: its length in bytes and its chunks.
    #[tls_codec(discriminant = 1)]
    File {
        /// Length in bytes.
        size: u64,
        /// The chunks in order.
        chunks: Vec<ChunkId>,
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
}

/// Returns the bytes of a tree: its nodes one after the other. `nodes` are sorted by name.
#[must_use]
pub fn to_bytes(nodes: &[Node]) -> Vec<u8> {
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
            && !matches!(self.content, Content::Symlink { .. })
    }

    fn is_valid(&self) -> bool {
        let content_ok = match &self.content {
            Content::File { size, chunks } => (*size == 0) == chunks.is_empty(),
            Content::Folder { .. } => true,
            Content::Symlink { target } => {
                let target = target.as_slice();
                (1..=TARGET_LEN_MAX).contains(&target.len()) && !target.contains(&0)
            }
        };
        content_ok && self.mode <= 0o7777 && self.mtime_ns < 1_000_000_000
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
            content: Content::File { size: 3, chunks: vec![ChunkId([1; 32])] },
        }
    }

    #[test]
    fn round_trips() {
        let mut nodes = vec![node(b"a"), node(b"b\xff"), node(b"c")];
        nodes[1].content = Content::Folder { chunks: vec![] };
        nodes[2].content = Content::Symlink { target: b"../x".to_vec().into() };
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
        refused(|n| n.content = Content::File { size: 0, chunks: vec![ChunkId([1; 32])] });
        refused(|n| n.content = Content::File { size: 1, chunks: vec![] });
        refused(|n| n.content = Content::Symlink { target: vec![].into() });
        refused(|n| n.content = Content::Symlink { target: b"a\0b".to_vec().into() });
        let mut bytes = to_bytes(&[node(b"a")]);
        assert!(parse(&bytes[..bytes.len() - 1]).is_err());
        bytes.push(1);
        assert!(parse(&bytes).is_err());
    }
}
