//! Which witnesses must have cosigned a checkpoint (c2sp.org/tlog-policy).

use std::{collections::HashSet, str::FromStr};

use crate::{
    Checkpoint, KeyKind, LogError, Note, VerifierKey,
    checkpoint::{decimal, signed_by},
};

/// No policy is longer.
pub const POLICY_LEN_MAX: usize = 64 * 1024;

/// A policy: logs, witnesses, and how many of which must have cosigned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    text: String,
    logs: Vec<VerifierKey>,
    members: Vec<Member>,
    /// The number of the witness or group that is needed; `None` for none.
    quorum: Option<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Member {
    name: String,
    is_in_a_group: bool,
    kind: MemberKind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum MemberKind {
    Witness(Witness),
    Group { need: usize, of: Vec<usize> },
}

/// A key of a witness.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Witness {
    /// The key.
    pub key: VerifierKey,
    /// Where the witness is asked, if the policy says so.
    pub url: Option<String>,
}

/// What the witnesses say to a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quorum {
    /// The policy asks none.
    NotAsked,
    /// Enough of them had cosigned by then, in Unix seconds.
    At(u64),
}

impl Policy {
    /// Returns the policy that asks nobody but the log: `quorum none`.
    #[must_use]
    pub fn none() -> Self {
        let text = "quorum none\n".to_owned();
        Self { text, logs: Vec::new(), members: Vec::new(), quorum: None }
    }

    /// Returns the text that this is.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns the keys of logs that it names.
    #[must_use]
    pub fn logs(&self) -> &[VerifierKey] {
        &self.logs
    }

    /// Returns the witnesses by name.
    pub fn witnesses(&self) -> impl Iterator<Item = (&str, &Witness)> {
        self.members.iter().filter_map(|member| match &member.kind {
            MemberKind::Witness(witness) => Some((member.name.as_str(), witness)),
            MemberKind::Group { .. } => None,
        })
    }

    /// Returns whether it asks for any witness.
    #[must_use]
    pub fn asks(&self) -> bool {
        self.quorum.is_some()
    }

    /// Returns what its witnesses say to a checkpoint. A cosignature dated after `until_s` does not
    /// count.
    ///
    /// **Errors** [`LogError::BadSignature`] for one bad line of a known key;
    /// [`LogError::QuorumShort`].
    pub fn quorum(
        &self,
        checkpoint: &Checkpoint,
        note: &Note,
        until_s: u64,
    ) -> Result<Quorum, LogError> {
        let mut times: Vec<Option<u64>> = Vec::with_capacity(self.members.len());
        // Groups name members before them.
        for member in &self.members {
            let time = match &member.kind {
                MemberKind::Witness(witness) => signed_by(&witness.key, checkpoint, note, until_s)?,
                MemberKind::Group { need, of } => {
                    let mut of: Vec<u64> = of.iter().filter_map(|number| times[*number]).collect();
                    // The newest that are needed: their oldest says since when they were enough.
                    of.sort_unstable_by(|a, b| b.cmp(a));
                    of.get(need - 1).copied()
                }
            };
            times.push(time);
        }
        match self.quorum {
            None => Ok(Quorum::NotAsked),
            Some(needed) => times[needed].map(Quorum::At).ok_or(LogError::QuorumShort),
        }
    }

    /// Returns whether it can't be satisfied without the keys that `is` says.
    pub fn needs(&self, is: impl Fn(&VerifierKey) -> bool) -> bool {
        let mut met: Vec<bool> = Vec::with_capacity(self.members.len());
        for member in &self.members {
            met.push(match &member.kind {
                MemberKind::Witness(witness) => !is(&witness.key),
                MemberKind::Group { need, of } => {
                    of.iter().filter(|number| met[**number]).count() >= *need
                }
            });
        }
        self.quorum.is_some_and(|needed| !met[needed])
    }

    fn find(&self, name: &str) -> Option<usize> {
        self.members.iter().position(|member| member.name == name)
    }

    fn add(&mut self, name: &str, kind: MemberKind) -> Option<()> {
        if name == NONE || self.find(name).is_some() {
            return None;
        }
        self.members.push(Member { name: name.to_owned(), is_in_a_group: false, kind });
        Some(())
    }

    fn add_group(&mut self, name: &str, need: &str, of: &[&str]) -> Option<()> {
        let mut numbers = Vec::with_capacity(of.len());
        for member in of {
            let number = self.find(member)?;
            // Each has one way to count.
            if std::mem::replace(&mut self.members[number].is_in_a_group, true) {
                return None;
            }
            numbers.push(number);
        }
        let need = match need {
            "any" => 1,
            "all" => numbers.len(),
            number => usize::try_from(decimal(number)?).ok()?,
        };
        let is_possible = (1..=numbers.len()).contains(&need);
        is_possible.then(|| self.add(name, MemberKind::Group { need, of: numbers }))?
    }

    fn take(
        &mut self,
        line: &str,
        keys: &mut HashSet<Vec<u8>>,
        has_quorum: &mut bool,
    ) -> Option<()> {
        let words: Vec<&str> = line.split([' ', '\t']).filter(|word| !word.is_empty()).collect();
        let mut key = |text: &str, is_kind: fn(KeyKind) -> bool| {
            let key: VerifierKey = text.parse().ok()?;
            // The same key under two names would count twice.
            (is_kind(key.kind()) && keys.insert(key.public().to_vec())).then_some(key)
        };
        let is_cosigner = |kind| kind != KeyKind::Ed25519;
        match words[..] {
            [] => Some(()),
            [first, ..] if first.starts_with('#') => Some(()),
            ["log", vkey] | ["log", vkey, _] => {
                let key = key(vkey, |kind| kind != KeyKind::CosignEd25519)?;
                self.logs.push(key);
                Some(())
            }
            ["witness", name, vkey, ref url @ ..] if url.len() <= 1 => {
                let key = key(vkey, is_cosigner)?;
                let url = url.first().map(|url| (*url).to_owned());
                self.add(name, MemberKind::Witness(Witness { key, url }))
            }
            ["group", name, need, ref of @ ..] => self.add_group(name, need, of),
            ["quorum", name] if !*has_quorum => {
                *has_quorum = true;
                if name != NONE {
                    self.quorum = Some(self.find(name)?);
                }
                Some(())
            }
            _ => None,
        }
    }
}

const NONE: &str = "none";

impl FromStr for Policy {
    type Err = LogError;

    fn from_str(text: &str) -> Result<Self, LogError> {
        let malformed = LogError::Malformed("policy");
        let is_allowed =
            |byte: u8| byte == b'\t' || byte == b'\n' || (byte >= b' ' && byte != 0x7f);
        if text.len() > POLICY_LEN_MAX || !text.bytes().all(is_allowed) {
            return Err(malformed);
        }
        let lines = text.strip_suffix('\n').ok_or(malformed)?;
        let (logs, members) = (Vec::new(), Vec::new());
        let mut policy = Self { text: text.to_owned(), logs, members, quorum: None };
        let (mut keys, mut has_quorum) = (HashSet::new(), false);
        for line in lines.split('\n') {
            policy.take(line, &mut keys, &mut has_quorum).ok_or(malformed)?;
        }
        if has_quorum { Ok(policy) } else { Err(malformed) }
    }
}
