//! How much memory of this machine's GPUs is taken: what a miner that is gone must have given back.

use std::path::Path;

use nvml_wrapper::Nvml;

use super::supervisor::MemoryLook;

/// A driver's own pages come and go by this much a card.
const SLACK_BYTES: u64 = 128 << 20;

/// Tells how much memory is taken.
pub trait MemoryGauge: Send {
    /// Bytes taken on each card, always in the same order; nothing where nobody tells.
    fn used(&mut self) -> Option<Vec<u64>>;
}

/// NVIDIA's library and the amdgpu driver's files, whichever is there.
#[derive(Default)]
pub struct GpuMemory {
    nvml: Option<Nvml>,
}

impl MemoryGauge for GpuMemory {
    fn used(&mut self) -> Option<Vec<u64>> {
        let mut cards = self.nvidia().unwrap_or_default();
        cards.extend(amdgpu(Path::new("/sys/class/drm")));
        (!cards.is_empty()).then_some(cards)
    }
}

impl GpuMemory {
    fn nvidia(&mut self) -> Option<Vec<u64>> {
        if self.nvml.is_none() {
            self.nvml = Nvml::init().ok();
        }
        let nvml = self.nvml.as_ref()?;
        let count = nvml.device_count().ok()?;
        (0..count)
            .map(|index| Some(nvml.device_by_index(index).ok()?.memory_info().ok()?.used))
            .collect()
    }
}

/// `cardN/device/mem_info_vram_used` (Linux `Documentation/gpu/amdgpu/driver-misc.rst`); other drivers have no such file.
fn amdgpu(folder: &Path) -> Vec<u64> {
    let Ok(entries) = std::fs::read_dir(folder) else { return vec![] };
    let is_card = |name: &str| {
        name.strip_prefix("card").is_some_and(|rest| rest.chars().all(|c| c.is_ascii_digit()))
    };
    let mut cards: Vec<(String, u64)> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok().filter(|name| is_card(name))?;
            let text =
                std::fs::read_to_string(entry.path().join("device/mem_info_vram_used")).ok()?;
            Some((name, text.trim().parse().ok()?))
        })
        .collect();
    cards.sort();
    cards.into_iter().map(|(_, used)| used).collect()
}

/// What is taken beside what was before.
pub(super) fn judge(before: Option<&[u64]>, now: Option<&[u64]>) -> MemoryLook {
    let (Some(before), Some(now)) = (before, now) else { return MemoryLook::Unknown };
    if before.len() != now.len() {
        // A card fell off the bus, or came back: nothing can be said.
        return MemoryLook::Unknown;
    }
    let more = before.iter().zip(now).map(|(before, now)| now.saturating_sub(*before));
    let bytes: u64 = more.filter(|more| *more > SLACK_BYTES).sum();
    if bytes == 0 { MemoryLook::Free } else { MemoryLook::Taken { bytes } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_judged_card_by_card() {
        const GIB: u64 = 1 << 30;
        assert_eq!(judge(Some(&[GIB, 0]), Some(&[GIB + SLACK_BYTES, 0])), MemoryLook::Free);
        let taken = judge(Some(&[GIB, 0]), Some(&[0, 5 * GIB]));
        assert_eq!(
            taken,
            MemoryLook::Taken { bytes: 5 * GIB },
            "what another card gave back is no excuse"
        );
        for (before, now) in
            [(None, Some(&[0][..])), (Some(&[0][..]), None), (Some(&[0, 0][..]), Some(&[0][..]))]
        {
            assert_eq!(judge(before, now), MemoryLook::Unknown);
        }
    }

    #[test]
    fn the_amdgpu_drivers_files_are_read() {
        let folder = tempfile::tempdir().unwrap();
        for (card, text) in [
            ("card1", Some("2048\n")),
            ("card0", Some("1024\n")),
            ("card0-DP-1", Some("7")),
            ("card2", None),
        ] {
            let device = folder.path().join(card).join("device");
            std::fs::create_dir_all(&device).unwrap();
            if let Some(text) = text {
                std::fs::write(device.join("mem_info_vram_used"), text).unwrap();
            }
        }
        assert_eq!(amdgpu(folder.path()), [1024, 2048]);
        assert!(amdgpu(&folder.path().join("none")).is_empty());
    }
}
