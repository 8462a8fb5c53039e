//! A YAML text with its name, so that every complaint can say file, line, column and field.
//!
//! The parser tells where a value of the wrong type stands. For a value that is well-typed but wrong (an unknown feeder)
//! the text is read once more along the field's path and the parser is asked where it arrived.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess,
    Visitor,
};

use super::error::{ConfigError, Problem};

/// Largest config file read: a site of a thousand rigs is about 150 KiB.
pub const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// A config file in memory.
#[derive(Debug, Clone)]
pub struct Source {
    path: PathBuf,
    text: String,
}

/// One step from the top of a document to a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A key of a mapping.
    Key(&'static str),
    /// An index into a sequence.
    At(usize),
}

/// The way to a field.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FieldPath(Vec<Step>);

impl FieldPath {
    /// The path to a key of the top mapping.
    #[must_use]
    pub fn of(key: &'static str) -> Self {
        Self(vec![Step::Key(key)])
    }

    /// One key further.
    #[must_use]
    pub fn key(&self, key: &'static str) -> Self {
        Self(self.0.iter().cloned().chain([Step::Key(key)]).collect())
    }

    /// One index further.
    #[must_use]
    pub fn at(&self, index: usize) -> Self {
        Self(self.0.iter().cloned().chain([Step::At(index)]).collect())
    }

    fn parent(&self) -> Option<Self> {
        let (_, rest) = self.0.split_last()?;
        Some(Self(rest.to_vec()))
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) if index == 0 => f.write_str(key)?,
                Step::Key(key) => write!(f, ".{key}")?,
                Step::At(at) => write!(f, "[{at}]")?,
            }
        }
        Ok(())
    }
}

impl Source {
    /// Reads a file.
    ///
    /// # Errors
    /// [`ConfigError::Unreadable`] when it is absent, too large or not UTF-8.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let unreadable =
            |reason: String| ConfigError::Unreadable { path: path.to_path_buf(), reason };
        let size = std::fs::metadata(path).map_err(|error| unreadable(error.to_string()))?.len();
        if size > FILE_BYTES_MAX {
            return Err(unreadable(format!("is {size} bytes; at most {FILE_BYTES_MAX} are read")));
        }
        let text = std::fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))?;
        Ok(Self { path: path.to_path_buf(), text })
    }

    /// A text that has no file.
    #[must_use]
    pub fn from_text(name: impl Into<PathBuf>, text: impl Into<String>) -> Self {
        Self { path: name.into(), text: text.into() }
    }

    /// Where the text came from.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file named inside this one: relative to this one's folder.
    #[must_use]
    pub fn beside(&self, name: &Path) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("")).join(name)
    }

    /// Reads the text as `T`.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] with the parser's place and field.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        serde_yaml::from_str(&self.text).map_err(|error| {
            let place = error.location().map(|location| (location.line(), location.column()));
            let text = error.to_string();
            let words = text.rsplit_once(" at line ").map_or(text.as_str(), |(words, _)| words);
            self.invalid(vec![Problem { place, text: words.to_owned() }])
        })
    }

    /// A complaint about the field at `path`; if it is absent, the place is that of what should hold it.
    #[must_use]
    pub fn problem(&self, path: &FieldPath, text: impl fmt::Display) -> Problem {
        let mut place = self.locate(path);
        let mut at = path.parent();
        while let (None, Some(outer)) = (place, at) {
            place = self.locate(&outer);
            at = outer.parent();
        }
        Problem { place, text: format!("{path}: {text}") }
    }

    /// All complaints about this file as one error.
    #[must_use]
    pub fn invalid(&self, problems: Vec<Problem>) -> ConfigError {
        ConfigError::Invalid { path: self.path.clone(), problems }
    }

    /// Line and column, from 1, of the value at `path`.
    #[must_use]
    pub fn locate(&self, path: &FieldPath) -> Option<(usize, usize)> {
        let document = serde_yaml::Deserializer::from_str(&self.text);
        let error = Probe(&path.0).deserialize(document).err()?;
        let location = error.location()?;
        error.to_string().contains(ARRIVED).then(|| (location.line(), location.column()))
    }
}

/// The text of the error by which the probe says that it stands at its target.
const ARRIVED: &str = "roadbed-probe-arrived";

/// Walks along a path and fails on purpose at its end, so that the parser adds where that is.
#[derive(Clone, Copy)]
struct Probe<'p>(&'p [Step]);

impl<'de> DeserializeSeed<'de> for Probe<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

macro_rules! scalar {
    ($($visit:ident: $kind:ty),*) => {
        $(fn $visit<E: serde::de::Error>(self, _: $kind) -> Result<(), E> {
            if self.0.is_empty() { Err(E::custom(ARRIVED)) } else { Ok(()) }
        })*
    };
}

impl<'de> Visitor<'de> for Probe<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    scalar!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_f64: f64, visit_str: &str);

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        if self.0.is_empty() { Err(E::custom(ARRIVED)) } else { Ok(()) }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Some((step, rest)) = self.0.split_first() else {
            return Err(A::Error::custom(ARRIVED));
        };
        while let Some(key) = map.next_key::<String>()? {
            if matches!(step, Step::Key(own) if *own == key) {
                map.next_value_seed(Probe(rest))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Some((step, rest)) = self.0.split_first() else {
            return Err(A::Error::custom(ARRIVED));
        };
        let mut index = 0;
        loop {
            let found = if *step == Step::At(index) {
                seq.next_element_seed(Probe(rest))?.is_some()
            } else {
                seq.next_element::<IgnoredAny>()?.is_some()
            };
            if !found {
                return Ok(());
            }
            index += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_where_it_stands() {
        let source = Source::from_text(
            "x.yaml",
            "farm: a\nrigs:\n  - id: one\n  - {id: two, feeder: hall}\n",
        );
        let rig = FieldPath::of("rigs").at(1);
        assert_eq!(source.locate(&rig.key("feeder")), Some((4, 23)));
        assert_eq!(source.locate(&FieldPath::of("rigs").at(0).key("id")), Some((3, 9)));
        assert_eq!(source.locate(&rig.key("absent")), None);
        assert_eq!(source.problem(&rig.key("absent"), "is missing").place, Some((4, 5)));
        assert_eq!(rig.key("feeder").to_string(), "rigs[1].feeder");
    }

    #[test]
    fn the_parser_tells_the_place() {
        #[derive(Debug, serde::Deserialize)]
        struct File {
            #[expect(dead_code, reason = "only the error is looked at")]
            count: Vec<u8>,
        }
        let source = Source::from_text("x.yaml", "count:\n  - 1\n  - seven\n");
        let error = source.parse::<File>().unwrap_err().to_string();
        assert_eq!(error, "x.yaml:3:5: count[1]: invalid type: string \"seven\", expected u8");
    }
}
