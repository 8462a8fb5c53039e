//! The gateway's part of the site file, and every complaint about it.

use std::path::Path;

use farm_controller::config::{ConfigError, Site};

/// The shipped files with the site's text changed.
fn load(change: impl Fn(&str) -> String) -> Result<Site, ConfigError> {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../profiles");
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(&shipped).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            std::fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
        }
    }
    let site = folder.path().join("demo-site.yaml");
    let text = std::fs::read_to_string(&site).unwrap();
    std::fs::write(&site, change(&text)).unwrap();
    Site::load(&site)
}

/// A second GPU rig, an address for both, and this section.
fn with(section: &str) -> impl Fn(&str) -> String {
    let section = section.to_owned();
    move |text: &str| {
        let rig = "  - {id: gpu-1, profile: gpu-software.yaml,";
        let second = "  - {id: gpu-2, ai_url: \"http://10.0.0.6:8080\", feeder: gpu-room, agent: gpu-box, profile: gpu-software.yaml, model: HuggingFaceTB/SmolLM2-135M-Instruct}\n";
        let first = format!(
            "{second}  - {{id: gpu-1, ai_url: \"http://10.0.0.5:8080\", profile: gpu-software.yaml,"
        );
        assert!(text.contains(rig) && !text.contains("gateway:"));
        format!("{}\n{section}\n", text.replace(rig, &first))
    }
}

#[test]
fn a_gateway_is_read() {
    let site = load(with(
        "gateway:\n  listen: 10.0.0.2:9000\n  auth_token: node\n  rig_tokens: {gpu-2: own}\n  openai_keys: [a, b]\n  single_mlnode: {rigs: [gpu-1, gpu-2]}",
    ))
    .unwrap();
    let gateway = site.gateway.unwrap();
    let single = gateway.single_mlnode.unwrap();
    assert_eq!(single.base.as_deref(), Some("mlnode"));
    assert_eq!(single.rigs.len(), 2);
    assert_eq!(single.model, "HuggingFaceTB/SmolLM2-135M-Instruct");
    assert_eq!(gateway.openai_keys.len(), 2);
    assert_eq!(site.rigs[0].ai.as_ref().unwrap().authority.as_str(), "10.0.0.6:8080");
    let root =
        load(with("gateway: {listen: \"0.0.0.0:1\", single_mlnode: {rigs: [gpu-1], base: /}}"));
    assert_eq!(root.unwrap().gateway.unwrap().single_mlnode.unwrap().base, None);
    assert_eq!(load(str::to_owned).unwrap().gateway, None, "nobody must have one");
}

#[test]
fn every_complaint_names_its_field() {
    for (section, words) in [
        ("gateway: {}", "missing field `listen`"),
        (
            "gateway: {listen: \"127.0.0.1:18830\"}",
            "gateway.listen: 127.0.0.1:18830 is the broker's",
        ),
        ("gateway: {listen: \"a:1\"}", "gateway.listen"),
        ("gateway: {listen: \"0.0.0.0:1\", port: 3}", "unknown field `port`"),
        ("gateway: {listen: \"0.0.0.0:1\", auth_token: \"\"}", "gateway.auth_token: is no token"),
        (
            "gateway: {listen: \"0.0.0.0:1\", openai_keys: [a, \"b c\"]}",
            "gateway.openai_keys[1]: is no token",
        ),
        (
            "gateway: {listen: \"0.0.0.0:1\", rig_tokens: {gpu-3: a}}",
            "gateway.rig_tokens: \"gpu-3\" is no rig",
        ),
        (
            "gateway: {listen: \"0.0.0.0:1\", rig_tokens: {asic-1: a}}",
            "\"asic-1\" is no rig with an ai_url",
        ),
        (
            "gateway: {listen: \"0.0.0.0:1\", single_mlnode: {rigs: []}}",
            "single_mlnode.rigs: is empty",
        ),
        (
            "gateway: {listen: \"0.0.0.0:1\", single_mlnode: {rigs: [gpu-1, gpu-1]}}",
            "rigs[1]: \"gpu-1\" is listed twice",
        ),
        (
            "gateway: {listen: \"0.0.0.0:1\", single_mlnode: {rigs: [asic-1]}}",
            "rigs[0]: \"asic-1\" is no rig",
        ),
        (
            "gateway: {listen: \"0.0.0.0:1\", single_mlnode: {rigs: [gpu-1], base: /rigs}}",
            "single_mlnode.base: \"/rigs\"",
        ),
        (
            "gateway: {listen: \"0.0.0.0:1\", single_mlnode: {rigs: [gpu-1], base: /a/b}}",
            "single_mlnode.base: \"/a/b\"",
        ),
    ] {
        let error = load(with(section)).unwrap_err().to_string();
        assert!(error.contains(words), "{section}: {error}");
    }
}

#[test]
fn addresses_of_rigs_are_checked() {
    let listening = "gateway: {listen: \"0.0.0.0:1\"}";
    for (from, to, words) in [
        ("http://10.0.0.5:8080", "10.0.0.5:8080", "ai_url: \"10.0.0.5:8080\" is no such address"),
        ("http://10.0.0.5:8080", "http://10.0.0.6:8080", "10.0.0.6:8080 is another rig's address"),
        ("{id: asic-1,", "{id: asic-1, ai_url: \"http://a:1\",", "an ASIC can only mine"),
        ("{id: asic-1,", "{id: asic-1, ai_token: a,", "ai_token: has no ai_url"),
        ("{id: gpu-1,", "{id: gpu-1, ai_token: a,", "added to everybody's requests"),
    ] {
        let change = with(listening);
        let error = load(|text| change(text).replace(from, to)).unwrap_err().to_string();
        assert!(error.contains(words), "{to}: {error}");
    }
    let other = "model: HuggingFaceTB/SmolLM2-135M-Instruct}\n";
    let change = with("gateway: {listen: \"0.0.0.0:1\", single_mlnode: {rigs: [gpu-1, gpu-2]}}");
    let error = load(|text| change(text).replace(other, "model: b}\n")).unwrap_err().to_string();
    assert!(error.contains("\"gpu-2\" serves another model"), "{error}");
    let error = load(|text| format!("{text}\n{listening}\n")).unwrap_err().to_string();
    assert!(error.contains("gateway: has no rig behind it"), "{error}");
}
