//! The arguments that put an external server in the engine's place.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::config::{CONCURRENT_DEFAULT, ServerCommand, UpstreamConfig, UpstreamUrl, read_secret};
use crate::engine::upstream::model_of;

/// See the module head.
#[derive(Debug, Args)]
pub struct UpstreamArgs {
    /// Let an OpenAI-compatible server answer instead of our engine: vLLM, a llama.cpp server, an official MLNode.
    #[arg(
        long,
        value_name = "URL",
        conflicts_with_all = ["model", "gpus", "split", "memory", "context", "kv"]
    )]
    pub upstream: Option<UpstreamUrl>,
    /// Start that server with this line of shell, look after it and stop it; without it, one that runs already is used.
    #[arg(long, value_name = "LINE", requires = "upstream")]
    pub upstream_command: Option<String>,
    /// What the server calls the model; the first it lists otherwise.
    #[arg(long, value_name = "NAME", requires = "upstream")]
    pub upstream_model: Option<String>,
    /// File with the key the server wants; readable by its owner only.
    #[arg(long, value_name = "FILE", requires = "upstream")]
    pub upstream_key_file: Option<PathBuf>,
    /// Requests at the server together; 64 more wait, and further ones are refused.
    #[arg(
        long,
        value_name = "N",
        requires = "upstream",
        default_value_t = CONCURRENT_DEFAULT as u64,
        value_parser = clap::value_parser!(u64).range(1..=1_000)
    )]
    pub upstream_concurrent: u64,
    /// How long the server may take to answer for the first time; 1200 otherwise, as in the network's own nodes.
    #[arg(
        long,
        value_name = "N",
        requires = "upstream",
        value_parser = clap::value_parser!(u64).range(1..=7_200)
    )]
    pub upstream_start_seconds: Option<u64>,
}

impl UpstreamArgs {
    /// The server, if one shall answer, and the name its model is served under.
    ///
    /// # Errors
    /// What is wrong with the key file, or why the name is not known.
    pub async fn config(
        &self,
        served_as: Option<&str>,
    ) -> anyhow::Result<Option<(UpstreamConfig, String)>> {
        let Some(url) = &self.upstream else { return Ok(None) };
        let mut config = UpstreamConfig::attached(url.clone());
        config.command = self.upstream_command.as_deref().map(ServerCommand::shell);
        config.model.clone_from(&self.upstream_model);
        config.concurrent = usize::try_from(self.upstream_concurrent)?;
        if let Some(seconds) = self.upstream_start_seconds {
            config.start_wait = Duration::from_secs(seconds);
        }
        if let Some(file) = &self.upstream_key_file {
            config.api_key = Some(read_secret(file, "--upstream-key-file")?);
        }
        let served_as = match served_as.map(str::to_owned).or_else(|| config.model.clone()) {
            Some(name) => name,
            None if config.command.is_some() => anyhow::bail!(
                "the server cannot be asked for its model's name before it is started; give it with --served-as"
            ),
            None => model_of(&config).await.map_err(|why| anyhow::anyhow!(why))?,
        };
        Ok(Some((config, served_as)))
    }
}
