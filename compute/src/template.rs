//! Chat templates.
#[derive(Debug, thiserror::Error)]
#[error("bad template")]
pub struct TemplateError;
