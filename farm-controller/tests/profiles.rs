//! Every shipped profile loads; every wrong config is refused with its exact message.
//!
//! A fixture `x.yaml` in `tests/profiles/invalid` has its message beside it in `x.expected.txt`, with file names as seen
//! from that folder. `ROADBED_UPDATE=1` writes the messages anew, to be reviewed in the diff.

use std::path::{Path, PathBuf};

use farm_controller::config::{FileKind, Moment, Site, check_file};
use farm_controller::preview::preview;
use roadbed_protocol::{RigKind, Workload};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name)
}

fn yaml_files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{}", folder.display());
    files
}

#[test]
fn what_is_shipped_is_valid() {
    for file in yaml_files(&folder("profiles")) {
        let kind = check_file(&file).unwrap_or_else(|error| panic!("{error}"));
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let expected = match name.as_str() {
            "demo-site.yaml" | "gonka-site.yaml" => FileKind::Site,
            "demo-policy.yaml" => FileKind::Policy,
            _ => FileKind::Profile,
        };
        assert_eq!(kind, expected, "{name}");
    }
}

#[test]
fn valid_fixtures_load() {
    for file in yaml_files(&folder("tests/profiles/valid")) {
        check_file(&file).unwrap_or_else(|error| panic!("{error}"));
    }
}

#[test]
fn invalid_fixtures_are_refused_with_their_message() {
    let base = folder("tests/profiles/invalid");
    let prefix = format!("{}/", base.display());
    for file in yaml_files(&base) {
        let error = check_file(&file).expect_err(&file.display().to_string()).to_string();
        let message = format!("{}\n", error.replace(&prefix, ""));
        let expected = file.with_extension("expected.txt");
        if std::env::var_os("ROADBED_UPDATE").is_some() {
            std::fs::write(&expected, &message).unwrap();
        }
        let wanted = std::fs::read_to_string(&expected)
            .unwrap_or_else(|error| panic!("{}: {error}", expected.display()));
        assert_eq!(message, wanted, "{}", file.display());
    }
}

/// The demo's day shows what it is for: cheap hours run everything, dear ones sleep the miners, the promise is kept.
#[test]
fn the_demos_plan_follows_the_price() {
    let site = Site::load(&folder("profiles/demo-site.yaml")).unwrap();
    let moment = |text: &str| text.parse::<Moment>().unwrap().0;
    let plan = preview(&site, moment("2021-10-25T00:00:00-05:00")).unwrap();
    let at = |rig: &str, time: &str| {
        let time = moment(&format!("2021-10-25T{time}:00-05:00"));
        let slot = plan.slots.iter().rposition(|slot| slot.start <= time).unwrap();
        let row = plan.rows.iter().find(|row| row.rig.as_str() == rig).unwrap();
        row.choices[slot].workload.clone()
    };
    for rig in site.rigs.iter().filter(|rig| rig.profile.kind == RigKind::Asic) {
        let id = rig.id.as_str();
        assert_eq!(at(id, "03:00"), Workload::Mine { power_target: None }, "{id}");
        assert_eq!(at(id, "15:00"), Workload::Curtailed, "{id}");
        assert_eq!(at(id, "23:00"), Workload::Mine { power_target: None }, "{id}");
    }
    let kinds: Vec<&str> = ["04:00", "07:30", "10:00", "15:00", "20:00", "23:00"]
        .into_iter()
        .map(|time| at("gpu-1", time).kind().word())
        .collect();
    assert_eq!(kinds, ["prove", "mine", "serve", "prove", "serve", "mine"]);
    assert!(plan.sheds.is_empty(), "{:?}", plan.sheds);
}
