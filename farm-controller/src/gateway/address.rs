//! Which face of the gateway a path means; what is passed on keeps every byte of its path.
//!
//! A Network Node joins `{base}/{version}{path}` or `{host}/{version}{segment}{path}`, so a version may stand before or
//! behind the rig, and slashes may be doubled anywhere.

use roadbed_protocol::mlnode::{is_openai, is_version, plain_path};

/// What a path means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target<'p> {
    /// One rig's own faces.
    Rig {
        /// As it was written; perhaps no rig's id.
        id: &'p str,
        /// Path at the rig: the version if one stood in front, then everything behind the id, verbatim.
        path: String,
    },
    /// The MLNode that several rigs are together.
    FanOut {
        /// Without base, version and empty steps.
        path: String,
    },
    /// The farm's OpenAI endpoint.
    OpenAi {
        /// Without version and empty steps.
        path: String,
    },
    /// The gateway itself.
    Own {
        /// Without version and empty steps.
        path: String,
    },
}

/// Where the single MLNode stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Base<'b> {
    /// There is none.
    Absent,
    /// At the root.
    Root,
    /// Behind this first step.
    Step(&'b str),
}

/// Reads a path.
pub(super) fn target<'p>(path: &'p str, base: Base<'_>) -> Target<'p> {
    let (version, rest) = match first_step(path) {
        Some((step, rest)) if is_version(step) => (Some(step), rest),
        Some(_) | None => (None, path),
    };
    match first_step(rest) {
        Some(("rigs", behind)) => {
            let (id, tail) = first_step(behind).unwrap_or_default();
            let version = version.map(|version| format!("/{version}")).unwrap_or_default();
            let tail = if tail.is_empty() && version.is_empty() { "/" } else { tail };
            return Target::Rig { id, path: version + tail };
        }
        Some((step, behind)) if base == Base::Step(step) => {
            return Target::FanOut { path: plain_path(behind) };
        }
        Some(_) | None => {}
    }
    let path = plain_path(path);
    if is_openai(&path) {
        return Target::OpenAi { path };
    }
    match base {
        Base::Root => Target::FanOut { path },
        Base::Absent | Base::Step(_) => Target::Own { path },
    }
}

/// The first step that is not empty, and what follows it with its slash.
fn first_step(path: &str) -> Option<(&str, &str)> {
    let path = path.trim_start_matches('/');
    let end = path.find('/').unwrap_or(path.len());
    (end > 0).then(|| path.split_at(end))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rig<'p>(id: &'p str, path: &str) -> Target<'p> {
        Target::Rig { id, path: path.to_owned() }
    }

    #[test]
    fn a_rig_gets_the_rest_verbatim() {
        let read = |path| target(path, Base::Step("mlnode"));
        assert_eq!(read("/rigs/gpu-1/api/v1/state"), rig("gpu-1", "/api/v1/state"));
        assert_eq!(read("/rigs/gpu-1//api//v1/state/"), rig("gpu-1", "//api//v1/state/"));
        assert_eq!(read("//rigs//gpu-1/a%252Fb/../c"), rig("gpu-1", "/a%252Fb/../c"));
        assert_eq!(read("/rigs/gpu-1/v3.0.16/readyz"), rig("gpu-1", "/v3.0.16/readyz"));
        assert_eq!(read("/v3.0.16/rigs/gpu-1/api/v1/state"), rig("gpu-1", "/v3.0.16/api/v1/state"));
        assert_eq!(read("/v3.0.16//rigs/gpu-1//x"), rig("gpu-1", "/v3.0.16//x"));
        assert_eq!(read("/rigs/gpu-1"), rig("gpu-1", "/"));
        assert_eq!(read("/rigs/"), rig("", "/"));
    }

    #[test]
    fn the_other_faces_are_told_apart() {
        let fan_out = |path: &str| Target::FanOut { path: path.to_owned() };
        let openai = |path: &str| Target::OpenAi { path: path.to_owned() };
        let own = |path: &str| Target::Own { path: path.to_owned() };
        let read = |path| target(path, Base::Step("mlnode"));
        assert_eq!(read("/mlnode/api/v1/state"), fan_out("/api/v1/state"));
        assert_eq!(read("//v3.0.16/mlnode//api/v1/state"), fan_out("/api/v1/state"));
        assert_eq!(read("/mlnode/v3.0.16/v1/models"), fan_out("/v1/models"));
        assert_eq!(read("/mlnode"), fan_out("/"));
        assert_eq!(read("/v1//chat/completions"), openai("/v1/chat/completions"));
        assert_eq!(read("/tokenize"), openai("/tokenize"));
        assert_eq!(read("/mlnodes/api/v1/state"), own("/mlnodes/api/v1/state"));
        let root = |path| target(path, Base::Root);
        assert_eq!(root("/v3.0.16/api/v1/state"), fan_out("/api/v1/state"));
        assert_eq!(root("/v1/models"), openai("/v1/models"));
        assert_eq!(root("/rigs/a/x"), rig("a", "/x"));
        assert_eq!(target("/api/v1/state", Base::Absent), own("/api/v1/state"));
    }

    proptest! {
        #[test]
        fn whatever_stands_behind_a_rig_arrives_unchanged(
            slashes in "/{1,3}", tail in "(/[!-~&&[^/]]{0,12}){0,6}",
        ) {
            let path = format!("{slashes}rigs/gpu-1{tail}");
            let expected = if tail.is_empty() { "/" } else { &tail };
            prop_assert_eq!(target(&path, Base::Root), rig("gpu-1", expected));
        }

        #[test]
        fn any_path_is_read(path in "\\PC{0,60}") {
            for base in [Base::Absent, Base::Root, Base::Step("mlnode")] {
                match target(&path, base) {
                    Target::Rig { path, .. } | Target::FanOut { path } | Target::OpenAi { path }
                    | Target::Own { path } => prop_assert!(path.starts_with('/')),
                }
            }
        }
    }
}
