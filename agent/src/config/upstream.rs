//! How a rig's external OpenAI-compatible server is reached, and how it is started if that is ours to do.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use url::Url;

/// Requests under way at a server together when nobody says otherwise: a small share of vLLM's 256 sequences, and a
/// queue of bearable length for a llama.cpp server with few slots.
pub const CONCURRENT_DEFAULT: usize = 64;
/// How long a server may take to answer for the first time, as long as the network's own nodes allow.
pub const START_WAIT_DEFAULT: Duration = Duration::from_secs(1200);
/// Between SIGTERM and SIGKILL, as the network's own nodes grant their engine.
pub const STOP_WAIT_DEFAULT: Duration = Duration::from_secs(20);

/// An external server that answers in our engine's place.
#[derive(Clone, PartialEq, Eq)]
pub struct UpstreamConfig {
    /// Where it listens.
    pub url: UpstreamUrl,
    /// The key it wants, if any.
    pub api_key: Option<String>,
    /// What it calls the model; the first it lists when nobody says.
    pub model: Option<String>,
    /// Requests under way at it together; further ones wait, and beyond a bound they are refused.
    pub concurrent: usize,
    /// How long it may take to answer for the first time.
    pub start_wait: Duration,
    /// How to run it; `None` if somebody else does.
    pub command: Option<ServerCommand>,
}

impl UpstreamConfig {
    /// A server that somebody else runs at this address.
    #[must_use]
    pub const fn attached(url: UpstreamUrl) -> Self {
        Self {
            url,
            api_key: None,
            model: None,
            concurrent: CONCURRENT_DEFAULT,
            start_wait: START_WAIT_DEFAULT,
            command: None,
        }
    }
}

impl fmt::Debug for UpstreamConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The key stays out of logs.
        f.debug_struct("UpstreamConfig")
            .field("url", &self.url)
            .field("has_api_key", &self.api_key.is_some())
            .field("model", &self.model)
            .field("concurrent", &self.concurrent)
            .field("start_wait", &self.start_wait)
            .field("command", &self.command)
            .finish()
    }
}

/// A server's program.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerCommand {
    /// The program; found in `PATH` if it is a bare name.
    pub program: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Variables set for it beside those of the agent.
    pub env: Vec<(String, String)>,
    /// Where it runs; the agent's own folder when nobody says.
    pub folder: Option<PathBuf>,
    /// Time it has to end by itself before it is killed.
    pub stop_wait: Duration,
}

impl ServerCommand {
    /// A line for the shell.
    #[must_use]
    pub fn shell(line: &str) -> Self {
        Self {
            program: "/bin/sh".into(),
            args: vec!["-c".into(), line.into()],
            env: vec![],
            folder: None,
            stop_wait: STOP_WAIT_DEFAULT,
        }
    }
}

impl fmt::Debug for ServerCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Values of variables may be secrets.
        let names: Vec<&str> = self.env.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("ServerCommand")
            .field("program", &self.program)
            .field("args", &self.args)
            .field("env", &names)
            .field("folder", &self.folder)
            .field("stop_wait", &self.stop_wait)
            .finish()
    }
}

/// Where a server listens: `http://host:port`, with or without the `/v1` that clients are told.
#[derive(Clone, PartialEq, Eq)]
pub struct UpstreamUrl(Url);

impl UpstreamUrl {
    /// The address of a path, which begins with a slash.
    #[must_use]
    pub fn at(&self, path: &str) -> String {
        format!("{}{path}", self.0.as_str().trim_end_matches('/'))
    }

    /// True if it is spoken to in the clear.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.0.scheme() == "http"
    }

    /// Host and port.
    #[must_use]
    pub fn host_port(&self) -> (String, u16) {
        let host = self.0.host_str().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        (host, self.0.port_or_known_default().unwrap_or(80))
    }
}

impl FromStr for UpstreamUrl {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            |what: &str| format!("{text:?} {what}; expected for example http://127.0.0.1:8000");
        let mut url = Url::parse(text).map_err(|error| wrong(&format!("is no URL ({error})")))?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(wrong("is no http or https address"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong("holds a password: give the key in a file"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(wrong("has a query or fragment"));
        }
        let path = url.path().trim_end_matches('/');
        let path = path.strip_suffix("/v1").unwrap_or(path).to_owned();
        url.set_path(&path);
        Ok(Self(url))
    }
}

impl fmt::Display for UpstreamUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str().trim_end_matches('/'))
    }
}

impl fmt::Debug for UpstreamUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_joined_as_clients_write_them() {
        let at = |base: &str| base.parse::<UpstreamUrl>().unwrap().at("/v1/models");
        for base in ["http://h:8000", "http://h:8000/", "http://h:8000/v1", "http://h:8000/v1/"] {
            assert_eq!(at(base), "http://h:8000/v1/models");
        }
        assert_eq!(at("https://h/rig-1/v1"), "https://h/rig-1/v1/models");
        assert_eq!("http://[::1]:9".parse::<UpstreamUrl>().unwrap().host_port(), ("::1".into(), 9));
    }

    #[test]
    fn what_is_no_address_is_told() {
        for (text, word) in [
            ("127.0.0.1:8000", "http://127.0.0.1:8000"),
            ("ftp://h", "no http"),
            ("http://u:p@h", "password"),
            ("http://h/?a=b", "query"),
        ] {
            let refusal = text.parse::<UpstreamUrl>().unwrap_err();
            assert!(refusal.contains(word), "{refusal}");
        }
    }

    #[test]
    fn secrets_stay_out_of_logs() {
        let mut config = UpstreamConfig::attached("http://h:1".parse().unwrap());
        config.api_key = Some("hush".into());
        let mut command = ServerCommand::shell("true");
        command.env.push(("HF_TOKEN".into(), "hush".into()));
        config.command = Some(command);
        let shown = format!("{config:?}");
        assert!(shown.contains("HF_TOKEN") && !shown.contains("hush"), "{shown}");
    }
}
