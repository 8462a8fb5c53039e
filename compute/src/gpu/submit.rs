//! Encoding, submitting and reading back, always with a timeout.

use std::sync::mpsc;
use std::time::Duration;

use super::{Gpu, GpuError, Pipeline, SUBMIT_TIMEOUT};

/// A host-visible buffer, kept and reused, through which results come back.
pub struct Readback {
    buffer: wgpu::Buffer,
    capacity_bytes: u64,
}

/// Results on their way.
pub struct PendingRead<'r> {
    readback: &'r Readback,
    index: wgpu::SubmissionIndex,
    /// Rounded up to what may be copied.
    size: u64,
    bytes: u64,
    mapped: mpsc::Receiver<Result<(), wgpu::BufferAsyncError>>,
}

impl Gpu {
    #[must_use]
    pub fn encoder(&self, what: &str) -> wgpu::CommandEncoder {
        self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some(what) })
    }

    /// Adds one dispatch to a pass.
    pub fn dispatch(
        pass: &mut wgpu::ComputePass<'_>,
        pipeline: &Pipeline,
        bind_group: &wgpu::BindGroup,
        workgroups: [u32; 3],
    ) {
        pass.set_pipeline(pipeline.raw());
        pass.set_bind_group(0, bind_group, &[]);
        pass.dispatch_workgroups(workgroups[0], workgroups[1], workgroups[2]);
    }

    /// Submits and waits until the GPU is done.
    pub fn run(&self, encoder: wgpu::CommandEncoder, what: &str) -> Result<(), GpuError> {
        let index = self.submit(encoder, what)?;
        self.wait(index, what, SUBMIT_TIMEOUT)
    }

    /// Sends pending writes on their way and waits for them.
    pub fn flush(&self, what: &str) -> Result<(), GpuError> {
        let index = self.queue.submit([]);
        self.wait(index, what, SUBMIT_TIMEOUT)
    }

    /// Submits without waiting.
    pub fn submit(
        &self,
        encoder: wgpu::CommandEncoder,
        what: &str,
    ) -> Result<wgpu::SubmissionIndex, GpuError> {
        let commands = encoder.finish();
        let index = self.queue.submit([commands]);
        self.check(what)?;
        Ok(index)
    }

    /// Waits for a submission, at most `timeout`.
    pub fn wait(
        &self,
        index: wgpu::SubmissionIndex,
        what: &str,
        timeout: Duration,
    ) -> Result<(), GpuError> {
        let polled = self
            .device
            .poll(wgpu::PollType::Wait { submission_index: Some(index), timeout: Some(timeout) });
        // A lost device also ends the wait; its reason tells more than the poll's.
        self.check(what)?;
        match polled {
            Ok(_) => Ok(()),
            Err(wgpu::PollError::Timeout) => {
                Err(GpuError::Timeout { what: what.to_owned(), waited: timeout })
            }
            Err(wgpu::PollError::WrongSubmissionIndex(..)) => {
                // Submissions to a device that is gone are not counted. The callback that tells
                // why runs while polling.
                let _ = self.device.poll(wgpu::PollType::Poll);
                self.check(what)?;
                Err(GpuError::Lost {
                    what: what.to_owned(),
                    reason: "the driver does not know the submission".to_owned(),
                })
            }
        }
    }

    /// A reusable read-back buffer of `bytes`.
    pub fn readback(&self, what: &str, bytes: u64) -> Result<Readback, GpuError> {
        let buffer =
            self.buffer(what, bytes, wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST)?;
        Ok(Readback { capacity_bytes: buffer.size(), buffer })
    }

    /// Ends `encoder` with a copy of `bytes` from `source`, submits, waits, and returns the bytes.
    pub fn run_and_read(
        &self,
        encoder: wgpu::CommandEncoder,
        source: &wgpu::Buffer,
        offset_bytes: u64,
        bytes: u64,
        readback: &Readback,
        what: &str,
    ) -> Result<Vec<u8>, GpuError> {
        let read = self.submit_and_map(encoder, source, offset_bytes, bytes, readback, what)?;
        self.wait_and_read(&read, what)
    }

    /// The first half of [`Self::run_and_read`]: everything but waiting.
    pub fn submit_and_map<'r>(
        &self,
        mut encoder: wgpu::CommandEncoder,
        source: &wgpu::Buffer,
        offset_bytes: u64,
        bytes: u64,
        readback: &'r Readback,
        what: &str,
    ) -> Result<PendingRead<'r>, GpuError> {
        let size = bytes.next_multiple_of(wgpu::COPY_BUFFER_ALIGNMENT);
        if size > readback.capacity_bytes {
            return Err(GpuError::Limit {
                what: what.to_owned(),
                needed_bytes: size,
                limit_bytes: readback.capacity_bytes,
                limit: "read-back buffer",
            });
        }
        encoder.copy_buffer_to_buffer(source, offset_bytes, &readback.buffer, 0, size);
        let index = self.submit(encoder, what)?;
        let slice = readback.buffer.slice(0..size);
        let (sender, mapped) = mpsc::channel();
        slice.map_async(wgpu::MapMode::Read, move |result| {
            // If nobody waits for it, nobody wants the answer.
            let _ = sender.send(result);
        });
        Ok(PendingRead { readback, index, size, bytes, mapped })
    }

    /// The second half of [`Self::run_and_read`].
    pub fn wait_and_read(&self, read: &PendingRead<'_>, what: &str) -> Result<Vec<u8>, GpuError> {
        self.wait(read.index.clone(), what, SUBMIT_TIMEOUT)?;
        let refused = |reason: String| GpuError::Refused { what: what.to_owned(), reason };
        match read.mapped.recv_timeout(SUBMIT_TIMEOUT) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(refused(error.to_string())),
            Err(_) => {
                return Err(GpuError::Timeout { what: what.to_owned(), waited: SUBMIT_TIMEOUT });
            }
        }
        let buffer = &read.readback.buffer;
        let data = {
            let slice = buffer.slice(0..read.size);
            let view = slice.get_mapped_range().map_err(|error| refused(error.to_string()))?;
            view[..usize::try_from(read.bytes).unwrap_or(usize::MAX)].to_vec()
        };
        buffer.unmap();
        Ok(data)
    }

    /// Reads a buffer once, with a throw-away read-back buffer; for tests and rare results.
    pub fn read(&self, source: &wgpu::Buffer, bytes: u64, what: &str) -> Result<Vec<u8>, GpuError> {
        let readback = self.readback(what, bytes)?;
        self.run_and_read(self.encoder(what), source, 0, bytes, &readback, what)
    }
}
