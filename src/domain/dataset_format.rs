//! What a dataset is written in: the shape of its rows, what keeps them, and what packs them.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The shape of a dataset's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DatasetFormat {
    /// `{"input":{"messages":[..]},"preferred_output":[..],"non_preferred_output":[..]}` (or `.._completion`).
    OpenaiPreference,
    /// TRL standard with explicit prompt: `{"prompt","chosen","rejected"}`, three texts.
    TrlStandard,
    /// TRL standard with implicit prompt: `{"chosen","rejected"}`, two texts that share a beginning.
    TrlStandardImplicit,
    /// TRL conversational with explicit prompt: three lists of messages.
    TrlConversational,
    /// TRL conversational with implicit prompt: two lists of messages that share a beginning.
    TrlConversationalImplicit,
    /// Anthropic HH: `{"chosen","rejected"}`, texts of `\n\nHuman:` and `\n\nAssistant:` turns.
    AnthropicHh,
    /// UltraFeedback binarized: `{"prompt","chosen","rejected"}`, a text and two lists of messages that repeat it.
    UltrafeedbackBinarized,
    /// Alpaca for ranking, as in LLaMA-Factory: `{"instruction","input","chosen","rejected"}`, texts.
    AlpacaRanking,
    /// ShareGPT for ranking, as in LLaMA-Factory: `{"conversations":[..],"chosen":{..},"rejected":{..}}` of `{"from","value"}`.
    SharegptRanking,
    /// Axolotl's argilla: `{"instruction","chosen_response","rejected_response"}`, texts.
    AxolotlArgilla,
    /// Axolotl's intel: `{"question","chosen","rejected"}`, texts.
    AxolotlIntel,
    /// Axolotl's icr: `{"input","chosen","rejected"}`, texts.
    AxolotlIcr,
    /// Axolotl's chat_template.default: `{"messages":[..],"chosen":{..},"rejected":{..}}` of messages.
    AxolotlChatTemplate,
    /// Nectar: `{"prompt","answers":[{"answer","rank"}]}`; the best and the worst rank are the pair.
    Nectar,
    /// NeMo-RL: `{"context":[..],"completions":[{"rank","completion":[..]}]}`; the best and the worst rank are the pair.
    NemoRl,
    /// H2O LLM Studio: columns of prompts, answers and rejected answers.
    H2o,
}

impl DatasetFormat {
    /// All there are.
    pub const ALL: [Self; 16] = [
        Self::OpenaiPreference,
        Self::TrlStandard,
        Self::TrlStandardImplicit,
        Self::TrlConversational,
        Self::TrlConversationalImplicit,
        Self::AnthropicHh,
        Self::UltrafeedbackBinarized,
        Self::AlpacaRanking,
        Self::SharegptRanking,
        Self::AxolotlArgilla,
        Self::AxolotlIntel,
        Self::AxolotlIcr,
        Self::AxolotlChatTemplate,
        Self::Nectar,
        Self::NemoRl,
        Self::H2o,
    ];

    /// Its name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OpenaiPreference => "openai_preference",
            Self::TrlStandard => "trl_standard",
            Self::TrlStandardImplicit => "trl_standard_implicit",
            Self::TrlConversational => "trl_conversational",
            Self::TrlConversationalImplicit => "trl_conversational_implicit",
            Self::AnthropicHh => "anthropic_hh",
            Self::UltrafeedbackBinarized => "ultrafeedback_binarized",
            Self::AlpacaRanking => "alpaca_ranking",
            Self::SharegptRanking => "sharegpt_ranking",
            Self::AxolotlArgilla => "axolotl_argilla",
            Self::AxolotlIntel => "axolotl_intel",
            Self::AxolotlIcr => "axolotl_icr",
            Self::AxolotlChatTemplate => "axolotl_chat_template",
            Self::Nectar => "nectar",
            Self::NemoRl => "nemo_rl",
            Self::H2o => "h2o",
        }
    }
}

impl fmt::Display for DatasetFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that names no format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no such format; the formats are {}", DatasetFormat::ALL.map(DatasetFormat::as_str).join(", "))]
pub struct UnknownFormat;

impl FromStr for DatasetFormat {
    type Err = UnknownFormat;

    fn from_str(word: &str) -> Result<Self, UnknownFormat> {
        Self::ALL.into_iter().find(|format| format.as_str() == word).ok_or(UnknownFormat)
    }
}

/// What keeps a dataset's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Container {
    /// JSON Lines: an object on every line.
    JsonLines,
    /// JSON: one list of objects.
    JsonArray,
    /// CSV with a header.
    Csv,
    /// Apache Parquet.
    Parquet,
}

impl Container {
    /// What the places in it are called, where a problem is: lines or rows.
    pub fn word_for_place(self) -> &'static str {
        match self {
            Self::JsonLines | Self::Csv => "line",
            Self::JsonArray | Self::Parquet => "row",
        }
    }
}

/// What a file is packed with as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    /// gzip.
    Gzip,
    /// Zstandard.
    Zstd,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_api() {
        for format in DatasetFormat::ALL {
            assert_eq!(serde_json::to_value(format).expect("JSON"), format.as_str());
            assert_eq!(format.as_str().parse(), Ok(format));
        }
        let said = "trl".parse::<DatasetFormat>().expect_err("unknown").to_string();
        assert!(said.contains("trl_standard, ") && said.ends_with("h2o"), "{said}");
    }
}
