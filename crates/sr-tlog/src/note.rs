//! Signed notes: a text, and lines that sign it (c2sp.org/signed-note).

use std::fmt;

use data_encoding::BASE64;

use crate::LogError;

/// No note is longer.
pub const NOTE_LEN_MAX: usize = 64 * 1024;
/// No note has more signatures.
pub const SIGNATURES_MAX: usize = 32;

/// A signature line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoteSignature {
    /// The name of the key.
    pub name: String,
    /// Its short id, which tells keys of one name apart and proves nothing.
    pub id: [u8; 4],
    /// The signature.
    pub signature: Vec<u8>,
}

/// A text with its signatures, none of which is verified yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The text, with the newline at its end.
    pub text: String,
    /// The signatures, at least one.
    pub signatures: Vec<NoteSignature>,
}

impl Note {
    /// Reads a note.
    ///
    /// **Errors** [`LogError::Malformed`] for anything but its one form.
    pub fn parse(bytes: &[u8]) -> Result<Self, LogError> {
        let malformed = LogError::Malformed("note");
        if bytes.len() > NOTE_LEN_MAX {
            return Err(malformed);
        }
        let note = std::str::from_utf8(bytes).map_err(|_| malformed)?;
        if note.bytes().any(|byte| byte < b' ' && byte != b'\n') {
            return Err(malformed);
        }
        // The last empty line is between text and signatures.
        let end = note.rfind("\n\n").ok_or(malformed)? + 1;
        let (text, signatures) = note.split_at(end);
        let lines = signatures[1..].strip_suffix('\n').ok_or(malformed)?;
        let signatures: Vec<NoteSignature> =
            lines.split('\n').map(NoteSignature::parse).collect::<Option<_>>().ok_or(malformed)?;
        if signatures.len() > SIGNATURES_MAX {
            return Err(malformed);
        }
        Ok(Self { text: text.to_owned(), signatures })
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        self.signatures.iter().try_for_each(|signature| writeln!(f, "{signature}"))
    }
}

impl NoteSignature {
    fn parse(line: &str) -> Option<Self> {
        let (name, encoded) = line.strip_prefix("— ")?.split_once(' ')?;
        let bytes = decode_base64(encoded)?;
        let (id, signature) = bytes.split_first_chunk::<4>()?;
        let is_signed = is_name(name) && !signature.is_empty();
        is_signed.then(|| Self { name: name.to_owned(), id: *id, signature: signature.to_vec() })
    }
}

impl fmt::Display for NoteSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = [&self.id[..], &self.signature].concat();
        write!(f, "— {} {}", self.name, BASE64.encode(&bytes))
    }
}

/// Reads base64 in its one form. The library also takes pieces with padding inside, one after the other.
pub(crate) fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let bytes = BASE64.decode(text.as_bytes()).ok()?;
    (BASE64.encode(&bytes) == text).then_some(bytes)
}

/// Returns whether a key may have this name: not empty, no space and no plus.
pub(crate) fn is_name(name: &str) -> bool {
    let may_not = |c: char| c.is_whitespace() || c.is_control() || c == '+';
    !name.is_empty() && !name.contains(may_not)
}
