//! The invite: a line of text that names a server and pays for the first spaces.

use std::{fmt, str::FromStr};

use sr_crypto::{CryptoRng, Hash, hash, text};
use thiserror::Error;

use crate::labels;

/// Spaces that one invite pays for.
pub const VOUCHERS_PER_INVITE: u8 = 16;

const PREFIX: &str = "strongroom1:";
const TOKEN_LEN: usize = 16;
const CHECK_LEN: usize = 2;

/// An invite.
///
/// **Shape** `strongroom1:HOST:PORT:` and 80 characters of Crockford base32 over
/// `card_hash[32] ‖ token[16] ‖ check[2]`, check being the first bytes of
/// `H("invite-check", card_hash ‖ token)`. An IPv6 host stands in brackets.
#[derive(Clone, PartialEq, Eq)]
pub struct Invite {
    /// `HOST:PORT`, a hint that is not trusted.
    pub address: String,
    /// The card that the server must show.
    pub card_hash: Hash,
    /// What the vouchers are derived from.
    pub token: [u8; TOKEN_LEN],
}

impl Invite {
    /// Makes an invite with a random token.
    pub fn new(address: String, card_hash: Hash, rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        let mut token = [0; TOKEN_LEN];
        rng.fill_bytes(&mut token);
        Self { address, card_hash, token }
    }

    fn check(&self) -> [u8; CHECK_LEN] {
        let hash = hash(labels::INVITE_CHECK, &[&self.card_hash, &self.token]);
        [hash[0], hash[1]]
    }
}

/// Why a text is no invite.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum InviteError {
    /// `HOST:PORT` is missing or wrong.
    #[error("the invite has no address of the form HOST:PORT")]
    Address,
    /// A character is wrong, missing or swapped.
    #[error("the invite was mistyped or cut off")]
    Code,
    /// It does not begin as invites do.
    #[error("an invite begins with `strongroom1:`")]
    Prefix,
}

impl FromStr for Invite {
    type Err = InviteError;

    fn from_str(text: &str) -> Result<Self, InviteError> {
        let rest = text.trim().strip_prefix(PREFIX).ok_or(InviteError::Prefix)?;
        let (address, code) = rest.rsplit_once(':').ok_or(InviteError::Address)?;
        check_address(address)?;
        let code = text::from_base32(code).ok_or(InviteError::Code)?;
        if code.len() != 32 + TOKEN_LEN + CHECK_LEN {
            return Err(InviteError::Code);
        }
        let mut invite =
            Self { address: address.to_owned(), card_hash: [0; 32], token: [0; TOKEN_LEN] };
        invite.card_hash.copy_from_slice(&code[..32]);
        invite.token.copy_from_slice(&code[32..32 + TOKEN_LEN]);
        if invite.check() != code[32 + TOKEN_LEN..] {
            return Err(InviteError::Code);
        }
        Ok(invite)
    }
}

impl fmt::Display for Invite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut code = self.card_hash.to_vec();
        code.extend_from_slice(&self.token);
        code.extend_from_slice(&self.check());
        write!(f, "{PREFIX}{}:{}", self.address, text::to_base32(&code))
    }
}

impl fmt::Debug for Invite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Invite({}, ..)", self.address)
    }
}

/// Returns voucher `number` of a token: it pays for one space, once.
#[must_use]
pub fn voucher(token: &[u8; TOKEN_LEN], number: u8) -> Hash {
    hash(labels::VOUCHER, &[token, &[number]])
}

/// Returns what a server keeps of a voucher until it is spent.
#[must_use]
pub fn voucher_hash(voucher: &Hash) -> Hash {
    hash(labels::VOUCHER_HASH, &[voucher])
}

fn check_address(address: &str) -> Result<(), InviteError> {
    let (host, port) = address.rsplit_once(':').ok_or(InviteError::Address)?;
    let host_ok = !matches!(host, "" | "[]")
        && host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_[]:".contains(&b))
        && (!host.contains(':') || (host.starts_with('[') && host.ends_with(']')));
    let digits = port.bytes().all(|b| b.is_ascii_digit());
    let port_ok = digits && port.parse::<u16>().is_ok_and(|p| p != 0);
    if host_ok && port_ok { Ok(()) } else { Err(InviteError::Address) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invite(address: &str) -> Invite {
        Invite { address: address.into(), card_hash: [1; 32], token: [2; 16] }
    }

    #[test]
    fn text_round_trips() {
        for address in ["cloud.example.org:7443", "[2001:db8::1]:7443", "192.0.2.7:1"] {
            let invite = invite(address);
            assert_eq!(invite.to_string().parse(), Ok(invite.clone()));
            assert_eq!(
                invite
                    .to_string()
                    .to_uppercase()
                    .replacen("STRONGROOM1", "strongroom1", 1)
                    .parse::<Invite>()
                    .map(|i| i.token),
                Ok([2; 16])
            );
        }
    }

    #[test]
    fn every_wrong_character_and_every_cut_is_found() {
        let text = invite("h:1").to_string();
        let code_at = text.rfind(':').expect("colon") + 1;
        for place in code_at..text.len() {
            let mut wrong = text.clone().into_bytes();
            wrong[place] = if wrong[place] == b'7' { b'8' } else { b'7' };
            let wrong = String::from_utf8(wrong).expect("ascii");
            assert_eq!(wrong.parse::<Invite>(), Err(InviteError::Code), "{wrong}");
        }
        for len in code_at..text.len() {
            assert_eq!(text[..len].parse::<Invite>(), Err(InviteError::Code));
        }
    }

    #[test]
    fn bad_addresses_are_refused() {
        let code = invite("h:1").to_string().split_off("strongroom1:h:1:".len());
        for address in
            ["h", ":1", "h:0", "h:70000", "a b:1", "::1:7443", "h:x", "h/x:1", "h:+1", "[]:1"]
        {
            let text = format!("strongroom1:{address}:{code}");
            assert_eq!(text.parse::<Invite>(), Err(InviteError::Address), "{text}");
        }
        assert_eq!("https://x".parse::<Invite>(), Err(InviteError::Prefix));
    }
}
