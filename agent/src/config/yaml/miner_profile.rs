//! `profiles/miners/*.yaml`: profiles of external miners, built in and from a folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::super::miner_profile::{
    ApiDialect, Argument, MinerApi, MinerProfile, Pointer, Readings, Rule, Template, Tested,
};
use super::super::scalar::{Bounded, Parsed};
use super::{ConfigError, parse_yaml, read_text};

/// The profiles in the program, by the name of their file.
const BUILT_IN: [(&str, &str); 7] = [
    ("xmrig.yaml", include_str!("../../../../profiles/miners/xmrig.yaml")),
    ("lolminer.yaml", include_str!("../../../../profiles/miners/lolminer.yaml")),
    ("t-rex.yaml", include_str!("../../../../profiles/miners/t-rex.yaml")),
    ("srbminer-multi.yaml", include_str!("../../../../profiles/miners/srbminer-multi.yaml")),
    ("teamredminer.yaml", include_str!("../../../../profiles/miners/teamredminer.yaml")),
    ("bzminer.yaml", include_str!("../../../../profiles/miners/bzminer.yaml")),
    ("rigel.yaml", include_str!("../../../../profiles/miners/rigel.yaml")),
];
/// Files of a folder that are read; nobody has that many miners.
const FILES_MAX: usize = 64;
/// Questions to a miner: each costs a request every few seconds.
const QUESTIONS_MAX: usize = 8;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProfileFile {
    name: String,
    title: String,
    program: String,
    tested: TestedWord,
    sources: Vec<String>,
    algorithms: BTreeMap<String, String>,
    pool_url: PoolUrlFile,
    #[serde(default)]
    tls_args: Vec<Parsed<Template>>,
    command: Vec<ArgumentFile>,
    api: ApiFile,
    read: ReadFile,
    #[serde(default)]
    stop: Option<String>,
    start_seconds: Bounded<1, 3_600>,
    #[serde(default)]
    version_args: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum TestedWord {
    NotAtAll,
    AgainstAFake,
    AgainstTheRealProgram,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PoolUrlFile {
    #[serde(default)]
    tcp: Option<Parsed<Template>>,
    #[serde(default)]
    tls: Option<Parsed<Template>>,
}

/// Texts, not templates: of an untagged value the parser can no longer say why it fits no form.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a text, or a list of texts")]
enum ArgumentFile {
    Always(String),
    IfKnown(Vec<String>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ApiFile {
    dialect: DialectWord,
    #[serde(default)]
    headers: BTreeMap<String, Parsed<Template>>,
    ask: BTreeMap<String, String>,
    #[serde(default)]
    version: Option<Parsed<Pointer>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum DialectWord {
    HttpJson,
    CgminerTcp,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReadFile {
    hashrate: RuleFile,
    accepted: RuleFile,
    #[serde(default)]
    rejected: Option<RuleFile>,
    #[serde(default)]
    stale: Option<RuleFile>,
    #[serde(default)]
    uptime_seconds: Option<RuleFile>,
    #[serde(default)]
    gpu_hashrates: Option<RuleFile>,
    #[serde(default)]
    gpu_watts: Option<RuleFile>,
    #[serde(default)]
    gpu_celsius: Option<RuleFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleFile {
    at: PlacesFile,
    #[serde(default)]
    times: Option<Bounded<1, 1_000_000_000_000>>,
    #[serde(default)]
    times_at: Option<Parsed<Pointer>>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a place, or a list of places")]
enum PlacesFile {
    One(String),
    Several(Vec<String>),
}

/// A key and what is wrong with it.
type Wrong = (String, String);

/// Reads one profile.
///
/// # Errors
/// [`ConfigError`] for the first thing that is wrong.
pub fn load_miner_profile(path: &Path) -> Result<MinerProfile, ConfigError> {
    parse(path, &read_text(path)?)
}

/// The built-in profiles, then those of a folder, which replace built-in ones of the same name.
///
/// # Errors
/// [`ConfigError`] for the first thing that is wrong.
pub fn miner_profiles(folder: Option<&Path>) -> Result<Vec<MinerProfile>, ConfigError> {
    let mut profiles = Vec::new();
    for (file, text) in BUILT_IN {
        profiles.push(parse(&Path::new("(built in)").join(file), text)?);
    }
    let Some(folder) = folder else { return Ok(profiles) };
    let unreadable = |error: std::io::Error| ConfigError::Unreadable {
        path: folder.to_path_buf(),
        reason: error.to_string(),
    };
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|ending| ending == "yaml") {
            files.push(path);
        }
    }
    if files.len() > FILES_MAX {
        let reason = format!("{} profiles, at most {FILES_MAX} are read", files.len());
        return Err(ConfigError::Unreadable { path: folder.to_path_buf(), reason });
    }
    files.sort();
    let mut own: Vec<MinerProfile> = Vec::new();
    for path in files {
        let profile = load_miner_profile(&path)?;
        if own.iter().any(|known| known.name == profile.name) {
            let problem = format!("another file of the folder is called {:?} too", profile.name);
            return Err(ConfigError::Rule { path, field: "name".into(), problem });
        }
        own.push(profile);
    }
    profiles.retain(|built_in| own.iter().all(|profile| profile.name != built_in.name));
    profiles.extend(own);
    Ok(profiles)
}

/// The profile of that name.
///
/// # Errors
/// In words, with the names there are.
pub fn miner_profile_named(
    profiles: Vec<MinerProfile>,
    name: &str,
) -> Result<MinerProfile, String> {
    let names: Vec<String> = profiles.iter().map(|profile| profile.name.clone()).collect();
    let named = profiles.into_iter().find(|profile| profile.name == name);
    named.ok_or_else(|| format!("no profile is called {name:?}; there are {}", names.join(", ")))
}

fn parse(path: &Path, text: &str) -> Result<MinerProfile, ConfigError> {
    let file: ProfileFile = parse_yaml(path, text)?;
    file.resolve().map_err(|(field, problem)| ConfigError::Rule {
        path: path.to_path_buf(),
        field,
        problem,
    })
}

impl ProfileFile {
    fn resolve(self) -> Result<MinerProfile, Wrong> {
        let wrong = |field: &str, problem: &str| (field.to_owned(), problem.to_owned());
        let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if self.name.is_empty() || !self.name.chars().all(is_word) {
            return Err(wrong("name", "is no name; expected small letters, digits and dashes"));
        }
        if self.program.is_empty() || self.program.contains('\0') {
            return Err(wrong("program", "is empty; expected the name of a program"));
        }
        if self.sources.is_empty() {
            return Err(wrong(
                "sources",
                "is empty; say where the facts are from, \"from memory\" at least",
            ));
        }
        if self.algorithms.is_empty() {
            return Err(wrong(
                "algorithms",
                "is empty; expected our word and the miner's for at least one",
            ));
        }
        if self.pool_url.tcp.is_none() && self.pool_url.tls.is_none() {
            return Err(wrong("pool_url", "has neither tcp nor tls"));
        }
        let command = self.command.into_iter().enumerate().map(|(place, argument)| {
            let problem = |error: super::super::miner_profile::TemplateError| {
                (format!("command[{place}]"), error.to_string())
            };
            Ok::<Argument, Wrong>(match argument {
                ArgumentFile::Always(text) => Argument::Always(text.parse().map_err(problem)?),
                ArgumentFile::IfKnown(group) => {
                    let group = group.iter().map(|text| text.parse()).collect::<Result<_, _>>();
                    Argument::IfKnown(group.map_err(problem)?)
                }
            })
        });
        let command = command.collect::<Result<Vec<Argument>, Wrong>>()?;
        let api = self.api.resolve()?;
        let read = self.read.resolve()?;
        let places = read.rules().flat_map(|(key, rule)| {
            rule.at.iter().chain(&rule.times_at).map(move |place| (format!("read.{key}"), place))
        });
        let places =
            places.chain(api.version.as_ref().map(|place| ("api.version".to_owned(), place)));
        for (field, place) in places {
            let asked = api.ask.iter().any(|(name, _)| Some(name.as_str()) == place.first());
            if !asked {
                let names: Vec<&str> = api.ask.iter().map(|(name, _)| name.as_str()).collect();
                let problem = format!(
                    "{place} begins with no question of api.ask; there is {}",
                    names.join(", ")
                );
                return Err((field, problem));
            }
        }
        if let (ApiDialect::HttpJson, Some(stop)) = (api.dialect, &self.stop)
            && !stop.starts_with('/')
        {
            return Err(wrong("stop", "is no path; expected one that begins with a slash"));
        }
        Ok(MinerProfile {
            name: self.name,
            title: self.title,
            program: self.program,
            tested: match self.tested {
                TestedWord::NotAtAll => Tested::NotAtAll,
                TestedWord::AgainstAFake => Tested::AgainstAFake,
                TestedWord::AgainstTheRealProgram => Tested::AgainstTheRealProgram,
            },
            sources: self.sources,
            algorithms: self.algorithms,
            pool_tcp: self.pool_url.tcp.map(|url| url.0),
            pool_tls: self.pool_url.tls.map(|url| url.0),
            tls_args: self.tls_args.into_iter().map(|argument| argument.0).collect(),
            command,
            api,
            read,
            stop: self.stop,
            start_wait: Duration::from_secs(self.start_seconds.0),
            version_args: self.version_args,
        })
    }
}

impl ApiFile {
    fn resolve(self) -> Result<MinerApi, Wrong> {
        let wrong = |field: &str, problem: String| (field.to_owned(), problem);
        let count = self.ask.len();
        if count == 0 || count > QUESTIONS_MAX {
            return Err(wrong(
                "api.ask",
                format!("has {count} questions; expected 1 to {QUESTIONS_MAX}"),
            ));
        }
        let dialect = match self.dialect {
            DialectWord::HttpJson => ApiDialect::HttpJson,
            DialectWord::CgminerTcp => ApiDialect::CgminerTcp,
        };
        for (name, what) in &self.ask {
            if dialect == ApiDialect::HttpJson && !what.starts_with('/') {
                return Err(wrong(
                    "api.ask",
                    format!("{name}: {what:?} is no path; it begins with a slash"),
                ));
            }
            if what.contains(['\r', '\n']) {
                return Err(wrong("api.ask", format!("{name}: is more than one line")));
            }
        }
        if dialect == ApiDialect::CgminerTcp && !self.headers.is_empty() {
            return Err(wrong("api.headers", "belong to http-json".into()));
        }
        Ok(MinerApi {
            dialect,
            headers: self.headers.into_iter().map(|(name, value)| (name, value.0)).collect(),
            ask: self.ask.into_iter().collect(),
            version: self.version.map(|place| place.0),
        })
    }
}

impl ReadFile {
    fn resolve(self) -> Result<Readings, Wrong> {
        let some =
            |key: &str, rule: Option<RuleFile>| rule.map(|rule| rule.resolve(key)).transpose();
        Ok(Readings {
            hashrate: self.hashrate.resolve("hashrate")?,
            accepted: self.accepted.resolve("accepted")?,
            rejected: some("rejected", self.rejected)?,
            stale: some("stale", self.stale)?,
            uptime_seconds: some("uptime_seconds", self.uptime_seconds)?,
            gpu_hashrates: some("gpu_hashrates", self.gpu_hashrates)?,
            gpu_watts: some("gpu_watts", self.gpu_watts)?,
            gpu_celsius: some("gpu_celsius", self.gpu_celsius)?,
        })
    }
}

impl RuleFile {
    fn resolve(self, key: &str) -> Result<Rule, Wrong> {
        let texts = match self.at {
            PlacesFile::One(text) => vec![text],
            PlacesFile::Several(texts) => texts,
        };
        let wrong = |problem: String| (format!("read.{key}.at"), problem);
        if texts.is_empty() {
            return Err(wrong("is empty; expected a place".into()));
        }
        let at = texts.iter().map(|text| text.parse()).collect::<Result<Vec<Pointer>, _>>();
        Ok(Rule {
            at: at.map_err(|error| wrong(error.to_string()))?,
            times: self.times.map_or(1, |times| times.0),
            times_at: self.times_at.map(|place| place.0),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::super::miner_profile::{Blank, Blanks};
    use super::*;

    #[test]
    fn the_built_in_profiles_are_valid_and_honest() {
        let profiles = miner_profiles(None).unwrap();
        let names: Vec<&str> = profiles.iter().map(|profile| profile.name.as_str()).collect();
        assert_eq!(
            names,
            ["xmrig", "lolminer", "t-rex", "srbminer-multi", "teamredminer", "bzminer", "rigel"]
        );
        for profile in &profiles {
            assert_eq!(profile.tested, Tested::AgainstAFake, "{}", profile.name);
            assert!(
                profile.has_blank(Blank::ApiPort) && profile.has_blank(Blank::PoolUrl),
                "{}",
                profile.name
            );
            assert!(profile.algorithm("sha0").unwrap_err().contains("kawpow"), "{}", profile.name);
        }
    }

    #[test]
    fn a_command_line_has_what_is_known_and_nothing_else() {
        let profiles = miner_profiles(None).unwrap();
        let lol = profiles.iter().find(|profile| profile.name == "lolminer").unwrap();
        let mut blanks = Blanks::default();
        for (blank, value) in [
            (Blank::Algorithm, "KAWPOW"),
            (Blank::PoolUrl, "p:1"),
            (Blank::User, "w a"),
            (Blank::Password, "x"),
            (Blank::ApiPort, "9"),
        ] {
            blanks.set(blank, value);
        }
        let plain = lol.arguments(&blanks, false).unwrap();
        let want = [
            "--algo",
            "KAWPOW",
            "--pool",
            "p:1",
            "--user",
            "w a",
            "--pass",
            "x",
            "--apihost",
            "127.0.0.1",
            "--apiport",
            "9",
        ];
        assert_eq!(plain, want);
        blanks.set(Blank::Gpus, "0,2");
        let all = lol.arguments(&blanks, true).unwrap();
        assert_eq!(all[want.len()..], ["--devices", "0,2", "--tls", "on"]);
        let nobody = lol.arguments(&Blanks::default(), false);
        assert_eq!(nobody, Err(Blank::Algorithm));
    }

    fn check(text: &str) -> String {
        parse(Path::new("m.yaml"), text).unwrap_err().to_string()
    }

    #[test]
    fn a_wrong_profile_names_its_key() {
        let good = BUILT_IN.iter().find(|(file, _)| *file == "t-rex.yaml").unwrap().1;
        parse(Path::new("m.yaml"), good).unwrap();
        for (from, to, words) in [
            ("title:", "titel:", "titel"),
            ("name: t-rex", "name: T Rex", "m.yaml: name: "),
            ("- \"{user}\"", "- \"{usr}\"", "command[5]: {usr} is no blank"),
            (
                "/summary/hashrate}",
                "/stats/hashrate}",
                "read.hashrate: /stats/hashrate begins with no question",
            ),
            ("/summary/rejected_count}", "rejected}", "read.rejected.at: \"rejected\" is no place"),
            ("dialect: http-json", "dialect: telnet", "unknown variant `telnet`"),
            ("ask: {summary: /summary}", "ask: {}", "api.ask: has 0 questions"),
            ("start_seconds: 120", "start_seconds: 0", "from 1 to 3600"),
            ("stop: \"/control", "stop: \"control", "stop: is no path"),
            ("tested: against-a-fake", "tested: yes", "against-a-fake"),
        ] {
            assert!(good.contains(from), "{from}");
            let said = check(&good.replace(from, to));
            assert!(said.contains(words), "{to}: {said}");
        }
    }

    #[test]
    fn a_folder_adds_and_replaces() {
        let folder = tempfile::tempdir().unwrap();
        let text = BUILT_IN[0].1;
        std::fs::write(folder.path().join("a.yaml"), text.replace("title: XMRig", "title: Ours"))
            .unwrap();
        std::fs::write(folder.path().join("notes.txt"), "no profile").unwrap();
        std::fs::write(folder.path().join("b.yaml"), text.replace("name: xmrig", "name: newminer"))
            .unwrap();
        let profiles = miner_profiles(Some(folder.path())).unwrap();
        assert_eq!(profiles.len(), BUILT_IN.len() + 1);
        assert!(profiles.iter().any(|profile| profile.name == "xmrig" && profile.title == "Ours"));
        std::fs::write(folder.path().join("c.yaml"), text).unwrap();
        assert!(
            miner_profiles(Some(folder.path())).unwrap_err().to_string().contains("c.yaml: name:")
        );
        assert!(miner_profiles(Some(&folder.path().join("none"))).is_err());
    }

    proptest! {
        #[test]
        fn no_file_panics(line in 0usize..60, text in ".{0,40}") {
            let mut lines: Vec<&str> = BUILT_IN[2].1.lines().collect();
            let place = line % lines.len();
            lines[place] = &text;
            let _ = parse(Path::new("m.yaml"), &lines.join("\n"));
        }
    }
}
