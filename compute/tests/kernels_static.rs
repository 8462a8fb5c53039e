//! No GPU: every unit of the kernel table is valid WGSL, within the limits of the smallest adapter, and every `.wgsl`
//! file is used.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use naga::back::pipeline_constants::process_overrides;
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use roadbed_compute::kernels::attention::{Attending, KvFormat, span_decode};
use roadbed_compute::kernels::llm::{Matmul, Method, WeightFormat};
use roadbed_compute::kernels::matvec::Activations::{F32, Q16};
use roadbed_compute::kernels::matvec::{MatvecVariant, X_ROWS_MAX};
use roadbed_compute::kernels::{self, Binding, Kernel};

const METHODS: [Method; 2] = [Method::Lane, Method::Group];

#[test]
fn every_kernel_is_valid_with_its_constants() {
    for kernel in kernels::all() {
        let module = naga::front::wgsl::parse_str(kernel.source.text).unwrap_or_else(|error| {
            panic!("{}: {}", kernel.name, error.emit_to_string(kernel.source.text))
        });
        // unpack2x16float is in every native driver; it is no f16 arithmetic.
        let capabilities = match kernel.uses_subgroups() {
            true => Capabilities::SHADER_FLOAT16_IN_FLOAT32 | Capabilities::SUBGROUP,
            false => Capabilities::SHADER_FLOAT16_IN_FLOAT32,
        };
        let info = Validator::new(ValidationFlags::all(), capabilities)
            .subgroup_stages(naga::valid::ShaderStages::COMPUTE)
            .subgroup_operations(naga::valid::SubgroupOperationSet::all())
            .validate(&module)
            .unwrap_or_else(|e| {
                panic!("{}: {}", kernel.name, e.emit_to_string(kernel.source.text))
            });
        check_bindings(kernel, &module);
        check_limits(kernel, &module, &info, &[]);
        for constants in constants_in_use(kernel) {
            check_limits(kernel, &module, &info, &constants);
        }
    }
}

/// What kernels of products and attention are given in place of their row's constants.
fn constants_in_use(kernel: &Kernel) -> Vec<Vec<(&'static str, f64)>> {
    let mut found = Vec::new();
    for (method, activations) in METHODS.into_iter().flat_map(|m| [(m, F32), (m, Q16)]) {
        for format in WeightFormat::ALL {
            let lanes = Some(32);
            let variants = MatvecVariant::candidates(method, lanes, activations, format, 8192);
            let own = variants.iter().filter(|v| v.kernel(format).name == kernel.name);
            found.extend(own.map(|v| v.constants(X_ROWS_MAX)));
            let products = Matmul::candidates(method, lanes).into_iter();
            let own = products.filter(|matmul| matmul.kernel(format).name == kernel.name);
            found.extend(own.map(|matmul| matmul.constants().to_vec()));
        }
        for (format, head) in KvFormat::ALL.into_iter().flat_map(|f| [(f, 64), (f, 512)]) {
            let attending = Attending::of(method, Some(8), head);
            if attending.kernel(format).name == kernel.name {
                found.push(attending.constants(head, span_decode(method)));
            }
        }
    }
    found
}

/// No adapter of WebGPU is too small: its smallest limits are 8 storage buffers, 256 invocations and 16 KiB of workgroup
/// memory (WebGPU, section 3.6.2, "Limits").
fn check_limits(
    kernel: &Kernel,
    module: &naga::Module,
    info: &ModuleInfo,
    constants: &[(&'static str, f64)],
) {
    let storage = kernel.bindings.iter().filter(|binding| **binding != Binding::Uniform).count();
    assert!(storage <= 8, "{}: {storage} storage buffers", kernel.name);
    let constants = kernel
        .constants
        .iter()
        .chain(constants)
        .map(|(name, value)| ((*name).to_owned(), *value))
        .collect();
    let entry = Some((naga::ShaderStage::Compute, kernel.entry));
    let (module, _) = process_overrides(module, info, entry, &constants)
        .unwrap_or_else(|error| panic!("{}: {error}", kernel.name));
    let invocations: u32 = module.entry_points.iter().flat_map(|e| e.workgroup_size).product();
    assert!(invocations <= 256, "{}: {invocations} invocations", kernel.name);
    let shared: u32 = module
        .global_variables
        .iter()
        .filter(|(_, variable)| variable.space == naga::AddressSpace::WorkGroup)
        .map(|(_, variable)| module.types[variable.ty].inner.size(module.to_ctx()))
        .sum();
    assert!(shared <= 16_384, "{}: {shared} bytes of workgroup memory", kernel.name);
}

/// `Gpu::pipeline` tells wgpu that loops end: each is a `for` that counts towards a bound.
#[test]
fn every_loop_counts_towards_a_bound() {
    let mut files = Vec::new();
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../shaders"), &mut files);
    let mut loops = 0;
    for file in files {
        for line in std::fs::read_to_string(&file).unwrap().lines() {
            let code = line.split("//").next().unwrap_or_default();
            let words: Vec<&str> = code.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
            assert!(!words.contains(&"loop") && !words.contains(&"while"), "{line}");
            if words.contains(&"for") {
                assert!(counts(code), "{}: {line}", file.display());
                loops += 1;
            }
        }
    }
    assert!(loops > 50, "{loops} loops found");
}

/// `for (var i = ..; i < ..; i++ or i += ..)`, also with something added to `i`, or `i > 0u` with `i >>= 1u`.
fn counts(code: &str) -> bool {
    let header = code.trim().strip_prefix("for (").and_then(|rest| rest.strip_suffix(") {"));
    let parts: Vec<&str> = header.unwrap_or_default().split(';').map(str::trim).collect();
    let [first, condition, step] = parts[..] else { return false };
    let Some(name) = condition.split(' ').next() else { return false };
    let starts = first.is_empty() || first.starts_with(&format!("var {name} = "));
    let rises = (condition.contains(" < ") || condition.contains(" <= "))
        && (step == format!("{name}++") || step.starts_with(&format!("{name} += ")));
    let halves = condition == format!("{name} > 0u") && step == format!("{name} >>= 1u");
    starts && (rises || halves)
}

#[test]
fn loops_that_may_not_end_are_told_from_others() {
    assert!(counts("for (var i = 0u; i < n; i++) {") && counts("  for (; i + 4u <= n; i += 4u) {"));
    for endless in
        ["for (;;) {", "for (var i = 9u; i >= 0u; i -= 1u) {", "for (var i = 0u; j < 4u; i++) {"]
    {
        assert!(!counts(endless), "{endless}");
    }
}

/// The row's bindings are those the WGSL declares, in order.
fn check_bindings(kernel: &kernels::Kernel, module: &naga::Module) {
    let mut declared: Vec<(u32, Binding)> = module
        .global_variables
        .iter()
        .filter_map(|(_, variable)| {
            let slot = variable.binding?;
            assert_eq!(slot.group, 0, "{}: only group 0 is used", kernel.name);
            let binding = match variable.space {
                naga::AddressSpace::Uniform => Binding::Uniform,
                naga::AddressSpace::Storage { access }
                    if access.contains(naga::StorageAccess::STORE) =>
                {
                    Binding::ReadWrite
                }
                naga::AddressSpace::Storage { .. } => Binding::Read,
                other => panic!("{}: unexpected address space {other:?}", kernel.name),
            };
            Some((slot.binding, binding))
        })
        .collect();
    declared.sort_by_key(|(index, _)| *index);
    let expected: Vec<(u32, Binding)> = (0..).zip(kernel.bindings.iter().copied()).collect();
    assert_eq!(declared, expected, "{}: bindings", kernel.name);
}

#[test]
fn kernel_names_are_unique() {
    let mut seen = BTreeSet::new();
    for kernel in kernels::all() {
        assert!(seen.insert(kernel.name), "{} is in the table twice", kernel.name);
        assert!(kernel.tolerance >= 0.0, "{}", kernel.name);
    }
}

#[test]
fn every_shader_file_is_in_the_table() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shaders");
    let mut present = Vec::new();
    collect(&root, &mut present);
    let used: BTreeSet<PathBuf> =
        kernels::all().flat_map(|kernel| kernel.source.files).map(|file| root.join(file)).collect();
    for file in present {
        assert!(used.contains(&file), "{} is in no row of the table", file.display());
        let lines = std::fs::read_to_string(&file).unwrap().lines().count();
        assert!(lines <= 160, "{} has {lines} lines", file.display());
    }
}

fn collect(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, into);
        } else if path.extension().is_some_and(|e| e == "wgsl") {
            into.push(path);
        }
    }
}
