//! The proof wall: what only this room can make.

use std::ops::Deref;

/// Something that an operator could have forged and has not: this room has verified it.
///
/// ```compile_fail
/// let forged = sr_trust::Verified::new(0);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified<T>(T);

impl<T> Verified<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(value)
    }

    pub(crate) const fn inner_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T> Deref for Verified<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}
