//! The one table of kernels: name, WGSL parts, entry point, bindings, constants, tolerance.
//!
//! Nothing else names a shader file. A unit is *prelude + shared functions + kernel*, joined at
//! compile time; WGSL has no order of declaration, so every part opens cleanly in an editor. The
//! rows live in one file per subject and meet in [`all`], which the static tests walk: each unit is
//! parsed and validated, its constants are resolved, and a `.wgsl` file in no row is an error.

pub mod attention;
pub mod encoder;
pub mod hash;
pub mod llm;
pub mod matvec;
pub mod poc;
pub mod top;

/// WGSL text joined from files under `shaders/`.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    /// Paths relative to `shaders/`, in the order they were joined.
    pub files: &'static [&'static str],
    pub text: &'static str,
}

/// Joins files of `shaders/` into one [`Source`] at compile time.
#[macro_export]
macro_rules! wgsl {
    ($($file:literal),+ $(,)?) => {
        $crate::kernels::Source {
            files: &[$($file),+],
            text: concat!($(
                include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../shaders/", $file)), "\n"
            ),+),
        }
    };
}

/// What a kernel sees at `@group(0) @binding(i)`, i being the position in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Binding {
    /// `var<uniform>`.
    Uniform,
    /// `var<storage, read>`.
    Read,
    /// `var<storage, read_write>`.
    ReadWrite,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Kernel {
    pub name: &'static str,
    pub source: Source,
    pub entry: &'static str,
    pub bindings: &'static [Binding],
    /// `override` constants and their default values; a pipeline may replace them.
    pub constants: &'static [(&'static str, f64)],
    /// Largest accepted |kernel - twin|, relative to the twin's scale (see [`Kernel::accepts`]).
    pub tolerance: f32,
}

impl Kernel {
    /// True if the adapter must offer subgroups for this kernel.
    #[must_use]
    pub fn uses_subgroups(&self) -> bool {
        ["subgroupShuffleXor(", "subgroupBroadcast("]
            .iter()
            .any(|name| self.source.text.contains(name))
    }

    /// True if `actual` is close enough to the twin's `expected`: the absolute difference is at most
    /// `tolerance * max(1, scale)`, scale being the largest magnitude of the expected result.
    #[must_use]
    pub fn accepts(&self, actual: f32, expected: f32, scale: f32) -> bool {
        (actual - expected).abs() <= self.tolerance * scale.max(1.0)
    }
}

/// Every kernel there is.
pub fn all() -> impl Iterator<Item = &'static Kernel> {
    llm::kernels()
        .chain(attention::kernels())
        .chain(encoder::kernels())
        .chain(matvec::kernels())
        .chain(top::kernels())
        .chain(poc::KERNELS.iter())
        .chain(hash::KERNELS.iter())
}

/// Finds a kernel by name; for tests and tools.
#[must_use]
pub fn find(name: &str) -> Option<&'static Kernel> {
    all().find(|kernel| kernel.name == name)
}
