//! One figure from outside: written down by the operator, read from a file, or asked of an address.

use std::path::PathBuf;

use farm_core::plan::IncomeSource;
use serde::Deserialize;

use super::authorities::Authorities;
use super::decimal::from_text;
use super::origin::OriginFile;
use super::site_check::Checker;
use super::source::FieldPath;

/// Where a figure comes from. It stays text until whoever wants it knows what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Figure {
    /// It stands in the site file.
    Written {
        /// As written.
        text: String,
        /// An assumption, or data with its time.
        origin: IncomeSource,
        /// The operator's words on where it comes from.
        source: String,
    },
    /// The newest row of a CSV file that is not in the future.
    Csv {
        /// The file.
        file: PathBuf,
        /// Column of the moment, RFC 3339.
        time_column: String,
        /// Column of the figure.
        value_column: String,
    },
    /// A place in a JSON document.
    Http {
        /// Where the document is asked for.
        url: String,
        /// JSON pointer (RFC 6901) to the figure, a number or text.
        pointer: String,
        /// JSON pointer to when it was true, RFC 3339 or Unix seconds; without one, when it was asked.
        time_pointer: Option<String>,
        /// Who vouches for an `https` address; without them whom this machine trusts.
        authorities: Option<Authorities>,
    },
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FigureFile {
    #[serde(default)]
    value: Option<Scalar>,
    #[serde(flatten)]
    origin: OriginFile,
    #[serde(default)]
    csv: Option<FigureCsvFile>,
    #[serde(default)]
    http: Option<FigureHttpFile>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct FigureCsvFile {
    file: PathBuf,
    time_column: String,
    value_column: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct FigureHttpFile {
    url: String,
    pointer: String,
    #[serde(default)]
    time_pointer: Option<String>,
    #[serde(default)]
    ca_file: Option<PathBuf>,
}

/// A scalar by its text, whatever YAML would make of it.
#[derive(Debug, Clone)]
struct Scalar(String);

impl std::str::FromStr for Scalar {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.trim().to_owned()))
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_text(deserializer, "a number")
    }
}

impl Checker<'_> {
    /// Exactly one of the three ways; `None` after a complaint.
    pub(super) fn figure(&mut self, path: &FieldPath, file: FigureFile) -> Option<Figure> {
        match (file.value, file.csv, file.http) {
            (Some(Scalar(text)), None, None) => {
                let origin = self.origin(path, &file.origin);
                Some(Figure::Written { text, origin, source: file.origin.source })
            }
            (None, Some(csv), None) => Some(Figure::Csv {
                file: self.beside(&csv.file),
                time_column: csv.time_column,
                value_column: csv.value_column,
            }),
            (None, None, Some(http)) => {
                let path = path.key("http");
                // A query is part of many documents' addresses; the rest is as everywhere.
                let base = http.url.split('?').next().unwrap_or_default();
                let is_good = self.url(&path.key("url"), base);
                let pointers = [
                    ("pointer", Some(&http.pointer)),
                    ("time_pointer", http.time_pointer.as_ref()),
                ];
                for (key, pointer) in pointers {
                    if pointer.is_some_and(|pointer| !pointer.starts_with('/')) {
                        self.say(
                            &path.key(key),
                            "is no JSON pointer; expected one like /data/0/usd",
                        );
                        return None;
                    }
                }
                let authorities = self.authorities(&path, http.ca_file.as_deref());
                let FigureHttpFile { url, pointer, time_pointer, ca_file: _ } = http;
                is_good.then_some(Figure::Http { url, pointer, time_pointer, authorities })
            }
            (None, None, None) => {
                self.say(path, "has none of value, csv and http; a figure comes from one of them");
                None
            }
            (Some(_), _, _) | (None, Some(_), Some(_)) => {
                self.say(path, "has more than one of value, csv and http; expected one");
                None
            }
        }
    }
}
