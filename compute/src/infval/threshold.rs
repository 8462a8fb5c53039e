//! How similar a replay has to be, by model.

/// Parts of model names, in lower case, and the similarity above which the network takes an answer for
/// the model's. Source: the network's model parameters as of its upgrade v0.2.18; a Network Node tells the
/// values of today.
const BY_MODEL: [(&str, f64); 4] =
    [("qwen3-235b", 0.940), ("minimax", 0.922), ("kimi", 0.900), ("deepseek-v4", 0.900)];
/// What held for every model before there were values by model, and holds for those without one.
pub const DEFAULT: f64 = 0.99;

/// The network's threshold for a model of this name; `None` if it has none of its own.
#[must_use]
pub fn of_model(name: &str) -> Option<f64> {
    let name = name.to_ascii_lowercase();
    BY_MODEL.iter().find(|(part, _)| name.contains(part)).map(|(_, threshold)| *threshold)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_known_by_a_part_of_their_names() {
        assert_eq!(of_model("Qwen/Qwen3-235B-A22B-Instruct-2507-FP8"), Some(0.940));
        assert_eq!(of_model("MiniMaxAI/MiniMax-M2.7"), Some(0.922));
        assert_eq!(of_model("deepseek-ai/DeepSeek-V4-Flash"), Some(0.900));
        assert_eq!(of_model("Qwen/Qwen3-0.6B"), None);
    }
}
