//! What a repository holds, and which of it makes a model.

use serde::Deserialize;

use super::error::PullError;
use super::name::{HubSource, check_path};
use super::wire::is_sha256;

/// The largest repositories have a few thousand files.
const FILES_MAX: usize = 20_000;
/// Choices named in an error; more help nobody.
const CHOICES_SHOWN: usize = 24;
/// What belongs to a model beside its weights, when it lies just there.
const COMPANIONS: [&str; 17] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "model.safetensors.index.json",
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "1_Pooling/config.json",
];

/// The Hub's answer to `GET /api/models/{repo}/revision/{revision}?blobs=true`, as far as it is used.
#[derive(Debug, Deserialize)]
pub(super) struct Listing {
    /// The commit the revision stands for.
    pub(super) sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Debug, Deserialize)]
struct Sibling {
    rfilename: String,
    #[serde(default)]
    size: Option<u64>,
    #[serde(default)]
    lfs: Option<LargeFile>,
}

#[derive(Debug, Deserialize)]
struct LargeFile {
    sha256: String,
    #[serde(default)]
    size: Option<u64>,
}

/// One file to be fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RemoteFile {
    pub(super) path: String,
    pub(super) bytes: Option<u64>,
    /// Large files have one; small ones are checked by their size.
    pub(super) sha256: Option<String>,
}

impl Listing {
    pub(super) fn parse(place: &str, document: &[u8]) -> Result<Self, PullError> {
        let bad = |reason: String| PullError::BadAnswer { place: place.to_owned(), reason };
        let listing: Self = serde_json::from_slice(document)
            .map_err(|error| bad(format!("is no listing of a repository: {error}")))?;
        if !matches!(listing.sha.len(), 7..=64)
            || !listing.sha.bytes().all(|b| b.is_ascii_hexdigit())
        {
            return Err(bad(format!("names the commit {:?}, which is none", listing.sha)));
        }
        if listing.siblings.len() > FILES_MAX {
            return Err(bad(format!(
                "lists {} files; at most {FILES_MAX} are read",
                listing.siblings.len()
            )));
        }
        Ok(listing)
    }

    /// The files that make what was asked for.
    pub(super) fn choose(&self, source: &HubSource) -> Result<Vec<RemoteFile>, PullError> {
        let place = format!("hf:{}", source.repo());
        let names: Vec<&str> = self.siblings.iter().map(|s| s.rfilename.as_str()).collect();
        let chosen = choose_among(&place, &names, source.file.as_deref())?;
        chosen.into_iter().map(|name| self.file(&place, name)).collect()
    }

    fn file(&self, place: &str, name: &str) -> Result<RemoteFile, PullError> {
        let bad = |reason: String| PullError::BadAnswer { place: place.to_owned(), reason };
        check_path(name).map_err(|reason| bad(format!("lists a file whose name {reason}")))?;
        let sibling = self.siblings.iter().find(|sibling| sibling.rfilename == name);
        let large = sibling.and_then(|sibling| sibling.lfs.as_ref());
        let sha256 = large.map(|large| large.sha256.to_ascii_lowercase());
        if let Some(sum) = sha256.as_ref().filter(|sum| !is_sha256(sum)) {
            return Err(bad(format!("gives {name} the SHA-256 {sum:?}, which is none")));
        }
        let bytes = large.and_then(|large| large.size).or(sibling.and_then(|sibling| sibling.size));
        Ok(RemoteFile { path: name.to_owned(), bytes, sha256 })
    }
}

/// Which of some files make the model that is meant, the one to open first.
pub(super) fn choose_among<'n>(
    place: &str,
    names: &[&'n str],
    wanted: Option<&str>,
) -> Result<Vec<&'n str>, PullError> {
    match wanted {
        Some(wanted) => by_name(place, names, wanted),
        None => whole_model(place, names),
    }
}

pub(super) fn is_gguf(name: &str) -> bool {
    name.to_ascii_lowercase().ends_with(".gguf")
}

/// The file called `wanted`, or the only GGUF whose name has it as its last part (`Q4_K_M`), with all its pieces.
fn by_name<'n>(place: &str, names: &[&'n str], wanted: &str) -> Result<Vec<&'n str>, PullError> {
    if let Some(name) = names.iter().find(|name| **name == wanted) {
        return Ok(pieces(names, name));
    }
    let fits = |name: &&&str| {
        let stem = first_piece_stem(name).to_ascii_lowercase();
        let end = wanted.to_ascii_lowercase();
        is_gguf(name)
            && stem.strip_suffix(&end).is_some_and(|before| before.ends_with(['-', '.', '_', '/']))
    };
    let mut found: Vec<&str> = names.iter().filter(fits).copied().collect();
    found.dedup_by_key(|name| first_piece_stem(name).to_owned());
    match found.as_slice() {
        [one] => Ok(pieces(names, one)),
        [] => {
            let ggufs: Vec<&str> = names.iter().filter(|name| is_gguf(name)).copied().collect();
            let hint = match ggufs.as_slice() {
                [] => String::new(),
                some => format!("; it holds {}", shown(some)),
            };
            Err(PullError::NotInside { place: place.to_owned(), file: wanted.to_owned(), hint })
        }
        many => Err(ambiguous(place, many)),
    }
}

/// All safetensors at the top with their companions, or else the only GGUF.
fn whole_model<'n>(place: &str, names: &[&'n str]) -> Result<Vec<&'n str>, PullError> {
    let at_top = |name: &&&str| !name.contains('/');
    let tensors = |name: &&&str| name.ends_with(".safetensors");
    let mut weights: Vec<&str> = names.iter().filter(at_top).filter(tensors).copied().collect();
    // Some repositories carry the weights twice, under the names of two programs.
    if weights.iter().any(|name| name.starts_with("model")) {
        weights.retain(|name| name.starts_with("model"));
    }
    if !weights.is_empty() {
        weights.extend(names.iter().filter(|name| COMPANIONS.contains(name)).copied());
        return Ok(weights);
    }
    let mut ggufs: Vec<&str> = names.iter().filter(|name| is_gguf(name)).copied().collect();
    ggufs.dedup_by_key(|name| first_piece_stem(name).to_owned());
    match ggufs.as_slice() {
        [one] => Ok(pieces(names, one)),
        [] => Err(PullError::NotInside {
            place: place.to_owned(),
            file: "*.safetensors or *.gguf".into(),
            hint: "; it is no model that can be run here".into(),
        }),
        many => Err(ambiguous(place, many)),
    }
}

fn ambiguous(place: &str, names: &[&str]) -> PullError {
    PullError::Ambiguous { place: place.to_owned(), choices: shown_as(names, &format!("{place}:")) }
}

fn shown(names: &[&str]) -> String {
    shown_as(names, "")
}

fn shown_as(names: &[&str], before: &str) -> String {
    // They come from a server and go to a terminal.
    let plain = names.iter().filter(|name| check_path(name).is_ok());
    let mut shown: Vec<String> =
        plain.take(CHOICES_SHOWN).map(|name| format!("{before}{name}")).collect();
    if names.len() > CHOICES_SHOWN {
        shown.push(format!("and {} more", names.len() - CHOICES_SHOWN));
    }
    shown.join(", ")
}

/// `model-00001-of-00003.gguf`: what stands before `-00001`, and the count.
fn split_of(name: &str) -> Option<(&str, &str)> {
    let stem = name.strip_suffix(".gguf")?;
    let (before, count) = stem.rsplit_once("-of-")?;
    let (before, number) = before.rsplit_once('-')?;
    let five = |text: &str| text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    (five(number) && five(count)).then_some((before, count))
}

/// The name without its ending and, for a split file, without its piece.
fn first_piece_stem(name: &str) -> &str {
    match split_of(name) {
        Some((before, _count)) => before,
        None => name.rsplit_once('.').map_or(name, |(stem, _ending)| stem),
    }
}

/// All pieces of a split GGUF, or the file itself.
fn pieces<'n>(names: &[&'n str], name: &&'n str) -> Vec<&'n str> {
    match split_of(name) {
        Some(split) => names.iter().filter(|n| split_of(n) == Some(split)).copied().collect(),
        None => vec![name],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(names: &[&str]) -> Listing {
        let siblings: Vec<_> =
            names.iter().map(|name| serde_json::json!({"rfilename": name, "size": 3})).collect();
        let document =
            serde_json::json!({"sha": "0123456789abcdef", "siblings": siblings, "gated": false});
        Listing::parse("x", document.to_string().as_bytes()).unwrap()
    }

    fn chosen(names: &[&str], source: &str) -> Result<Vec<String>, String> {
        let files = listing(names).choose(&source.parse().unwrap());
        files
            .map(|files| files.into_iter().map(|file| file.path).collect())
            .map_err(|e| e.to_string())
    }

    const QUANTS: [&str; 4] = ["README.md", "m-Q4_K_M.gguf", "m-Q8_0.gguf", "sub/m-IQ4_K_M.gguf"];

    #[test]
    fn a_file_is_found_by_name_or_by_its_end() {
        let gguf = |source| chosen(&QUANTS, source).map(|files| files.join(" "));
        assert_eq!(gguf("hf:o/r:m-Q8_0.gguf").unwrap(), "m-Q8_0.gguf");
        assert_eq!(gguf("hf:o/r:q8_0").unwrap(), "m-Q8_0.gguf");
        assert_eq!(gguf("hf:o/r:Q4_K_M").unwrap(), "m-Q4_K_M.gguf", "not IQ4_K_M");
        assert_eq!(gguf("hf:o/r:README.md").unwrap(), "README.md");
        let said = gguf("hf:o/r:Q5_0").unwrap_err();
        assert!(said.contains("m-Q8_0.gguf") && said.contains("Q5_0"), "{said}");
        let said = gguf("hf:o/r").unwrap_err();
        assert!(said.contains("name one: hf:o/r:m-Q4_K_M.gguf, hf:o/r:m-Q8_0.gguf"), "{said}");
    }

    #[test]
    fn a_split_file_comes_whole() {
        let names = ["a-00002-of-00002.gguf", "a-00001-of-00002.gguf", "b.gguf", "a-1-of-2.gguf"];
        assert_eq!(chosen(&names[..2], "hf:o/r").unwrap().len(), 2);
        assert_eq!(chosen(&names, "hf:o/r:a-00001-of-00002.gguf").unwrap(), [names[0], names[1]]);
        assert_eq!(chosen(&["m-q4-00001-of-00001.gguf"], "hf:o/r:q4").unwrap().len(), 1);
    }

    #[test]
    fn a_folder_is_weights_and_companions() {
        let names = [
            ".gitattributes",
            "README.md",
            "config.json",
            "consolidated.safetensors",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "model.safetensors.index.json",
            "original/x.safetensors",
            "tokenizer.json",
            "pytorch_model.bin",
            "evil.py",
        ];
        let files = chosen(&names, "hf:o/r").unwrap();
        assert_eq!(files, [names[4], names[5], "config.json", names[6], "tokenizer.json"]);
        assert_eq!(chosen(&["w.safetensors"], "hf:o/r").unwrap(), ["w.safetensors"]);
        assert!(chosen(&["x.bin"], "hf:o/r").unwrap_err().contains("holds no file"));
    }

    #[test]
    fn hostile_listings_are_refused() {
        for name in
            ["..\\x.safetensors", "\u{1b}[2Jm.safetensors", ".hidden.safetensors", "~.safetensors"]
        {
            let said = chosen(&[name], "hf:o/r").unwrap_err();
            assert!(said.contains("whose name") && !said.contains('\u{1b}'), "{said}");
        }
        for name in ["../../x.gguf", "/etc/x.gguf"] {
            assert!(chosen(&[name], "hf:o/r").unwrap_err().contains("whose name"), "{name}");
        }
        let parse =
            |text: &str| Listing::parse("x", text.as_bytes()).map(drop).map_err(|e| e.to_string());
        assert!(parse("<html>").unwrap_err().contains("no listing"));
        assert!(parse(r#"{"sha": "../.."}"#).unwrap_err().contains("which is none"));
        let odd = r#"{"sha":"0123456","siblings":[{"rfilename":"m.gguf","lfs":{"sha256":"zz"}}]}"#;
        let listing = Listing::parse("x", odd.as_bytes()).unwrap();
        assert!(
            listing
                .choose(&"hf:o/r".parse().unwrap())
                .unwrap_err()
                .to_string()
                .contains("which is none")
        );
    }
}
