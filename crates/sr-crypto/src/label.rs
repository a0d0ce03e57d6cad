//! Domain separation: every hash, key and signature names what it is for.

/// What each label is prefixed with; a new suite is a new prefix.
pub const LABEL_PREFIX: &str = "strongroom.v1/";

/// A domain label. The one table of them is `sr_wire::labels`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label(&'static str);

impl Label {
    /// Makes a label from its short name, without prefix.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self(name)
    }

    /// Returns the short name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.0
    }

    /// Returns `"strongroom.v1/" ‖ name ‖ 0x00`. The zero byte makes any set of different names
    /// prefix-free.
    #[must_use]
    pub fn to_bytes(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(LABEL_PREFIX.len() + self.0.len() + 1);
        bytes.extend_from_slice(LABEL_PREFIX.as_bytes());
        bytes.extend_from_slice(self.0.as_bytes());
        bytes.push(0);
        bytes
    }
}
