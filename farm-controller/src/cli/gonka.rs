//! `roadbed gonka`: the chain as it is known, and our MLNodes at the Network Node.
//!
//! `status` shows what a running controller knows; without one it asks the Network Node itself, once. The commands that
//! change something show what they would do and do it only with `--apply`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use roadbed_protocol::RigId;
use serde_json::{Value, json};

use crate::config::{GonkaRig, GonkaSite, Site};
use crate::control::socket;
use crate::gonka::client::NodeClient;
use crate::gonka::desk::Desk;
use crate::gonka::feed::Feed;
use crate::gonka::promised::Promised;
use crate::gonka::registration::{self, Difference};
use crate::gonka::view::GonkaView;

use super::gonka_asking::check_listed;
use super::{gonka_advice, gonka_maintenance, gonka_text};

/// Commands about Gonka.
#[derive(Debug, Subcommand)]
pub enum GonkaCommand {
    /// Show chain, windows, our MLNodes, their eligibility and income with its parts
    Status(StatusArgs),
    /// Register our rigs as MLNodes, or bring their entries up to date
    Register(ChangeArgs),
    /// Let the Network Node use them
    Enable(ChangeArgs),
    /// Take them out; they stay active to the end of the epoch
    Disable(ChangeArgs),
    /// Go through the check list before a PoC now; exit code 2 when a rig is not ready
    Preflight(gonka_advice::PreflightArgs),
    /// Say when a rig may be taken away, and what it costs to do so now
    Maintenance(gonka_maintenance::MaintenanceArgs),
    /// Show where the weight of an epoch went that was expected and not earned
    PostMortem(gonka_advice::PostMortemArgs),
}

/// Arguments of `roadbed gonka status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Site file
    #[arg(long)]
    site: PathBuf,
    /// One JSON document
    #[arg(long)]
    json: bool,
}

/// Arguments of the commands that change something.
#[derive(Debug, Args)]
pub struct ChangeArgs {
    /// Site file
    #[arg(long)]
    site: PathBuf,
    /// Only this rig; may be given several times; all rigs of the section when absent
    #[arg(long = "rig")]
    rigs: Vec<RigId>,
    /// Do it; without this only what would be done is shown
    #[arg(long)]
    apply: bool,
    /// One JSON document
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(command: GonkaCommand) -> anyhow::Result<ExitCode> {
    match command {
        GonkaCommand::Status(args) => status(&args).await,
        GonkaCommand::Register(args) => register(&args).await,
        GonkaCommand::Enable(args) => switch(&args, true).await,
        GonkaCommand::Disable(args) => switch(&args, false).await,
        GonkaCommand::Preflight(args) => gonka_advice::run_preflight(&args).await,
        GonkaCommand::Maintenance(args) => gonka_maintenance::run(&args).await,
        GonkaCommand::PostMortem(args) => gonka_advice::run_post_mortem(&args),
    }
}

async fn status(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let site = Site::load(&args.site)?;
    let gonka = gonka_of(&site)?;
    let (view, origin) = match socket::connect(&site.socket_path()).await {
        Ok((views, _actions)) => {
            let view = views.borrow().gonka.clone();
            (view.map(|view| *view), "the running controller")
        }
        Err(_) => (Some(asked_now(&site, gonka).await?), "no controller runs; asked just now"),
    };
    let Some(view) = view else {
        bail!("the controller has not heard of a Network Node yet; try again in a moment");
    };
    if args.json {
        println!("{}", serde_json::to_string(&view)?);
    } else {
        println!("({origin})");
        print!("{}", gonka_text::status(&view, &site));
    }
    Ok(ExitCode::SUCCESS)
}

/// Asks everything once. Rigs are silent to such a view: only a controller hears them.
async fn asked_now(site: &Site, gonka: &GonkaSite) -> anyhow::Result<GonkaView> {
    eprintln!("asking {} ..", gonka.nodes.join(", "));
    let mut feed = Feed::new(gonka, site.clock, &[], None);
    feed.ask_all_once().await;
    let mut desk = Desk::new(site, Promised::default()).context("the site has no gonka section")?;
    Ok(desk.look(feed.facts(), &std::collections::BTreeMap::new(), site.clock.now()).view)
}

async fn register(args: &ChangeArgs) -> anyhow::Result<ExitCode> {
    let site = Site::load(&args.site)?;
    let (gonka, rigs) = chosen(&site, args)?;
    let admin = admin(gonka)?;
    let listed = registration::list(&admin).await?;
    let mut report = Report::new(args);
    let mut wanting = Vec::new();
    for rig in rigs {
        // Read before anything is sent: a token that is missing must not be found half-way.
        let wanted = registration::with_token(rig)?;
        let difference = registration::difference(&wanted, &listed);
        report.plan(rig, &difference);
        if difference != Difference::Same {
            wanting.push(rig);
        }
    }
    if args.apply && !wanting.is_empty() {
        let done = registration::register_all(&admin, &wanting).await?;
        for (rig, done) in wanting.into_iter().zip(done) {
            report.done(rig, "registered", done);
        }
    }
    report.finish()
}

async fn switch(args: &ChangeArgs, enable: bool) -> anyhow::Result<ExitCode> {
    let site = Site::load(&args.site)?;
    let (gonka, rigs) = chosen(&site, args)?;
    let admin = admin(gonka)?;
    let listed = registration::list(&admin).await?;
    let nodes = crate::gonka::parse::registered(&listed)?;
    let verb = if enable { "enable" } else { "disable" };
    let mut report = Report::new(args);
    for rig in rigs {
        let known = nodes.iter().find(|node| node.id == rig.node_id);
        let (is_needed, now) = match known {
            None => (false, "not registered: roadbed gonka register"),
            Some(node) if node.enabled == enable => (false, "already so"),
            Some(node) if !enable && !node.epoch_models.is_empty() => {
                (true, "works in this epoch: it serves to its end and leaves at the next PoC")
            }
            Some(_) => (true, "would be done"),
        };
        report.line(rig, verb, now);
        if args.apply && is_needed {
            let done = registration::switch(&admin, rig, enable).await;
            report.done(rig, if enable { "enabled" } else { "disabled" }, done);
        } else if known.is_none() {
            report.failed = true;
        }
    }
    report.finish()
}

fn gonka_of(site: &Site) -> anyhow::Result<&GonkaSite> {
    site.gonka
        .as_ref()
        .context("the site file has no gonka section; profiles/gonka-site.yaml shows one")
}

fn chosen<'s>(
    site: &'s Site,
    args: &ChangeArgs,
) -> anyhow::Result<(&'s GonkaSite, Vec<&'s GonkaRig>)> {
    let gonka = gonka_of(site)?;
    for id in &args.rigs {
        check_listed(gonka, id)?;
    }
    for rig in gonka.rigs.iter().filter(|rig| args.rigs.contains(&rig.rig)) {
        if let Some(entry) = &rig.behind {
            bail!(
                "rig \"{}\" stands behind \"{entry}\" as one MLNode (gateway.single_mlnode); name \"{entry}\", which changes the node of both",
                rig.rig
            );
        }
    }
    let is_chosen = |rig: &&GonkaRig| args.rigs.is_empty() || args.rigs.contains(&rig.rig);
    let entries = gonka.rigs.iter().filter(|rig| rig.behind.is_none());
    Ok((gonka, entries.filter(is_chosen).collect()))
}

fn admin(gonka: &GonkaSite) -> anyhow::Result<NodeClient> {
    let url = gonka.admin_url.as_deref().context(
        "gonka.admin_url is not set; it is the Network Node's port 9200, open to its own machine only",
    )?;
    Ok(NodeClient::new(url, gonka.authorities.as_ref()))
}

/// What is shown while a command goes on, and in the end.
struct Report<'a> {
    args: &'a ChangeArgs,
    documents: Vec<Value>,
    failed: bool,
}

impl<'a> Report<'a> {
    fn new(args: &'a ChangeArgs) -> Self {
        Self { args, documents: Vec::new(), failed: false }
    }

    fn plan(&mut self, rig: &GonkaRig, difference: &Difference) {
        let shown = registration::shown(rig);
        let (word, changes) = match difference {
            Difference::New => ("new", Vec::new()),
            Difference::Same => ("same", Vec::new()),
            Difference::Changed(changes) => {
                ("changed", changes.iter().map(ToString::to_string).collect())
            }
        };
        self.documents.push(json!({
            "rig": rig.rig.as_str(), "node": shown, "difference": word, "changes": changes,
        }));
        if !self.args.json {
            println!("{} as {}: {word}", rig.rig, rig.node_id);
            for change in &changes {
                println!("  {change}");
            }
            println!("{}", serde_json::to_string_pretty(&shown).unwrap_or_default());
        }
    }

    fn line(&mut self, rig: &GonkaRig, verb: &str, now: &str) {
        self.documents.push(json!({
            "rig": rig.rig.as_str(), "node_id": rig.node_id, "action": verb, "now": now,
        }));
        if !self.args.json {
            println!("{verb} {} ({}): {now}", rig.rig, rig.node_id);
        }
    }

    fn done(
        &mut self,
        rig: &GonkaRig,
        word: &str,
        done: Result<(), registration::RegistrationError>,
    ) {
        let text = match &done {
            Ok(()) => word.to_owned(),
            Err(error) => {
                self.failed = true;
                error.to_string()
            }
        };
        if !self.args.json {
            println!("{}: {text}", rig.rig);
        }
        let is_its = |document: &&mut Value| document["rig"] == rig.rig.as_str();
        if let Some(document) = self.documents.iter_mut().find(is_its) {
            document["result"] = json!(text);
        }
    }

    fn finish(self) -> anyhow::Result<ExitCode> {
        if self.args.json {
            let (applied, failed) = (self.args.apply, self.failed);
            println!(
                "{}",
                json!({ "applied": applied, "failed": failed, "nodes": self.documents })
            );
        } else if !self.args.apply {
            println!("nothing was changed; --apply does it");
        }
        Ok(if self.failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}
