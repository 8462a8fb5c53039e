//! How answers keep keys and values, in one word.

use clap::ValueEnum;

/// How answers keep keys and values; proofs and replays always keep f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Kv {
    /// As they were computed.
    #[default]
    F32,
    /// Half the memory.
    F16,
    /// Bytes with a scale for each 16: a little more than a quarter of the memory.
    Q8,
}

impl std::str::FromStr for Kv {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = || Self::value_variants().iter().filter_map(ValueEnum::to_possible_value);
        <Self as ValueEnum>::from_str(text, false).map_err(|_unknown| {
            let words: Vec<String> = known().map(|word| word.get_name().to_owned()).collect();
            format!("{text:?} is none of {}", words.join(", "))
        })
    }
}
