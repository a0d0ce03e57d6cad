//! The recovery kit.

use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use sr_keys::{CodeError, DeviceKeys, Envelope, Kept, Kit};
use sr_wire::{AccountId, Misbehaviour};

fn kit(seed: u64) -> Kit {
    Kit::generate(&mut ChaCha20Rng::seed_from_u64(seed))
}

fn envelope() -> Envelope {
    Envelope { account: AccountId([1; 32]), card: [2; 32], seq: 3, block: [4; 32], made_s: 5 }
}

#[test]
fn a_kit_is_its_characters() {
    let first = kit(1);
    let again = Kit::from_text(&first.code()).expect("reads");
    assert_eq!(again.id(), first.id());
    assert_eq!(again.lookup(), first.lookup());
    assert_eq!(again.keys().public(), first.keys().public());
    let other = kit(2);
    assert_ne!(other.id(), first.id());
    assert_ne!(other.lookup(), first.lookup());
    assert_ne!(other.keys().public(), first.keys().public());
    let mistyped = first.code().replacen(['0', '1', '2', '3', '4'], "9", 1);
    assert_eq!(Kit::from_text(&mistyped).err(), Some(CodeError::Check));
}

/// ST-06: what the server keeps for a kit, changed in every byte, or another kit's.
#[test]
fn sr_028_a_changed_envelope_opens_nothing() {
    let sealed = kit(1).seal(&envelope(), &mut ChaCha20Rng::seed_from_u64(9));
    assert_eq!(kit(1).open(&sealed), Ok(envelope()));
    let altered = Err(Misbehaviour::EnvelopeAltered);
    for place in 0..sealed.len() {
        let mut changed = sealed.clone();
        changed[place] ^= 1;
        assert_eq!(kit(1).open(&changed), altered, "byte {place}");
    }
    assert_eq!(kit(1).open(&sealed[..40]), altered);
    assert_eq!(kit(2).open(&sealed), altered);
}

#[test]
fn a_kept_kit_opens_for_its_device_only() {
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let (own, other) = (DeviceKeys::generate(&mut rng), DeviceKeys::generate(&mut rng));
    let kept = kit(1).to_kept().seal(&own).expect("seals");
    let opened = Kept::open(&kept, &own).expect("opens");
    assert_eq!(opened.keys().public(), kit(1).keys().public());
    assert!(Kept::open(&kept, &other).is_none());
    assert!(Kept::open(&kept[1..], &own).is_none());
}
