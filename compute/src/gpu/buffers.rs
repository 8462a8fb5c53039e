//! Buffers: sized against the adapter's limits before wgpu sees them.

use wgpu::BufferUsages;

use super::{Gpu, GpuError, lock};

/// wgpu wants copies and mappings in multiples of four bytes.
const COPY_ALIGNMENT_BYTES: u64 = wgpu::COPY_BUFFER_ALIGNMENT;

/// Constants that are shared: a model has a few dozen, and a card sees few models between two starts.
const CONSTANTS_MAX: usize = 4096;

impl Gpu {
    /// A zeroed storage buffer of `bytes`, rounded up to four, that can be copied to and from.
    pub fn storage(&self, what: &str, bytes: u64) -> Result<wgpu::Buffer, GpuError> {
        self.buffer(
            what,
            bytes,
            BufferUsages::STORAGE | BufferUsages::COPY_SRC | BufferUsages::COPY_DST,
        )
    }

    /// A storage buffer that holds `data`.
    pub fn storage_with(&self, what: &str, data: &[u8]) -> Result<wgpu::Buffer, GpuError> {
        let buffer = self.storage(what, data.len() as u64)?;
        self.write(&buffer, 0, data);
        Ok(buffer)
    }

    /// A uniform buffer that holds `params` (size rounded up to 16 bytes).
    pub fn uniform<T: bytemuck::NoUninit>(
        &self,
        what: &str,
        params: &T,
    ) -> Result<wgpu::Buffer, GpuError> {
        let data = bytemuck::bytes_of(params);
        let buffer = self.buffer(
            what,
            (data.len() as u64).next_multiple_of(16),
            BufferUsages::UNIFORM | BufferUsages::COPY_DST,
        )?;
        self.write(&buffer, 0, data);
        Ok(buffer)
    }

    /// A uniform buffer that holds `params` for good: equal ones are one buffer, since wgpu looks after
    /// every buffer of every submission. Never written again.
    pub fn constant<T: bytemuck::NoUninit>(
        &self,
        what: &str,
        params: &T,
    ) -> Result<wgpu::Buffer, GpuError> {
        let data = bytemuck::bytes_of(params);
        if let Some(known) = lock(&self.constants).get(data) {
            return Ok(known.clone());
        }
        let buffer = self.uniform(what, params)?;
        let mut constants = lock(&self.constants);
        if constants.len() < CONSTANTS_MAX {
            constants.insert(data.to_vec(), buffer.clone());
        }
        Ok(buffer)
    }

    /// A buffer of any usage.
    pub fn buffer(
        &self,
        what: &str,
        bytes: u64,
        usage: BufferUsages,
    ) -> Result<wgpu::Buffer, GpuError> {
        let size = bytes.max(1).next_multiple_of(COPY_ALIGNMENT_BYTES);
        let over = |limit_bytes: u64, limit: &'static str| GpuError::Limit {
            what: what.to_owned(),
            needed_bytes: size,
            limit_bytes,
            limit,
        };
        if size > self.limits.max_buffer_size {
            return Err(over(self.limits.max_buffer_size, "max_buffer_size"));
        }
        let binding_limit = self.limits.max_storage_buffer_binding_size;
        if usage.contains(BufferUsages::STORAGE) && size > binding_limit {
            return Err(over(binding_limit, "max_storage_buffer_binding_size"));
        }
        self.scoped(what, || {
            self.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some(what),
                size,
                usage,
                mapped_at_creation: false,
            })
        })
    }

    /// Writes `data` at `offset_bytes` (a multiple of four) before the next submission; a ragged tail
    /// is padded with zeros.
    pub fn write(&self, buffer: &wgpu::Buffer, offset_bytes: u64, data: &[u8]) {
        let aligned = data.len() - data.len() % COPY_ALIGNMENT_BYTES as usize;
        let (body, tail) = data.split_at(aligned);
        if !body.is_empty() {
            self.queue.write_buffer(buffer, offset_bytes, body);
        }
        if !tail.is_empty() {
            let mut word = [0_u8; COPY_ALIGNMENT_BYTES as usize];
            word[..tail.len()].copy_from_slice(tail);
            self.queue.write_buffer(buffer, offset_bytes + aligned as u64, &word);
        }
    }
}
