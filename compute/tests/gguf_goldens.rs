//! Our reading of every tensor type against the gguf Python package: `tests/data/gguf/README.md`.

use std::path::Path;

use roadbed_compute::gguf::TensorType;
use roadbed_compute::gguf::dequant::dequantise;

#[test]
fn every_type_decodes_as_ggml_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/gguf");
    // f32 are themselves.
    for kind in TensorType::ALL.into_iter().filter(|kind| *kind != TensorType::F32) {
        let read = |ending: &str| std::fs::read(folder.join(format!("{kind}.{ending}"))).unwrap();
        let (blocks, wanted) = (read("blocks"), read("f32"));
        let weights = dequantise(kind, &blocks);
        assert_eq!(weights.len() * 4, wanted.len(), "{kind}");
        for (i, (weight, bytes)) in weights.iter().zip(wanted.chunks_exact(4)).enumerate() {
            let want = f32::from_le_bytes(bytes.try_into().unwrap());
            assert_eq!(
                weight.to_bits(),
                want.to_bits(),
                "{kind}: [{i}] is {weight:e}, not {want:e}"
            );
        }
    }
}
