//! Integration tests of the compute crate: kernels against their twins, models against vectors.

#[cfg(test)]
mod adapters;
#[cfg(test)]
mod attention_equal;
#[cfg(test)]
mod batching;
#[cfg(test)]
mod config_hostile;
#[cfg(test)]
mod decode;
#[cfg(test)]
mod device_lost;
#[cfg(test)]
mod embeddings;
#[cfg(test)]
mod encoder_equal;
#[cfg(test)]
mod folders;
#[cfg(test)]
mod gguf_goldens;
#[cfg(test)]
mod gguf_hostile;
#[cfg(test)]
mod gonka_primitives;
#[cfg(test)]
mod greedy;
#[cfg(test)]
mod hash_equal;
#[cfg(test)]
mod hugging_face;
#[cfg(test)]
mod kernels_equal;
#[cfg(test)]
mod kernels_static;
#[cfg(test)]
mod layers_equal;
#[cfg(test)]
mod llama_cpp;
#[cfg(test)]
mod loading;
#[cfg(test)]
mod matvec_equal;
#[cfg(test)]
mod models;
#[cfg(test)]
mod pipelines;
#[cfg(test)]
mod proof;
#[cfg(test)]
mod quantised;
#[cfg(test)]
mod random;
#[cfg(test)]
mod requantised;
#[cfg(test)]
mod several_cards;
#[cfg(test)]
mod template_goldens;
#[cfg(test)]
mod text;
#[cfg(test)]
mod tiny_encoders;
#[cfg(test)]
mod tiny_families;
#[cfg(test)]
mod tiny_language;
#[cfg(test)]
mod tiny_models;
#[cfg(test)]
mod tokenizer_goldens;
#[cfg(test)]
mod tokenizer_hostile;
#[cfg(test)]
mod top_equal;
#[cfg(test)]
mod tuning;
#[cfg(test)]
mod weights_exact;
