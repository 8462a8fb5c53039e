//! The text of a running answer: whole characters, and nothing that may yet become a stop string.

use crate::tokenizer::Utf8Stream;

pub(super) struct TextStream {
    utf8: Utf8Stream,
    stops: Vec<String>,
    /// Text that could be the beginning of a stop string; shorter than the longest of them.
    held: String,
}

impl TextStream {
    pub fn new(stops: Vec<String>) -> Self {
        Self { utf8: Utf8Stream::default(), stops, held: String::new() }
    }

    /// Adds a token's bytes. Returns the text that became certain and whether a stop string ended it.
    pub fn push(&mut self, bytes: &[u8]) -> (String, bool) {
        let text = self.utf8.push(bytes);
        self.add(&text)
    }

    /// As [`Self::push`] of text that no stop string may be a part of.
    pub fn push_unstopped(&mut self, bytes: &[u8]) -> String {
        std::mem::take(&mut self.held) + &self.utf8.push(bytes)
    }

    /// Forgets what was held back.
    pub fn clear(&mut self) {
        *self = Self::new(std::mem::take(&mut self.stops));
    }

    /// Ends the stream and returns what was held back.
    pub fn finish(&mut self) -> String {
        let rest = self.utf8.finish();
        let (mut text, stopped) = self.add(&rest);
        if !stopped {
            text.push_str(&std::mem::take(&mut self.held));
        }
        text
    }

    fn add(&mut self, text: &str) -> (String, bool) {
        self.held.push_str(text);
        let first = self
            .stops
            .iter()
            .filter(|stop| !stop.is_empty())
            .filter_map(|stop| self.held.find(stop.as_str()))
            .min();
        if let Some(at) = first {
            self.held.truncate(at);
            return (std::mem::take(&mut self.held), true);
        }
        let keep = self
            .held
            .char_indices()
            .map(|(at, _)| at)
            .find(|at| self.stops.iter().any(|stop| stop.starts_with(&self.held[*at..])))
            .unwrap_or(self.held.len());
        let rest = self.held.split_off(keep);
        (std::mem::replace(&mut self.held, rest), false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(stops: &[&str], pieces: &[&str], expected: &[&str], stopped: bool) {
        let stops: Vec<String> = stops.iter().map(|s| (*s).to_owned()).collect();
        let mut stream = TextStream::new(stops);
        let mut texts = Vec::new();
        let mut ended = false;
        for piece in pieces {
            let (text, stop) = stream.push(piece.as_bytes());
            texts.push(text);
            ended = stop;
            if stop {
                break;
            }
        }
        if !ended {
            texts.push(stream.finish());
        }
        assert_eq!(texts, expected);
        assert_eq!(ended, stopped);
    }

    #[test]
    fn stop_strings_over_token_borders() {
        check(&[], &["a", "b"], &["a", "b", ""], false);
        check(&["END"], &["aE", "N", "D b"], &["a", "", ""], true);
        check(&["END"], &["aE", "N", "x"], &["a", "", "ENx", ""], false);
        check(&["END"], &["aEN"], &["a", "EN"], false);
        check(&["b", "ab"], &["xab"], &["x"], true);
        check(&["\n\n"], &["a\n", "b\n", "\n"], &["a", "\nb", ""], true);
    }
}
