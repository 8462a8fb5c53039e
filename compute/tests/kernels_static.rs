//! No GPU: every unit of the kernel table is valid WGSL, and every `.wgsl` file is used.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use naga::back::pipeline_constants::process_overrides;
use naga::valid::{Capabilities, ValidationFlags, Validator};
use roadbed_compute::kernels::{self, Binding};

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
        let constants =
            kernel.constants.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        let stage = naga::ShaderStage::Compute;
        process_overrides(&module, &info, Some((stage, kernel.entry)), &constants)
            .unwrap_or_else(|error| panic!("{}: {error}", kernel.name));
        check_bindings(kernel, &module);
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
