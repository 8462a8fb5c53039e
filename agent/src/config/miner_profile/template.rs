//! Arguments with blanks: `127.0.0.1:{api_port}`. Each is one argument of a program and never seen by a shell.

use std::fmt;
use std::str::FromStr;

/// Longest argument template; what is longer is no argument.
const TEXT_MAX: usize = 4_096;

/// What is filled in at a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blank {
    /// Host of the pool.
    PoolHost,
    /// Its port.
    PoolPort,
    /// Its address, as the profile writes it.
    PoolUrl,
    /// Worker name.
    User,
    /// Its password.
    Password,
    /// The miner's word for the algorithm.
    Algorithm,
    /// Port of 127.0.0.1 on which its API shall listen.
    ApiPort,
    /// Random word that its API shall ask for.
    ApiToken,
    /// The miner's numbers of the GPUs, with commas.
    Gpus,
}

const BLANKS: [(&str, Blank); 9] = [
    ("pool_host", Blank::PoolHost),
    ("pool_port", Blank::PoolPort),
    ("pool_url", Blank::PoolUrl),
    ("user", Blank::User),
    ("password", Blank::Password),
    ("algorithm", Blank::Algorithm),
    ("api_port", Blank::ApiPort),
    ("api_token", Blank::ApiToken),
    ("gpus", Blank::Gpus),
];

impl fmt::Display for Blank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = BLANKS.iter().find(|(_, blank)| blank == self).map_or("", |(word, _)| word);
        write!(f, "{{{word}}}")
    }
}

/// What the blanks stand for at one start; what is absent has no value.
#[derive(Clone, Default)]
pub struct Blanks(Vec<(Blank, String)>);

impl Blanks {
    /// Gives a blank its value.
    pub fn set(&mut self, blank: Blank, value: impl Into<String>) {
        self.0.retain(|(known, _)| *known != blank);
        self.0.push((blank, value.into()));
    }

    /// Its value.
    #[must_use]
    pub fn get(&self, blank: Blank) -> Option<&str> {
        self.0.iter().find(|(known, _)| *known == blank).map(|(_, value)| value.as_str())
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Blank(Blank),
}

/// See the module head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

/// Why a text is no template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A brace that is never closed.
    #[error("{0:?} opens a brace and does not close it")]
    Open(String),
    /// A blank that nobody fills.
    #[error(
        "{{{0}}} is no blank; there are {{pool_host}}, {{pool_port}}, {{pool_url}}, {{user}}, {{password}}, {{algorithm}}, {{api_port}}, {{api_token}} and {{gpus}}"
    )]
    Unknown(String),
    /// Nothing is that long.
    #[error("is longer than {TEXT_MAX} characters")]
    TooLong,
    /// No program takes it.
    #[error("holds a character of code 0")]
    Zero,
}

impl FromStr for Template {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, TemplateError> {
        if text.len() > TEXT_MAX {
            return Err(TemplateError::TooLong);
        }
        if text.contains('\0') {
            return Err(TemplateError::Zero);
        }
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (word, behind) =
                after.split_once('}').ok_or_else(|| TemplateError::Open(text.to_owned()))?;
            let blank = BLANKS.iter().find(|(known, _)| *known == word);
            let (_, blank) = blank.ok_or_else(|| TemplateError::Unknown(word.to_owned()))?;
            if !before.is_empty() {
                pieces.push(Piece::Text(before.to_owned()));
            }
            pieces.push(Piece::Blank(*blank));
            rest = behind;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        Ok(Self(pieces))
    }
}

impl Template {
    /// The text with every blank filled in.
    ///
    /// # Errors
    /// The blank that has no value.
    pub fn fill(&self, blanks: &Blanks) -> Result<String, Blank> {
        let mut text = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(piece) => text.push_str(piece),
                Piece::Blank(blank) => text.push_str(blanks.get(*blank).ok_or(*blank)?),
            }
        }
        Ok(text)
    }

    /// Whether it has this blank.
    #[must_use]
    pub fn has(&self, blank: Blank) -> bool {
        self.0.contains(&Piece::Blank(blank))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn blanks_are_filled_and_what_is_none_is_named() {
        let mut blanks = Blanks::default();
        blanks.set(Blank::ApiPort, "4067");
        blanks.set(Blank::User, "; rm -rf / {password}");
        let fill = |text: &str| text.parse::<Template>().unwrap().fill(&blanks);
        assert_eq!(fill("127.0.0.1:{api_port}").unwrap(), "127.0.0.1:4067");
        assert_eq!(fill("{user}").unwrap(), "; rm -rf / {password}", "a value is not read again");
        assert_eq!(fill("-p{password}"), Err(Blank::Password));
        assert_eq!(fill("").unwrap(), "");
        let error = "{pasword}".parse::<Template>().unwrap_err().to_string();
        assert!(error.contains("{pasword}") && error.contains("{password}"), "{error}");
        assert!("{user".parse::<Template>().unwrap_err().to_string().contains("close"));
        assert_eq!(Blank::PoolUrl.to_string(), "{pool_url}");
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,60}") {
            let _ = text.parse::<Template>();
        }
    }
}
