//! Bytes of a socket cut into lines, with a limit on what a line may cost.
//!
//! A line may arrive in pieces and several in one piece. One that is longer than
//! [`LINE_BYTES_MAX`] is thrown away up to its end and told as [`Line::TooLong`], so a server
//! cannot make us hold more than that.

/// Longest line kept. A notify with a coinbase of 300 payouts and 12 branches is 25 kB.
pub const LINE_BYTES_MAX: usize = 128 * 1024;

/// A line, without its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// Text; bytes that are no UTF-8 are replaced.
    Whole(String),
    /// It was too long and is gone.
    TooLong,
}

/// The piece of a line that has arrived so far.
#[derive(Debug, Default)]
pub struct LineBuffer {
    bytes: Vec<u8>,
    skipping: bool,
}

impl LineBuffer {
    /// Takes what was read and gives the lines it completes; empty lines are dropped.
    pub fn take(&mut self, chunk: &[u8]) -> Vec<Line> {
        let mut lines = Vec::new();
        for piece in chunk.split_inclusive(|byte| *byte == b'\n') {
            let (body, ended) = match piece.split_last() {
                Some((b'\n', body)) => (body, true),
                Some(_) | None => (piece, false),
            };
            if !self.skipping {
                self.bytes.extend_from_slice(body);
                if self.bytes.len() > LINE_BYTES_MAX {
                    self.skipping = true;
                    self.bytes = Vec::new();
                }
            }
            if ended {
                lines.extend(self.end());
            }
        }
        lines
    }

    fn end(&mut self) -> Option<Line> {
        if std::mem::take(&mut self.skipping) {
            return Some(Line::TooLong);
        }
        let bytes = std::mem::take(&mut self.bytes);
        let text = String::from_utf8_lossy(&bytes).trim().to_owned();
        (!text.is_empty()).then_some(Line::Whole(text))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_long_line_is_thrown_away_and_the_next_one_read() {
        let mut buffer = LineBuffer::default();
        let mut lines = Vec::new();
        for _ in 0..40 {
            lines.extend(buffer.take(&[b'x'; 8_000]));
            assert!(buffer.bytes.len() <= LINE_BYTES_MAX + 8_000);
        }
        lines.extend(buffer.take(b"x\n\r\n ok \r\n"));
        assert_eq!(lines, [Line::TooLong, Line::Whole("ok".into())]);
    }

    proptest! {
        #[test]
        fn the_cuts_of_the_socket_do_not_matter(
            bytes in prop::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..300),
            cuts in prop::collection::vec(1usize..40, 1..20),
        ) {
            let whole = LineBuffer::default().take(&bytes);
            let (mut buffer, mut pieces, mut rest) = (LineBuffer::default(), Vec::new(), &bytes[..]);
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                pieces.extend(buffer.take(now));
                rest = later;
            }
            prop_assert_eq!(whole, pieces);
        }
    }
}
