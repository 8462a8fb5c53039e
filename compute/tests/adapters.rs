//! The adapters tests run on: all of this machine's Vulkan devices.

use std::sync::{Arc, LazyLock};

use roadbed_compute::{AdapterChoice, Gpu, list_adapters};

static OPEN: LazyLock<Vec<Arc<Gpu>>> = LazyLock::new(|| {
    list_adapters()
        .iter()
        .map(|adapter| Gpu::open(&AdapterChoice::Index(adapter.index)).unwrap())
        .collect()
});

/// Every adapter, opened once. None at all is a skip that says so, or a failure where
/// `ROADBED_REQUIRE_GPU=1` promises one.
pub fn all() -> &'static [Arc<Gpu>] {
    if OPEN.is_empty() {
        let required = std::env::var("ROADBED_REQUIRE_GPU").is_ok_and(|v| v == "1");
        assert!(!required, "ROADBED_REQUIRE_GPU=1 but there is no Vulkan adapter");
        eprintln!("SKIPPED: no Vulkan adapter");
    }
    &OPEN
}
