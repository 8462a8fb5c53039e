//! What answers on a GPU rig, as the file says it: `gpu.engine`, and the fields beside it that only our own has.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::super::scalar::{Bounded, Parsed};
use super::super::upstream::{START_WAIT_DEFAULT, STOP_WAIT_DEFAULT};
use super::super::{
    CONCURRENT_DEFAULT, EngineConfig, ServerCommand, Split, UpstreamConfig, UpstreamUrl, WgpuConfig,
};
use super::{GpuFile, ResolveError, read_secret};

/// Requests at an external server together: twice what a Network Node sends a node.
const CONCURRENT_MAX: u64 = 1_000;
/// Longest time an external server is given to start or end: a day is a typing error.
const WAIT_SECONDS_MAX: u64 = 7_200;

impl GpuFile {
    /// Decides the engine; takes its fields out.
    pub(super) fn resolve_engine(&mut self, base: &Path) -> Result<EngineConfig, ResolveError> {
        let rule = |field: &str, problem: &str| ResolveError::Rule {
            field: format!("gpu.{field}"),
            problem: problem.into(),
        };
        let engine = self.engine.take().unwrap_or_default();
        match engine.kind {
            EngineWord::Wgpu => {
                if let Some(field) = engine.upstream_field() {
                    return Err(rule(
                        &format!("engine.{field}"),
                        "belongs to `kind: openai-upstream`; this engine is wgpu",
                    ));
                }
                let model = self.model.take().ok_or_else(|| {
                    rule("model", "is missing; expected a model file or catalogue name")
                })?;
                let gpus = match (self.adapter.take(), self.gpus.take()) {
                    (None, None) => vec!["auto".into()],
                    (Some(adapter), None) => vec![adapter],
                    (None, Some(gpus)) if gpus.is_empty() => {
                        return Err(rule("gpus", "is empty; expected GPUs, or `[all]`"));
                    }
                    (None, Some(gpus)) => gpus,
                    (Some(_), Some(_)) => {
                        return Err(rule(
                            "adapter",
                            "belongs to a rig of one GPU; there is `gpus` too",
                        ));
                    }
                };
                let split = self.split.take().map_or_else(Split::default, |split| split.0);
                let context = self.context.take().map(|context| usize::try_from(context.0));
                Ok(EngineConfig::Wgpu(WgpuConfig {
                    model,
                    gpus,
                    split,
                    context_tokens: context.and_then(Result::ok),
                    memory: self.memory.take().map(|memory| memory.0),
                    kv: self.kv.take().map(|kv| kv.0).unwrap_or_default(),
                    // As the file of a model, from where the agent's config lies.
                    codebook: self.codebook.take().map(|codebook| base.join(codebook)),
                    logprobs: self.logprobs_mode.take().map(|word| word.0).unwrap_or_default(),
                    deterministic_sampling: self.deterministic_sampling.unwrap_or_default(),
                }))
            }
            EngineWord::OpenaiUpstream => {
                for (field, given) in [
                    ("model", self.model.is_some()),
                    ("adapter", self.adapter.is_some()),
                    ("gpus", self.gpus.is_some()),
                    ("split", self.split.is_some()),
                    ("context", self.context.is_some()),
                    ("memory", self.memory.is_some()),
                    ("kv", self.kv.is_some()),
                    ("codebook", self.codebook.is_some()),
                    ("logprobs_mode", self.logprobs_mode.is_some()),
                    ("deterministic_sampling", self.deterministic_sampling.is_some()),
                ] {
                    if given {
                        return Err(rule(
                            field,
                            "belongs to the wgpu engine; what a server calls its model is `engine.model`, \
                             and which GPU it takes its own matter",
                        ));
                    }
                }
                if self.embeddings.is_some() {
                    return Err(rule(
                        "embeddings",
                        "belongs to the wgpu engine; a server answers /v1/embeddings itself",
                    ));
                }
                Ok(EngineConfig::Upstream(Box::new(engine.resolve(base)?)))
            }
        }
    }
}

/// The engine of a GPU rig; all fields but the first are of an external server.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct EngineFile {
    kind: EngineWord,
    #[serde(default)]
    url: Option<Parsed<UpstreamUrl>>,
    #[serde(default)]
    api_key_file: Option<PathBuf>,
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    concurrent: Option<Bounded<1, CONCURRENT_MAX>>,
    #[serde(default)]
    start_seconds: Option<Bounded<1, WAIT_SECONDS_MAX>>,
    #[serde(default)]
    command: Option<Vec<String>>,
    #[serde(default)]
    env: Option<BTreeMap<String, String>>,
    #[serde(default)]
    folder: Option<PathBuf>,
    #[serde(default)]
    stop_seconds: Option<Bounded<1, WAIT_SECONDS_MAX>>,
}

#[derive(Deserialize, Default, Clone, Copy)]
#[serde(rename_all = "kebab-case")]
enum EngineWord {
    #[default]
    Wgpu,
    OpenaiUpstream,
}

impl EngineFile {
    /// A field that only an external server has.
    fn upstream_field(&self) -> Option<&'static str> {
        let fields = [
            ("url", self.url.is_some()),
            ("api_key_file", self.api_key_file.is_some()),
            ("model", self.model.is_some()),
            ("concurrent", self.concurrent.is_some()),
            ("start_seconds", self.start_seconds.is_some()),
            ("command", self.command.is_some()),
        ];
        let given = fields.into_iter().find(|(_, given)| *given).map(|(field, _)| field);
        given.or_else(|| self.command_field())
    }

    /// A field that only a server of ours has.
    fn command_field(&self) -> Option<&'static str> {
        let fields = [
            ("env", self.env.is_some()),
            ("folder", self.folder.is_some()),
            ("stop_seconds", self.stop_seconds.is_some()),
        ];
        fields.into_iter().find(|(_, given)| *given).map(|(field, _)| field)
    }

    fn resolve(self, base: &Path) -> Result<UpstreamConfig, ResolveError> {
        let rule = |field: &str, problem: &str| ResolveError::Rule {
            field: format!("gpu.engine.{field}"),
            problem: problem.into(),
        };
        let wait = |seconds: Option<Bounded<1, WAIT_SECONDS_MAX>>, default| {
            seconds.map_or(default, |seconds| Duration::from_secs(seconds.0))
        };
        if self.command.is_none()
            && let Some(field) = self.command_field()
        {
            return Err(rule(
                field,
                "is for a server this agent starts; expected `command:` beside it",
            ));
        }
        let command = match self.command {
            None => None,
            Some(words) => {
                let mut words = words.into_iter();
                let program = words.next().filter(|word| !word.is_empty()).ok_or_else(|| {
                    rule("command", "is empty; expected a program and its arguments")
                })?;
                Some(ServerCommand {
                    program,
                    args: words.collect(),
                    env: self.env.unwrap_or_default().into_iter().collect(),
                    folder: self.folder.map(|folder| base.join(folder)),
                    stop_wait: wait(self.stop_seconds, STOP_WAIT_DEFAULT),
                })
            }
        };
        let url = self.url.ok_or_else(|| {
            rule(
                "url",
                "is missing; expected where the server listens, such as http://127.0.0.1:8000",
            )
        })?;
        let api_key = match self.api_key_file {
            None => None,
            Some(file) => {
                Some(read_secret(&base.join(file), "api_key_file").map_err(ResolveError::File)?)
            }
        };
        let concurrent = self.concurrent.map(|concurrent| usize::try_from(concurrent.0));
        Ok(UpstreamConfig {
            url: url.0,
            api_key,
            model: self.model,
            concurrent: concurrent.and_then(Result::ok).unwrap_or(CONCURRENT_DEFAULT),
            start_wait: wait(self.start_seconds, START_WAIT_DEFAULT),
            command,
        })
    }
}
