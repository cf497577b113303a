//! Compute shaders ready to run, and the buffers that they run on.

use std::fmt;
use std::io::Cursor;
use std::sync::Arc;

use ash::prelude::VkResult;
use ash::vk;

use super::device::Device;
use super::memory::BoundBuffer;
use crate::vulkan::shaders::Shader;

const STORAGE: vk::DescriptorType = vk::DescriptorType::STORAGE_BUFFER;

/// A shader, compiled for a device; destroyed on drop.
pub(crate) struct Pipeline {
    raw: vk::Pipeline,
    layout: vk::PipelineLayout,
    set_layout: vk::DescriptorSetLayout,
    shader: &'static Shader,
    device: Arc<Device>,
}

impl Pipeline {
    /// Compiles a shader. The device's queue must compute.
    pub(crate) fn new(device: &Arc<Device>, shader: &'static Shader) -> VkResult<Self> {
        let mut pipeline = Self {
            raw: vk::Pipeline::null(),
            layout: vk::PipelineLayout::null(),
            set_layout: vk::DescriptorSetLayout::null(),
            shader,
            device: Arc::clone(device),
        };
        let functions = device.raw();
        let bindings: Vec<_> = (0..shader.bindings())
            .map(|binding| {
                vk::DescriptorSetLayoutBinding::default()
                    .binding(binding)
                    .descriptor_type(STORAGE)
                    .descriptor_count(1)
                    .stage_flags(vk::ShaderStageFlags::COMPUTE)
            })
            .collect();
        let information = vk::DescriptorSetLayoutCreateInfo::default().bindings(&bindings);
        // SAFETY: the structures live through the call; so in every function here.
        pipeline.set_layout = unsafe { functions.create_descriptor_set_layout(&information, None) }?;
        let set_layouts = [pipeline.set_layout];
        let constants = [vk::PushConstantRange {
            stage_flags: vk::ShaderStageFlags::COMPUTE,
            offset: 0,
            size: shader.immediates() * 4,
        }];
        let information = vk::PipelineLayoutCreateInfo::default()
            .set_layouts(&set_layouts)
            .push_constant_ranges(&constants);
        // SAFETY: as above.
        pipeline.layout = unsafe { functions.create_pipeline_layout(&information, None) }?;
        pipeline.raw = pipeline.compile()?;
        Ok(pipeline)
    }

    fn compile(&self) -> VkResult<vk::Pipeline> {
        let functions = self.device.raw();
        let words = ash::util::read_spv(&mut Cursor::new(self.shader.spirv()))
            .map_err(|_| vk::Result::ERROR_INVALID_SHADER_NV)?;
        let information = vk::ShaderModuleCreateInfo::default().code(&words);
        // SAFETY: as above; the code is a translator's output, which a test compares.
        let module = unsafe { functions.create_shader_module(&information, None) }?;
        let stage = vk::PipelineShaderStageCreateInfo::default()
            .stage(vk::ShaderStageFlags::COMPUTE)
            .module(module)
            .name(self.shader.entry());
        let information = vk::ComputePipelineCreateInfo::default().stage(stage).layout(self.layout);
        // SAFETY: as above; the layout has what the shader declares.
        let made =
            unsafe { functions.create_compute_pipelines(vk::PipelineCache::null(), &[information], None) };
        // SAFETY: a pipeline does not need its module once it is made.
        unsafe { functions.destroy_shader_module(module, None) };
        let made = made.map_err(|(_, code)| code)?;
        made.first().copied().ok_or(vk::Result::ERROR_UNKNOWN)
    }

    pub(crate) fn device(&self) -> &Arc<Device> {
        &self.device
    }

    /// What it was made of.
    pub(crate) fn shader(&self) -> &'static Shader {
        self.shader
    }

    pub(super) fn raw(&self) -> vk::Pipeline {
        self.raw
    }

    pub(super) fn layout(&self) -> vk::PipelineLayout {
        self.layout
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        let functions = self.device.raw();
        // SAFETY: nobody else has the handles, and no work uses them: recorded work holds the pipeline. Null is ignored.
        unsafe {
            functions.destroy_pipeline(self.raw, None);
            functions.destroy_pipeline_layout(self.layout, None);
            functions.destroy_descriptor_set_layout(self.set_layout, None);
        }
    }
}

impl fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pipeline").field(&self.shader.entry()).finish()
    }
}

/// A piece of a buffer that a shader sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    /// In bytes; a multiple of the device's `minStorageBufferOffsetAlignment`.
    pub(crate) offset: u64,
    /// In bytes; not more than the device's `maxStorageBufferRange`.
    pub(crate) length: u64,
}

/// The buffers that a pipeline runs on.
pub(crate) struct Bindings {
    raw: vk::DescriptorSet,
    pool: vk::DescriptorPool,
    bound: Vec<Option<Arc<BoundBuffer>>>,
    pipeline: Arc<Pipeline>,
}

impl Bindings {
    /// Makes room for the buffers that a shader works on, none of which is bound yet.
    pub(crate) fn new(pipeline: &Arc<Pipeline>) -> VkResult<Self> {
        let functions = pipeline.device.raw();
        let count = pipeline.shader.bindings();
        let sizes = [vk::DescriptorPoolSize { ty: STORAGE, descriptor_count: count }];
        let information = vk::DescriptorPoolCreateInfo::default().max_sets(1).pool_sizes(&sizes);
        // SAFETY: the structures live through the call.
        let pool = unsafe { functions.create_descriptor_pool(&information, None) }?;
        let mut bindings = Self {
            raw: vk::DescriptorSet::null(),
            pool,
            bound: vec![None; count as usize],
            pipeline: Arc::clone(pipeline),
        };
        let layouts = [pipeline.set_layout];
        let information =
            vk::DescriptorSetAllocateInfo::default().descriptor_pool(pool).set_layouts(&layouts);
        // SAFETY: as above; the pool has room for this one set.
        let sets = unsafe { functions.allocate_descriptor_sets(&information) }?;
        bindings.raw = sets.first().copied().ok_or(vk::Result::ERROR_OUT_OF_POOL_MEMORY)?;
        Ok(bindings)
    }

    /// Binds a piece of a buffer. What the device cannot do answers `ERROR_FEATURE_NOT_PRESENT`.
    pub(crate) fn bind(&mut self, binding: u32, buffer: &Arc<BoundBuffer>, window: Window) -> VkResult<()> {
        let limits = self.pipeline.device.limits();
        let possible = Arc::ptr_eq(buffer.device(), &self.pipeline.device)
            && buffer.usage().contains(vk::BufferUsageFlags::STORAGE_BUFFER)
            && window.offset.is_multiple_of(limits.min_storage_buffer_offset_alignment.max(1))
            && (1..=u64::from(limits.max_storage_buffer_range)).contains(&window.length)
            && window.offset.checked_add(window.length).is_some_and(|end| end <= buffer.size());
        let Some(bound) = self.bound.get_mut(binding as usize).filter(|_| possible) else {
            return Err(vk::Result::ERROR_FEATURE_NOT_PRESENT);
        };
        let piece =
            [vk::DescriptorBufferInfo { buffer: buffer.raw(), offset: window.offset, range: window.length }];
        let write = vk::WriteDescriptorSet::default()
            .dst_set(self.raw)
            .dst_binding(binding)
            .descriptor_type(STORAGE)
            .buffer_info(&piece);
        // SAFETY: the set has this binding, and no work uses it: recorded work shares `self`, which is borrowed alone.
        unsafe { self.pipeline.device.raw().update_descriptor_sets(&[write], &[]) };
        *bound = Some(Arc::clone(buffer));
        Ok(())
    }

    /// Whether each binding has a buffer.
    pub(super) fn are_complete(&self) -> bool {
        self.bound.iter().all(Option::is_some)
    }

    pub(super) fn pipeline(&self) -> &Pipeline {
        &self.pipeline
    }

    pub(super) fn raw(&self) -> vk::DescriptorSet {
        self.raw
    }
}

impl Drop for Bindings {
    fn drop(&mut self) {
        // SAFETY: nobody else has the handles, and no work uses them: recorded work holds the bindings.
        unsafe { self.pipeline.device.raw().destroy_descriptor_pool(self.pool, None) };
    }
}

impl fmt::Debug for Bindings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bindings").field("pipeline", &self.pipeline).field("bound", &self.bound).finish()
    }
}
