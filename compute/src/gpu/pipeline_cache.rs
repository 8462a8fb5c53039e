//! Compiled pipelines on disk, where wgpu offers it: the driver's own format behind a digest.
//!
//! Many desktop drivers keep a cache of their own; others compile every kernel at every start. wgpu
//! checks that the data are this device's and this driver's, but not that they are whole, hence the
//! digest. What does not fit is forgotten, and compiling fills the file again.

use sha2::{Digest as _, Sha256};

use super::store::AdapterStore;

/// Ending of the file.
const FILE: &str = "pipelines";
/// Kernels of a hundred models; what outgrows it holds mostly those of former versions.
const BYTES_MAX: usize = 64 << 20;
const DIGEST_BYTES: usize = 32;

/// The cache of an open device and the file it is kept in.
pub(super) struct PipelineCache {
    raw: wgpu::PipelineCache,
    store: AdapterStore,
    /// Digest of what the file holds.
    kept: [u8; DIGEST_BYTES],
}

impl PipelineCache {
    /// Opens the cache of a device; `None` where the device has none.
    pub fn open(device: &wgpu::Device, store: &AdapterStore) -> Option<Self> {
        if !device.features().contains(wgpu::Features::PIPELINE_CACHE) {
            return None;
        }
        let file = store.read(FILE, (BYTES_MAX + DIGEST_BYTES) as u64);
        let kept = file.as_deref().and_then(|file| {
            let data = unseal(file);
            if data.is_none() {
                store.passed_over(FILE, "it is damaged");
            }
            data
        });
        let from_file = kept.and_then(|data| match create(device, Some(data)) {
            Ok(raw) => Some((raw, digest(data))),
            Err(error) => {
                store.passed_over(FILE, &error.to_string());
                None
            }
        });
        let (raw, kept) = match from_file {
            Some(opened) => opened,
            None => match create(device, None) {
                Ok(raw) => (raw, [0; DIGEST_BYTES]),
                Err(error) => {
                    tracing::warn!(%error, "no pipeline cache");
                    return None;
                }
            },
        };
        Some(Self { raw, store: store.clone(), kept })
    }

    pub fn raw(&self) -> &wgpu::PipelineCache {
        &self.raw
    }

    /// Writes the file if there is anything new to it.
    pub fn keep(&mut self) {
        let Some(data) = self.raw.get_data() else { return };
        let digest = digest(&data);
        if digest == self.kept {
            return;
        }
        self.kept = digest;
        if data.len() > BYTES_MAX {
            tracing::info!(
                bytes = data.len(),
                "the pipeline cache has grown too large: begun anew"
            );
            self.store.remove(FILE);
            return;
        }
        self.store.write(FILE, &seal(&data, digest));
    }
}

#[expect(unsafe_code, reason = "the driver trusts the data of its cache")]
fn create(
    device: &wgpu::Device,
    data: Option<&[u8]>,
) -> Result<wgpu::PipelineCache, Box<wgpu::Error>> {
    let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
    // SAFETY: the data are what `get_data` gave for this adapter and driver: the digest says that they
    // are whole, wgpu's header whose they are, and only the file's owner may write it.
    let raw = unsafe {
        device.create_pipeline_cache(&wgpu::PipelineCacheDescriptor {
            label: Some("pipelines"),
            data,
            fallback: false,
        })
    };
    match pollster::block_on(scope.pop()) {
        Some(error) => Err(Box::new(error)),
        None => Ok(raw),
    }
}

fn digest(data: &[u8]) -> [u8; DIGEST_BYTES] {
    Sha256::digest(data).into()
}

fn seal(data: &[u8], digest: [u8; DIGEST_BYTES]) -> Vec<u8> {
    [&digest[..], data].concat()
}

fn unseal(file: &[u8]) -> Option<&[u8]> {
    let (digest_of_data, data) = file.split_at_checked(DIGEST_BYTES)?;
    (digest_of_data == digest(data)).then_some(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_seen() {
        let sealed = seal(b"pipelines", digest(b"pipelines"));
        assert_eq!(unseal(&sealed), Some(&b"pipelines"[..]));
        assert_eq!(unseal(&sealed[..sealed.len() - 1]), None);
        assert_eq!(unseal(&sealed[..9]), None);
        for at in [0, 31, 32, sealed.len() - 1] {
            let mut damaged = sealed.clone();
            damaged[at] ^= 1;
            assert_eq!(unseal(&damaged), None, "byte {at}");
        }
    }
}
