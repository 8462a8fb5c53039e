//! What an envelope lets in and what it keeps out.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use proptest::prelude::*;
use roadbed_protocol::envelope::{Address, Expected, TYP_ASSIGNMENT};
use roadbed_protocol::{
    Assignment, Cause, Envelope, EnvelopeError, FarmId, Millis, OpenedEnvelope, ReplayGuard, RigId,
    Signer, TrustedKeys, UnixMillis, Watts, Workload,
};

const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

struct Desk {
    farm: FarmId,
    signer: Signer,
    keys: TrustedKeys,
    guard: ReplayGuard,
}

fn desk() -> Desk {
    let signer = Signer::new("controller", &[3; 32], 0);
    let mut keys = TrustedKeys::default();
    keys.insert("controller", &signer.public_key()).unwrap();
    Desk { farm: FarmId::new("west").unwrap(), signer, keys, guard: ReplayGuard::default() }
}

fn assignment(generation: u64) -> Assignment {
    Assignment {
        farm: FarmId::new("west").unwrap(),
        rig: RigId::new("asic-1").unwrap(),
        generation,
        workload: Workload::Mine { power_target: Some(Watts(1_500)) },
        lease_until: NOW + Millis::from_mins(30),
        fallback: Workload::Curtailed,
        drain: Millis::from_secs(20),
        cause: Cause::Plan,
        reason: "margin 0.1200/h".into(),
    }
}

impl Desk {
    fn seal(&mut self) -> Vec<u8> {
        let address = Address {
            typ: TYP_ASSIGNMENT,
            farm: &self.farm,
            to: "asic-1",
            now: NOW,
            valid: Millis::from_mins(10),
        };
        self.signer.seal(address, &assignment(4)).unwrap().1
    }

    fn open(
        &mut self,
        wire: &[u8],
        now: UnixMillis,
    ) -> Result<OpenedEnvelope<Assignment>, EnvelopeError> {
        let expected = Expected { typ: TYP_ASSIGNMENT, farm: &self.farm, to: "asic-1", now };
        Envelope::open(wire, &self.keys, expected, &mut self.guard)
    }
}

#[test]
fn a_sealed_assignment_opens_once() {
    let mut desk = desk();
    let wire = desk.seal();
    let opened = desk.open(&wire, NOW).unwrap();
    assert_eq!(opened.body, assignment(4));
    assert_eq!(opened.id, "controller-1");
    assert_eq!(desk.open(&wire, NOW), Err(EnvelopeError::Replayed { seq: 1, seen: 1 }));
}

#[test]
fn the_replay_counter_survives_a_restart_as_json() {
    let mut desk = desk();
    let wire = desk.seal();
    desk.open(&wire, NOW).unwrap();
    let kept = serde_json::to_string(&desk.guard).unwrap();
    desk.guard = serde_json::from_str(&kept).unwrap();
    assert!(matches!(desk.open(&wire, NOW), Err(EnvelopeError::Replayed { .. })));
}

#[test]
fn an_older_envelope_after_a_newer_one_is_refused() {
    let mut desk = desk();
    let (first, second) = (desk.seal(), desk.seal());
    desk.open(&second, NOW).unwrap();
    assert_eq!(desk.open(&first, NOW), Err(EnvelopeError::Replayed { seq: 1, seen: 2 }));
}

#[test]
fn expired_and_future_envelopes_are_refused() {
    let mut desk = desk();
    let wire = desk.seal();
    let late = NOW + Millis::from_mins(11);
    assert_eq!(desk.open(&wire, late), Err(EnvelopeError::Expired(Millis::from_mins(1))));
    let early = NOW - Millis::from_hours(2);
    assert!(matches!(desk.open(&wire, early), Err(EnvelopeError::FromTheFuture(_))));
    // A refused envelope moved no counter: the same one is still good at the right time.
    assert!(desk.open(&wire, NOW).is_ok());
}

#[test]
fn another_farm_rig_type_or_key_is_refused() {
    let mut desk = desk();
    let wire = desk.seal();
    let east = FarmId::new("east").unwrap();
    let open = |expected: Expected<'_>, keys: &TrustedKeys| {
        Envelope::open::<Assignment>(&wire, keys, expected, &mut ReplayGuard::default())
            .unwrap_err()
    };
    let base = Expected { typ: TYP_ASSIGNMENT, farm: &desk.farm, to: "asic-1", now: NOW };
    assert!(matches!(
        open(Expected { farm: &east, ..base }, &desk.keys),
        EnvelopeError::OtherFarm(_)
    ));
    assert!(matches!(
        open(Expected { to: "asic-2", ..base }, &desk.keys),
        EnvelopeError::OtherRecipient(_)
    ));
    assert!(matches!(
        open(Expected { typ: "command", ..base }, &desk.keys),
        EnvelopeError::OtherType(_)
    ));
    assert!(matches!(open(base, &TrustedKeys::default()), EnvelopeError::UnknownKey(_)));
    let mut forged = TrustedKeys::default();
    forged.insert("controller", &Signer::new("x", &[4; 32], 0).public_key()).unwrap();
    assert_eq!(open(base, &forged), EnvelopeError::BadSignature);
}

#[test]
fn every_signed_field_is_signed() {
    let mut desk = desk();
    let wire = desk.seal();
    let honest: serde_json::Value = serde_json::from_slice(&wire).unwrap();
    let changes = [
        ("to", serde_json::json!("asic-2")),
        ("typ", serde_json::json!("command")),
        ("farm", serde_json::json!("east")),
        ("id", serde_json::json!("controller-9")),
        ("seq", serde_json::json!(9)),
        ("iat", serde_json::json!(NOW.0 + 1)),
        ("exp", serde_json::json!(NOW.0 + 1_000_000_000)),
        ("body", serde_json::json!("e30=")),
    ];
    for (field, value) in changes {
        let mut forged = honest.clone();
        forged[field] = value;
        let forged = serde_json::to_vec(&forged).unwrap();
        assert_eq!(desk.open(&forged, NOW), Err(EnvelopeError::BadSignature), "{field}");
    }
    let mut version = honest;
    version["v"] = serde_json::json!(2);
    let version = serde_json::to_vec(&version).unwrap();
    assert_eq!(desk.open(&version, NOW), Err(EnvelopeError::Version(2)));
}

#[test]
fn a_giant_message_is_not_even_parsed() {
    let mut desk = desk();
    let giant = vec![b' '; 1 << 20];
    assert!(matches!(desk.open(&giant, NOW), Err(EnvelopeError::Malformed(_))));
}

proptest! {
    #[test]
    fn noise_never_opens_and_never_panics(noise in proptest::collection::vec(any::<u8>(), 0..512)) {
        prop_assert!(desk().open(&noise, NOW).is_err());
    }

    #[test]
    fn one_changed_byte_never_opens_as_something_else(at in 0_usize..600, to in any::<u8>()) {
        let mut desk = desk();
        let mut wire = desk.seal();
        let at = at % wire.len();
        wire[at] = to;
        if let Ok(opened) = desk.open(&wire, NOW) {
            prop_assert_eq!(opened.body, assignment(4));
        }
    }
}
