//! A site's place on Gonka: which Network Nodes to ask, under which address, at what price, and which rigs are MLNodes.

use std::collections::BTreeSet;
use std::path::PathBuf;

use axum::http::Uri;
use farm_core::plan::IncomeSource;
use roadbed_protocol::RigId;

use super::authorities::Authorities;
use super::gateway::{GatewaySettings, SingleMlNode};
use super::gonka_file::{GonkaFile, GonkaRigFile};
use super::site::SiteRig;
use super::site_check::Checker;
use super::source::FieldPath;

/// Network Nodes asked in turn: one of our own and a few for when it is away.
const NODES_MAX: usize = 8;
/// Longest node id, segment and address; far above any in use.
const WORD_CHARS_MAX: usize = 128;

/// A site's place on Gonka.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GonkaSite {
    /// Base addresses of Network Nodes; the first that answers is believed.
    pub nodes: Vec<String>,
    /// Base address of the admin API of our own Network Node.
    pub admin_url: Option<String>,
    /// Who vouches for `https` addresses of them; without them whom this machine trusts.
    pub authorities: Option<Authorities>,
    /// Where artifacts are delivered (the Network Node's `DAPI_API__POC_CALLBACK_URL`), to be tried before a PoC.
    pub callback_url: Option<String>,
    /// Our host on chain, `gonka1..`.
    pub address: String,
    /// Millionths of the site's currency for one GNK.
    pub price: Option<(i64, IncomeSource)>,
    /// Millionths of all epochs that are expected to be lost.
    pub expected_loss: Option<(i64, IncomeSource)>,
    /// One line per figure: what it is and where it comes from.
    pub origins: Vec<String>,
    /// The rigs that are MLNodes, and those that stand behind one of them.
    pub rigs: Vec<GonkaRig>,
}

impl GonkaSite {
    /// The models of its rigs, each once, in the order of the rigs.
    #[must_use]
    pub fn models(&self) -> Vec<String> {
        let mut seen = BTreeSet::new();
        self.rigs.iter().map(|rig| rig.model.clone()).filter(|it| seen.insert(it.clone())).collect()
    }

    /// All rigs that the Network Node knows as this node.
    pub fn of_node(&self, node_id: &str) -> impl Iterator<Item = &GonkaRig> {
        self.rigs.iter().filter(move |rig| rig.node_id == node_id)
    }
}

/// A rig as an MLNode of a Network Node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GonkaRig {
    /// The rig.
    pub rig: RigId,
    /// Its name at the Network Node.
    pub node_id: String,
    /// The rig under whose entry it stands, when both are the gateway's single MLNode; nothing for a rig with an entry.
    pub behind: Option<RigId>,
    /// Its model, exactly as governance wrote it.
    pub model: String,
    /// Where the Network Node reaches it.
    pub reach: Reach,
    /// File with the token that the Network Node sends as bearer.
    pub auth_token_file: Option<PathBuf>,
    /// Arguments of the engine, as the Network Node passes them on.
    pub args: Vec<String>,
    /// Requests at once.
    pub max_concurrent: u32,
    /// Type and count of cards, as declared on chain.
    pub hardware: Vec<(String, u32)>,
    /// VRAM of all cards together, in GB; for the check against what a model needs.
    pub vram_gb: Option<u64>,
    /// How its copy of the weights came about: [`Self::PUBLISHED`], or what was made of them. Nobody but the operator
    /// knows; without a word the rig cannot earn.
    pub weights: Option<String>,
}

impl GonkaRig {
    /// The word for weights as the model's authors published them.
    pub const PUBLISHED: &str = "published";
}

/// Where a Network Node reaches an MLNode: exactly one of the two modes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// One address for management and inference.
    BaseUrl(String),
    /// Two ports of one host.
    Ports {
        /// Host name or address.
        host: String,
        /// Port of `/v1/...`.
        inference_port: u16,
        /// Path before it.
        inference_segment: String,
        /// Port of `/api/v1/...`.
        poc_port: u16,
        /// Path before it.
        poc_segment: String,
    },
}

impl Reach {
    /// Whether it leads to the single MLNode of this gateway: by its first step, or, where that MLNode stands at the root,
    /// by the gateway's port.
    fn leads_to(&self, single: &SingleMlNode, gateway: &GatewaySettings) -> bool {
        let (port, path) = match self {
            Self::BaseUrl(url) => {
                let Ok(uri) = url.parse::<Uri>() else { return false };
                (uri.port_u16(), uri.path().to_owned())
            }
            Self::Ports { inference_port, inference_segment, .. } => {
                (Some(*inference_port), inference_segment.clone())
            }
        };
        let path = path.trim_matches('/');
        match &single.base {
            Some(base) => path == base,
            None => path.is_empty() && port == Some(gateway.listen.port()),
        }
    }
}

/// Adds the rigs that stand behind one with an entry: the rigs of the gateway's single MLNode, which the chain knows as one
/// node.
fn add_those_behind(rigs: &mut Vec<GonkaRig>, gateway: Option<&GatewaySettings>) {
    let Some(gateway) = gateway else { return };
    let Some(single) = &gateway.single_mlnode else { return };
    let is_entry =
        |rig: &&GonkaRig| single.rigs.contains(&rig.rig) && rig.reach.leads_to(single, gateway);
    let Some(entry) = rigs.iter().find(is_entry).cloned() else { return };
    for id in &single.rigs {
        if !rigs.iter().any(|rig| rig.rig == *id) {
            let behind = Some(entry.rig.clone());
            // Memory and cards of the entry are those of all rigs together.
            rigs.push(GonkaRig { rig: id.clone(), behind, vram_gb: None, ..entry.clone() });
        }
    }
}

impl Checker<'_> {
    pub(super) fn gonka(
        &mut self,
        file: GonkaFile,
        rigs: &[SiteRig],
        gateway: Option<&GatewaySettings>,
    ) -> GonkaSite {
        let top = FieldPath::of("gonka");
        if file.nodes.is_empty() || file.nodes.len() > NODES_MAX {
            let text = format!("has {} entries; expected 1 to {NODES_MAX}", file.nodes.len());
            self.say(&top.key("nodes"), text);
        }
        for (index, node) in file.nodes.iter().enumerate() {
            self.url(&top.key("nodes").at(index), node);
        }
        if let Some(admin) = &file.admin_url {
            self.url(&top.key("admin_url"), admin);
        }
        let authorities = self.authorities(&top, file.ca_file.as_deref());
        if let Some(callback) = &file.callback_url
            && self.url(&top.key("callback_url"), callback)
            && callback.starts_with("https://")
        {
            let text =
                "is https; rigs deliver artifacts over plain http, on the site's own network";
            self.say(&top.key("callback_url"), text);
        }
        let address = &file.address;
        let is_word = address.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if !address.starts_with("gonka1") || !is_word || address.len() > WORD_CHARS_MAX {
            let text = format!("\"{address}\" is no host; expected a bech32 address like gonka1..");
            self.say(&top.key("address"), text);
        }
        let mut origins = Vec::new();
        let price = file.price.as_ref().map(|price| {
            let path = top.key("price");
            if price.per_gnk.0 < 0 {
                let text = format!("is {}; expected 0 or more", price.per_gnk);
                self.say(&path.key("per_gnk"), text);
            }
            let what = format!("{} per GNK", price.per_gnk);
            origins.push(price.origin.line("GNK", &what));
            (price.per_gnk.0, self.origin(&path, &price.origin))
        });
        let expected_loss = file.expected_loss.as_ref().map(|loss| {
            let path = top.key("expected_loss");
            if !(0..=100_000_000).contains(&loss.percent.0) {
                let text = format!("is {}; expected 0 to 100", loss.percent);
                self.say(&path.key("percent"), text);
            }
            let what = format!("{} % of epochs", loss.percent);
            origins.push(loss.origin.line("expected loss", &what));
            (loss.percent.0 / 100, self.origin(&path, &loss.origin))
        });
        let mut rigs = self.gonka_rigs(&top.key("rigs"), &file.rigs, rigs);
        add_those_behind(&mut rigs, gateway);
        let trimmed = |url: &String| url.trim_end_matches('/').to_owned();
        GonkaSite {
            nodes: file.nodes.iter().map(trimmed).collect(),
            authorities,
            admin_url: file.admin_url.as_ref().map(trimmed),
            callback_url: file.callback_url.as_ref().map(trimmed),
            address: file.address,
            price,
            expected_loss,
            origins,
            rigs,
        }
    }

    fn gonka_rigs(
        &mut self,
        top: &FieldPath,
        files: &[GonkaRigFile],
        known: &[SiteRig],
    ) -> Vec<GonkaRig> {
        let (mut rigs, mut ids) = (BTreeSet::new(), BTreeSet::new());
        let mut all = Vec::with_capacity(files.len());
        for (index, file) in files.iter().enumerate() {
            let path = top.at(index);
            if !rigs.insert(&file.rig) {
                self.say(&path.key("rig"), format!("rig \"{}\" is listed twice", file.rig));
            }
            if !ids.insert(&file.node_id) {
                let text = format!("node \"{}\" is listed twice", file.node_id);
                self.say(&path.key("node_id"), text);
            }
            let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            let id = &file.node_id;
            if id.is_empty() || id.len() > WORD_CHARS_MAX || !id.bytes().all(is_name) {
                let text = format!("\"{id}\" is no node id; expected letters, digits, - _ .");
                self.say(&path.key("node_id"), text);
            }
            for (index, card) in file.hardware.iter().enumerate() {
                if card.kind.trim().is_empty() || card.count == 0 {
                    let text = "expected a type like \"NVIDIA H100 80GB HBM3\" and a count above 0";
                    self.say(&path.key("hardware").at(index), text);
                }
            }
            let reach = self.reach(&path, file);
            let Some(rig) = known.iter().find(|rig| rig.id == file.rig) else {
                let names: Vec<_> = known.iter().map(|rig| rig.id.as_str()).collect();
                let text =
                    format!("unknown rig \"{}\"; expected one of: {}", file.rig, names.join(", "));
                self.say(&path.key("rig"), text);
                continue;
            };
            let Some(model) = rig.model.clone() else {
                let text = format!("\"{}\" is no GPU rig; it cannot prove", file.rig);
                self.say(&path.key("rig"), text);
                continue;
            };
            let Some(reach) = reach else { continue };
            all.push(GonkaRig {
                rig: file.rig.clone(),
                node_id: file.node_id.clone(),
                behind: None,
                model,
                reach,
                auth_token_file: file.auth_token_file.as_ref().map(|path| self.beside(path)),
                args: file.args.clone(),
                max_concurrent: file.max_concurrent,
                hardware: file.hardware.iter().map(|it| (it.kind.clone(), it.count)).collect(),
                vram_gb: file.vram_gb,
                weights: file.weights.clone(),
            });
        }
        all
    }

    /// The Network Node refuses a node with both modes, and so do we, before it is asked.
    fn reach(&mut self, path: &FieldPath, file: &GonkaRigFile) -> Option<Reach> {
        match (&file.base_url, &file.host) {
            (Some(url), None) if file.inference_port.is_none() && file.poc_port.is_none() => self
                .url(&path.key("base_url"), url)
                .then(|| Reach::BaseUrl(url.trim_end_matches('/').to_owned())),
            (None, Some(host)) => {
                if host.is_empty() || host.len() > WORD_CHARS_MAX || host.contains(['/', ':', ' '])
                {
                    let text = format!("\"{host}\" is no host; expected a name or an address");
                    self.say(&path.key("host"), text);
                    return None;
                }
                Some(Reach::Ports {
                    host: host.clone(),
                    // The ports of Gonka's own guides.
                    inference_port: self.port(
                        path,
                        "inference_port",
                        file.inference_port,
                        5_050,
                    )?,
                    inference_segment: file.inference_segment.clone(),
                    poc_port: self.port(path, "poc_port", file.poc_port, 8_080)?,
                    poc_segment: file.poc_segment.clone(),
                })
            }
            (Some(_), _) => {
                self.say(path, "has base_url and host or ports; expected one of the two modes");
                None
            }
            (None, None) => {
                self.say(path, "has neither base_url nor host; the Network Node needs one of them");
                None
            }
        }
    }

    fn port(
        &mut self,
        path: &FieldPath,
        key: &'static str,
        port: Option<u32>,
        usual: u16,
    ) -> Option<u16> {
        let Some(port) = port else { return Some(usual) };
        let fits = u16::try_from(port).ok().filter(|port| *port > 0);
        if fits.is_none() {
            self.say(&path.key(key), format!("is {port}; expected 1 to 65535"));
        }
        fits
    }

    /// An address over `http://` or `https://`, without a login or a query.
    pub(super) fn url(&mut self, path: &FieldPath, text: &str) -> bool {
        let host = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
        let is_plain = !text.contains(['?', '#', ' ', '@']) && text.is_ascii();
        let is_good = is_plain && host.is_some_and(|host| !host.trim_end_matches('/').is_empty());
        if !is_good {
            self.say(path, format!("\"{text}\" is no address like http://10.0.0.5:8000"));
        }
        is_good
    }
}
