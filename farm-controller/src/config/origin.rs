//! Where a figure of a site file comes from: an assumption of the operator's, or data with its time; never neither.

use farm_core::plan::IncomeSource;
use serde::Deserialize;

use super::moment::Moment;
use super::site_check::Checker;
use super::source::FieldPath;

/// The fields that stand beside every figure; flattened into its own.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct OriginFile {
    #[serde(default)]
    assumption: bool,
    #[serde(default)]
    as_of: Option<Moment>,
    /// The operator's words.
    #[serde(default)]
    pub source: String,
}

impl OriginFile {
    /// The line that tells people of a figure.
    pub(super) fn line(&self, what: &str, how_much: &str) -> String {
        let mark = if self.assumption { "assumption" } else { "data" };
        format!("{what}: {how_much} ({mark}: {})", self.source)
    }
}

impl Checker<'_> {
    /// What plans call it.
    pub(super) fn origin(&mut self, path: &FieldPath, file: &OriginFile) -> IncomeSource {
        if file.source.trim().is_empty() {
            self.say(&path.key("source"), "is empty; say where the figure comes from");
        }
        match (file.assumption, file.as_of) {
            (true, _) => IncomeSource::Assumption,
            (false, Some(at)) => IncomeSource::Data { at: at.0 },
            (false, None) => {
                self.say(
                    path,
                    "has neither assumption: true nor as_of; a figure is one or the other",
                );
                IncomeSource::Assumption
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::site_file::RateFile;
    use super::super::source::Source;

    /// Flattening must not let a slip of the pen pass as an absent field, nor read figures as floats.
    #[test]
    fn fields_beside_a_figure_are_known_by_name() {
        let read = |rest: &str| {
            let text = format!("per_hour: 0.10\nsource: mine\n{rest}");
            Source::from_text("x.yaml", text).parse::<RateFile>().map_err(|error| error.to_string())
        };
        let file = read("assumption: true\n").unwrap();
        assert_eq!(file.origin.line("GPU", "1"), "GPU: 1 (assumption: mine)");
        assert_eq!(file.per_hour.0, 100_000);
        let error = read("as_off: 2026-11-01T00:00:00Z\n").unwrap_err();
        assert!(error.contains("as_off"), "{error}");
        let error = read("as_of: yesterday\n").unwrap_err();
        assert!(error.starts_with("x.yaml:") && error.contains("yesterday"), "{error}");
    }
}
