//! Text embeddings: encoders of BERT's kind, from a Hugging Face folder or a GGUF file, on one GPU.
//!
//! An encoder reads a text in both directions at once and keeps nothing between texts, so there is no
//! cache and no decoding. Texts of a pass lie one after the other without padding, and what a row
//! computes depends on its own text alone: a text has the same embedding, bit for bit, whatever else is
//! in its pass.
//!
//! ```text
//! ids -> words + positions + kind -> norm -> x
//! x -> qkv -> attend -> output --(+ x)--> norm -> x -> up -> activate -> down --(+ x)--> norm -> x   (every layer)
//! rows of each text -> pool [-> unit length] -> embedding
//! ```

pub(crate) mod config;
mod encoder;
mod graph;
pub mod params;
mod tensors;

pub use crate::kernels::encoder::{Activation, Pooling};
pub use config::{ARCHITECTURE, EncoderConfig};
pub use encoder::{Encoder, EncoderInfo, EncoderNeed, EncoderOptions};
