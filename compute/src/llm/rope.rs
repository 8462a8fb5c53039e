//! Rotary positions: how fast each pair of a head turns, and the ways to stretch a model's context.
//!
//! Pair i turns by `position * base^(-2i / dimensions)`. A model made to read further than it was first
//! trained for turns its slow pairs slower: by one factor (linear), by a factor per pair (Llama 3.1,
//! a tensor of the file), or by a factor that fades out towards the fast pairs (YaRN, arXiv 2309.00071).
//! The angles are computed here once, in f64: sines in shaders are not exact enough.

use std::f64::consts::TAU;

use crate::gguf::Metadata;

use super::architecture::Architecture;
use super::error::EngineError;

/// Factors beyond this are no stretched context but nonsense.
const FACTOR_MAX: f64 = 65_536.0;
const CONTEXT_MAX: usize = 1 << 24;

/// How the heads of a layer turn.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Floats of a head that turn.
    pub dimensions: usize,
    pub base: f64,
    /// Positions are divided by this.
    pub factor: f64,
    pub yarn: Option<Yarn>,
    /// Turned pairs are multiplied by this.
    pub magnitude: f64,
}

/// Where YaRN's division by the factor fades out.
#[derive(Clone, Debug, PartialEq)]
pub struct Yarn {
    /// Context before it was stretched.
    pub context_tokens: usize,
    /// Turns within that context above which a pair is left alone, and below which it is divided whole.
    pub beta_fast: f64,
    pub beta_slow: f64,
    /// How much of the fading applies; 1.
    pub extrapolation: f64,
}

fn unsupported(reason: impl Into<String>) -> EngineError {
    EngineError::UnsupportedModel { reason: reason.into() }
}

impl Rope {
    /// Reads the rotations of a model whose heads have `head` floats. Keys and defaults: llama.cpp,
    /// `llama_model_base::load_hparams` and, for YaRN's magnitude, the constructor of `llama_context`.
    pub fn from_metadata(
        metadata: &Metadata,
        architecture: Architecture,
        head: usize,
        context_tokens: usize,
    ) -> Result<Self, EngineError> {
        let key = |name: &str| format!("{}.rope.{name}", architecture.word());
        let float = |name: &str, default: f64| {
            metadata.float(&key(name)).map(|found| found.unwrap_or(default))
        };
        let dimensions = metadata.count(&key("dimension_count"))?.unwrap_or(head);
        let base = float("freq_base", 10_000.0)?;
        // 0 is how some files say "none".
        let factor = match float("scaling.factor", float("scale_linear", 0.0)?)? {
            0.0 => 1.0,
            factor => factor,
        };
        let attention = float("scaling.attn_factor", 1.0)?;
        let kind = metadata.string(&key("scaling.type"))?;
        let (factor, yarn, magnitude) = match kind {
            Some("none") => (1.0, None, attention),
            // Llama 3.1's factors are in the tensor rope_freqs.weight, whatever the type says.
            None | Some("linear" | "llama3") => (factor, None, attention),
            Some("yarn") => {
                let yarn = Yarn {
                    context_tokens: metadata
                        .count(&key("scaling.original_context_length"))?
                        .unwrap_or(context_tokens),
                    beta_fast: float("scaling.yarn_beta_fast", 32.0)?,
                    beta_slow: float("scaling.yarn_beta_slow", 1.0)?,
                    extrapolation: match float("scaling.yarn_ext_factor", 1.0)? {
                        given if given < 0.0 => 1.0,
                        given => given,
                    },
                };
                // Without fading there is nothing to sharpen again.
                let own = match yarn.extrapolation == 0.0 {
                    true => 1.0,
                    false => yarn_magnitude(factor),
                };
                (factor, Some(yarn), own * attention)
            }
            Some(other) => {
                return Err(unsupported(format!(
                    "rope scaling '{other}'; linear, llama3 and yarn are known"
                )));
            }
        };
        let rope = Self { dimensions, base, factor, yarn, magnitude };
        rope.check(head)?;
        Ok(rope)
    }

    /// Unstretched rotations about another base: layers that see only near positions.
    pub fn local(&self, base: f64, head: usize) -> Result<Self, EngineError> {
        let local =
            Self { dimensions: self.dimensions, base, factor: 1.0, yarn: None, magnitude: 1.0 };
        local.check(head)?;
        Ok(local)
    }

    fn check(&self, head: usize) -> Result<(), EngineError> {
        if self.dimensions == 0 || self.dimensions > head || !self.dimensions.is_multiple_of(2) {
            return Err(unsupported(format!(
                "{} rope dimensions; expected an even number up to the head's {head}",
                self.dimensions
            )));
        }
        let within = |what: &str, value: f64, least: f64, most: f64| {
            if (least..=most).contains(&value) {
                Ok(())
            } else {
                Err(unsupported(format!("{what} is {value}; expected {least} to {most}")))
            }
        };
        // At base 1 every pair would turn alike, and YaRN divides by its logarithm.
        within("rope base", self.base, 1.001, 1e12)?;
        within("rope scaling factor", self.factor, 1.0 / FACTOR_MAX, FACTOR_MAX)?;
        within("rope magnitude", self.magnitude, 1e-3, 1e3)?;
        if let Some(yarn) = &self.yarn {
            within("yarn beta_fast", yarn.beta_fast, 1e-3, 1e6)?;
            within("yarn beta_slow", yarn.beta_slow, 1e-3, 1e6)?;
            within("yarn extrapolation", yarn.extrapolation, 0.0, 1.0)?;
            within("yarn context", yarn.context_tokens as f64, 1.0, CONTEXT_MAX as f64)?;
        }
        Ok(())
    }

    /// What each pair turns by per position. `factors` divide the frequencies before anything else.
    fn frequencies(&self, factors: Option<&[f32]>) -> Vec<f64> {
        let dimensions = self.dimensions as f64;
        let fading =
            self.yarn.as_ref().map(|yarn| (yarn, yarn.fades_between(dimensions, self.base)));
        (0..self.dimensions / 2)
            .map(|pair| {
                let factor = factors.and_then(|f| f.get(pair)).map_or(1.0, |f| f64::from(*f));
                let whole = self.base.powf(-2.0 * pair as f64 / dimensions) / factor;
                let divided = whole / self.factor;
                match fading {
                    None => divided,
                    Some((yarn, (first, last))) => {
                        let passed = (pair as f64 - first) / (last - first).max(0.001);
                        let left_alone = (1.0 - passed.clamp(0.0, 1.0)) * yarn.extrapolation;
                        divided * (1.0 - left_alone) + whole * left_alone
                    }
                }
            })
            .collect()
    }

    /// (cos, sin) of every position and pair, times the magnitude: `[positions, dimensions / 2]`.
    #[must_use]
    pub fn angles(&self, positions: usize, factors: Option<&[f32]>) -> Vec<[f32; 2]> {
        let frequencies = self.frequencies(factors);
        (0..positions)
            .flat_map(|position| {
                frequencies.iter().map(move |frequency| {
                    let (sin, cos) = (position as f64 * frequency).sin_cos();
                    [(cos * self.magnitude) as f32, (sin * self.magnitude) as f32]
                })
            })
            .collect()
    }
}

impl Yarn {
    /// Pairs from which on division sets in, and from which on it is whole (`ggml_rope_yarn_corr_dims`).
    fn fades_between(&self, dimensions: f64, base: f64) -> (f64, f64) {
        let pair_that_turns = |times: f64| {
            dimensions * (self.context_tokens as f64 / (times * TAU)).ln() / (2.0 * base.ln())
        };
        (
            pair_that_turns(self.beta_fast).floor().max(0.0),
            pair_that_turns(self.beta_slow).ceil().min(dimensions - 1.0),
        )
    }
}

/// Longer contexts spread attention thinner; this sharpens it again (`yarn_get_mscale`).
fn yarn_magnitude(factor: f64) -> f64 {
    if factor <= 1.0 { 1.0 } else { 0.1 * factor.ln() + 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain() -> Rope {
        Rope { dimensions: 8, base: 10_000.0, factor: 1.0, yarn: None, magnitude: 1.0 }
    }

    #[test]
    fn a_factor_slows_every_pair_and_factors_slow_their_own() {
        let doubled = Rope { factor: 2.0, ..plain() };
        assert_eq!(doubled.angles(5, None)[16..], plain().angles(3, None)[8..]);
        let own = plain().frequencies(Some(&[1.0, 2.0, 1.0, 4.0]));
        let whole = plain().frequencies(None);
        assert_eq!([own[0], own[1] * 2.0, own[2], own[3] * 4.0], whole[..]);
    }

    #[test]
    fn yarn_leaves_fast_pairs_alone_and_divides_slow_ones() {
        let yarn =
            Yarn { context_tokens: 4096, beta_fast: 32.0, beta_slow: 1.0, extrapolation: 1.0 };
        let rope =
            Rope { dimensions: 128, factor: 4.0, yarn: Some(yarn), magnitude: 1.1, ..plain() };
        let (whole, faded) =
            (Rope { dimensions: 128, ..plain() }.frequencies(None), rope.frequencies(None));
        assert_eq!(whole[..20], faded[..20]);
        assert!(whole[60..].iter().zip(&faded[60..]).all(|(w, f)| *f == w / 4.0));
        assert!(faded.windows(2).all(|pair| pair[1] < pair[0]));
        assert_eq!(rope.angles(1, None)[0], [1.1, 0.0]);
    }
}
