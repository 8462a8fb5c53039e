//! Pipelines from rows of the kernel table, and the bind groups that fit them.

use std::sync::{Arc, OnceLock};

use super::{Gpu, GpuError, lock};
use crate::kernels::{Binding, Kernel};

/// What makes two pipelines the same: the kernel's name and its constants' bits.
pub(super) type Key = (&'static str, Vec<(&'static str, u64)>);

/// A kernel with its constants, planned or compiled.
pub struct Pipeline {
    raw: OnceLock<wgpu::ComputePipeline>,
    layout: wgpu::BindGroupLayout,
    kernel: &'static Kernel,
    constants: Vec<(&'static str, f64)>,
}

impl Pipeline {
    #[must_use]
    pub fn kernel(&self) -> &'static Kernel {
        self.kernel
    }

    pub(super) fn is_compiled(&self) -> bool {
        self.raw.get().is_some()
    }

    pub(super) fn raw(&self) -> &wgpu::ComputePipeline {
        self.raw
            .get()
            .expect("planned pipelines go through Gpu::compile before anything is dispatched")
    }
}

/// A kernel's text with every check but that its loops end: counting their turns keeps compilers from unrolling them
/// and from asking for what a later turn reads.
#[expect(unsafe_code, reason = "wgpu cannot know that loops end")]
fn module(device: &wgpu::Device, kernel: &Kernel) -> wgpu::ShaderModule {
    let descriptor = wgpu::ShaderModuleDescriptor {
        label: Some(kernel.name),
        source: wgpu::ShaderSource::Wgsl(kernel.source.text.into()),
    };
    let checks = wgpu::ShaderRuntimeChecks {
        force_loop_bounding: false,
        ..wgpu::ShaderRuntimeChecks::checked()
    };
    // SAFETY: kernels are texts of this program, none from outside. Each of their loops counts towards a bound
    // that does not change in it; `kernels_static` holds them to that form. Memory accesses stay checked.
    unsafe { device.create_shader_module_trusted(descriptor, checks) }
}

impl Gpu {
    /// Compiles `kernel`, once per set of constants. `constants` replace defaults of the same name.
    pub fn pipeline(
        &self,
        kernel: &'static Kernel,
        constants: &[(&'static str, f64)],
    ) -> Result<Arc<Pipeline>, GpuError> {
        let pipeline = self.planned(kernel, constants)?;
        if !pipeline.is_compiled() {
            self.compile_one(&pipeline)?;
        }
        Ok(pipeline)
    }

    /// As [`Self::pipeline`], left to a later [`Self::compile`]; buffers can be bound to it already.
    pub fn planned(
        &self,
        kernel: &'static Kernel,
        constants: &[(&'static str, f64)],
    ) -> Result<Arc<Pipeline>, GpuError> {
        let mut values: Vec<(&'static str, f64)> = kernel.constants.to_vec();
        for (name, value) in constants {
            match values.iter_mut().find(|(known, _)| known == name) {
                Some(slot) => slot.1 = *value,
                None => values.push((name, *value)),
            }
        }
        let key: Key = (kernel.name, values.iter().map(|(n, v)| (*n, v.to_bits())).collect());
        if let Some(found) = lock(&self.pipelines).get(&key) {
            return Ok(Arc::clone(found));
        }
        let layout = self.layout(kernel)?;
        let pipeline =
            Arc::new(Pipeline { raw: OnceLock::new(), layout, kernel, constants: values });
        Ok(Arc::clone(lock(&self.pipelines).entry(key).or_insert(pipeline)))
    }

    pub(super) fn compile_one(&self, pipeline: &Pipeline) -> Result<(), GpuError> {
        let kernel = pipeline.kernel;
        let cache = lock(&self.cache).as_ref().map(|cache| cache.raw().clone());
        let compiled = self.scoped(&format!("kernel {}", kernel.name), || {
            let module = module(&self.device, kernel);
            let pipeline_layout =
                self.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                    label: Some(kernel.name),
                    bind_group_layouts: &[Some(&pipeline.layout)],
                    immediate_size: 0,
                });
            self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(kernel.name),
                layout: Some(&pipeline_layout),
                module: &module,
                entry_point: Some(kernel.entry),
                compilation_options: wgpu::PipelineCompilationOptions {
                    constants: &pipeline.constants,
                    // Every kernel writes its workgroup memory before it reads it.
                    zero_initialize_workgroup_memory: false,
                },
                cache: cache.as_ref(),
            })
        })?;
        // Another thread may have been as quick; either pipeline does.
        let _ = pipeline.raw.set(compiled);
        Ok(())
    }

    /// One layout per signature, so that a bind group fits every kernel with the same bindings.
    fn layout(&self, kernel: &Kernel) -> Result<wgpu::BindGroupLayout, GpuError> {
        let signature = kernel.bindings.to_vec();
        if let Some(found) = lock(&self.layouts).get(&signature) {
            return Ok(found.clone());
        }
        let entries: Vec<wgpu::BindGroupLayoutEntry> = kernel
            .bindings
            .iter()
            .zip(0_u32..)
            .map(|(binding, index)| wgpu::BindGroupLayoutEntry {
                binding: index,
                visibility: wgpu::ShaderStages::COMPUTE,
                ty: wgpu::BindingType::Buffer {
                    ty: match binding {
                        Binding::Uniform => wgpu::BufferBindingType::Uniform,
                        Binding::Read => wgpu::BufferBindingType::Storage { read_only: true },
                        Binding::ReadWrite => wgpu::BufferBindingType::Storage { read_only: false },
                    },
                    has_dynamic_offset: false,
                    min_binding_size: None,
                },
                count: None,
            })
            .collect();
        let layout = self.scoped(kernel.name, || {
            self.device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
                label: Some(kernel.name),
                entries: &entries,
            })
        })?;
        lock(&self.layouts).insert(signature, layout.clone());
        Ok(layout)
    }

    /// Binds whole buffers to a pipeline, in the order of its table row. Keep the result: making one
    /// costs more than a dispatch.
    pub fn bind(
        &self,
        pipeline: &Pipeline,
        buffers: &[&wgpu::Buffer],
    ) -> Result<wgpu::BindGroup, GpuError> {
        let entries: Vec<wgpu::BindGroupEntry<'_>> = buffers
            .iter()
            .zip(0_u32..)
            .map(|(buffer, index)| wgpu::BindGroupEntry {
                binding: index,
                resource: buffer.as_entire_binding(),
            })
            .collect();
        self.scoped(&format!("buffers of kernel {}", pipeline.kernel.name), || {
            self.device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some(pipeline.kernel.name),
                layout: &pipeline.layout,
                entries: &entries,
            })
        })
    }
}
