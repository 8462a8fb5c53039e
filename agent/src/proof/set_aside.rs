//! Payloads that a Network Node refused, kept for a second chance.
//!
//! A Network Node that has just started answers 400 to a node number it has not read yet, for half a minute or more, and so
//! does one that is told nonsense. Which it was shows when it takes a payload: from then on the others are worth one more
//! try. They go out as they were, byte for byte, and only for the round they were made in, so none ever gets another name.

use std::collections::VecDeque;

use axum::body::Bytes;

/// Bytes kept at most: hours of refusals of the fastest GPU. Beyond it the oldest go; the journal has them.
const BYTES_MAX: usize = 64 << 20;

/// A payload as it was sent.
pub(super) struct Payload {
    pub(super) body: Bytes,
    /// Of its artifacts.
    pub(super) nonces: Vec<u32>,
}

/// The payloads of one round that were refused, oldest first.
#[derive(Default)]
pub(super) struct SetAside {
    payloads: VecDeque<Payload>,
    bytes: usize,
}

impl SetAside {
    /// Keeps a payload; gives how many artifacts went for want of room.
    pub(super) fn put(&mut self, payload: Payload) -> u64 {
        self.put_within(payload, BYTES_MAX)
    }

    fn put_within(&mut self, payload: Payload, most: usize) -> u64 {
        self.bytes += payload.body.len();
        self.payloads.push_back(payload);
        let mut lost = 0;
        while self.bytes > most
            && let Some(oldest) = self.take()
        {
            lost += oldest.nonces.len() as u64;
        }
        lost
    }

    /// The oldest.
    pub(super) fn take(&mut self) -> Option<Payload> {
        let oldest = self.payloads.pop_front()?;
        self.bytes -= oldest.body.len();
        Some(oldest)
    }

    /// Back to the front: it was not tried after all.
    pub(super) fn put_back(&mut self, payload: Payload) {
        self.bytes += payload.body.len();
        self.payloads.push_front(payload);
    }

    /// Artifacts in all of them.
    pub(super) fn artifacts(&self) -> u64 {
        self.payloads.iter().map(|payload| payload.nonces.len() as u64).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_come_first_and_go_first() {
        let payload = |nonces: &[u32]| Payload {
            body: Bytes::from(vec![0; 10 * nonces.len()]),
            nonces: nonces.to_vec(),
        };
        let mut aside = SetAside::default();
        assert_eq!(aside.put_within(payload(&[1, 2]), 50), 0);
        assert_eq!(aside.put_within(payload(&[3]), 50), 0);
        assert_eq!(aside.put_within(payload(&[4, 5]), 50), 0);
        assert_eq!((aside.artifacts(), aside.put_within(payload(&[6]), 50)), (5, 2));
        let oldest = aside.take().unwrap();
        assert_eq!(oldest.nonces, [3]);
        aside.put_back(oldest);
        assert_eq!((aside.artifacts(), aside.take().unwrap().nonces), (4, vec![3]));
        // One that is too large alone is not kept, and nothing else with it.
        assert_eq!(aside.put_within(payload(&[7, 8, 9]), 20), 6);
        assert_eq!((aside.artifacts(), aside.bytes), (0, 0));
        assert!(aside.take().is_none());
    }
}
