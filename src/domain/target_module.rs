//! The layers LoRA can be attached to.

use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

/// A linear layer that LoRA can be attached to (PEFT's names). Which of them a model has depends on its architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[expect(missing_docs, reason = "the names are the layers' own")]
pub enum TargetModule {
    #[serde(rename = "q_proj")]
    QProj,
    #[serde(rename = "k_proj")]
    KProj,
    #[serde(rename = "v_proj")]
    VProj,
    #[serde(rename = "o_proj")]
    OProj,
    #[serde(rename = "gate_proj")]
    GateProj,
    #[serde(rename = "up_proj")]
    UpProj,
    #[serde(rename = "down_proj")]
    DownProj,
    #[serde(rename = "qkv_proj")]
    QkvProj,
    #[serde(rename = "gate_up_proj")]
    GateUpProj,
    #[serde(rename = "c_attn")]
    CAttn,
    #[serde(rename = "c_proj")]
    CProj,
    #[serde(rename = "c_fc")]
    CFc,
    #[serde(rename = "query_key_value")]
    QueryKeyValue,
    #[serde(rename = "dense")]
    Dense,
    #[serde(rename = "dense_h_to_4h")]
    DenseHTo4h,
    #[serde(rename = "dense_4h_to_h")]
    Dense4hToH,
}

impl TargetModule {
    /// All of all architectures.
    pub const ALL: [Self; 16] = [
        Self::QProj,
        Self::KProj,
        Self::VProj,
        Self::OProj,
        Self::GateProj,
        Self::UpProj,
        Self::DownProj,
        Self::QkvProj,
        Self::GateUpProj,
        Self::CAttn,
        Self::CProj,
        Self::CFc,
        Self::QueryKeyValue,
        Self::Dense,
        Self::DenseHTo4h,
        Self::Dense4hToH,
    ];

    /// The layer's name in a checkpoint.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::QProj => "q_proj",
            Self::KProj => "k_proj",
            Self::VProj => "v_proj",
            Self::OProj => "o_proj",
            Self::GateProj => "gate_proj",
            Self::UpProj => "up_proj",
            Self::DownProj => "down_proj",
            Self::QkvProj => "qkv_proj",
            Self::GateUpProj => "gate_up_proj",
            Self::CAttn => "c_attn",
            Self::CProj => "c_proj",
            Self::CFc => "c_fc",
            Self::QueryKeyValue => "query_key_value",
            Self::Dense => "dense",
            Self::DenseHTo4h => "dense_h_to_4h",
            Self::Dense4hToH => "dense_4h_to_h",
        }
    }

    /// The layer of this name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|module| module.as_str() == name)
    }
}

/// Which of a model's layers LoRA is attached to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(untagged)]
pub enum TargetModules {
    /// A choice that is made by the model's architecture.
    ByArchitecture(TargetChoice),
    /// These.
    Listed(Vec<TargetModule>),
}

/// A choice of layers that every architecture has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum TargetChoice {
    /// What PEFT attaches LoRA to if nobody says.
    #[serde(rename = "auto")]
    Auto,
    /// Every linear layer of the blocks.
    #[serde(rename = "all-linear")]
    AllLinear,
}

impl Default for TargetModules {
    fn default() -> Self {
        Self::ByArchitecture(TargetChoice::Auto)
    }
}

impl<'de> Deserialize<'de> for TargetModules {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Through a JSON value, so that the error names the word that is wrong.
        let value = serde_json::Value::deserialize(deserializer)?;
        let result = match &value {
            serde_json::Value::Null => return Ok(Self::default()),
            serde_json::Value::String(_) => TargetChoice::deserialize(value).map(Self::ByArchitecture),
            _ => Vec::deserialize(value).map(Self::Listed),
        };
        result.map_err(|e| serde::de::Error::custom(format!("{e}; a list of layers, \"auto\" or \"all-linear\"")))
    }
}

impl TargetModules {
    /// Whether a list names at least one layer, and none twice.
    pub fn is_sound(&self) -> bool {
        match self {
            Self::ByArchitecture(_) => true,
            Self::Listed(list) => {
                let distinct: std::collections::BTreeSet<_> = list.iter().collect();
                !list.is_empty() && distinct.len() == list.len()
            }
        }
    }

    /// The layers in a model of this architecture.
    ///
    /// # Errors
    /// In words: the architecture has no such layer; those it has.
    pub fn of_architecture(&self, architecture: &str) -> Result<Vec<TargetModule>, String> {
        let Some((all, default)) = linear_layers(architecture) else {
            return Err(format!("LoRA knows no layers of {architecture}"));
        };
        match self {
            Self::ByArchitecture(TargetChoice::Auto) => Ok(default.to_vec()),
            Self::ByArchitecture(TargetChoice::AllLinear) => Ok(all.to_vec()),
            Self::Listed(list) => match list.iter().find(|module| !all.contains(module)) {
                None => Ok(list.clone()),
                Some(unknown) => {
                    let names = all.iter().map(|module| module.as_str()).collect::<Vec<_>>().join(", ");
                    let unknown = unknown.as_str();
                    Err(format!("a {architecture} has no layer {unknown}; it has {names} (\"all-linear\" takes all)"))
                }
            },
        }
    }
}

/// All linear layers of an architecture's blocks, in their order, and PEFT's default.
fn linear_layers(architecture: &str) -> Option<(&'static [TargetModule], &'static [TargetModule])> {
    use TargetModule as M;
    Some(match architecture {
        "LlamaForCausalLM" | "MistralForCausalLM" | "Qwen2ForCausalLM" | "Qwen3ForCausalLM" | "Gemma2ForCausalLM"
        | "Gemma3ForCausalLM" => {
            (&[M::QProj, M::KProj, M::VProj, M::OProj, M::GateProj, M::UpProj, M::DownProj], &[M::QProj, M::VProj])
        }
        "Phi3ForCausalLM" => (&[M::QkvProj, M::OProj, M::GateUpProj, M::DownProj], &[M::QkvProj]),
        "GPT2LMHeadModel" => (&[M::CAttn, M::CProj, M::CFc], &[M::CAttn]),
        "GPTNeoXForCausalLM" => (&[M::QueryKeyValue, M::Dense, M::DenseHTo4h, M::Dense4hToH], &[M::QueryKeyValue]),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_is_a_word_or_a_list() {
        let read = |value: serde_json::Value| serde_json::from_value::<TargetModules>(value);
        assert_eq!(read(serde_json::Value::Null).expect("read"), TargetModules::default());
        for value in [serde_json::json!("auto"), serde_json::json!("all-linear"), serde_json::json!(["c_attn"])] {
            let read = read(value.clone()).expect("read");
            assert_eq!(serde_json::to_value(read).expect("written"), value);
        }
        let refusal = read(serde_json::json!(["q_proj", "head"])).expect_err("refused").to_string();
        assert!(refusal.contains("head") && refusal.contains("all-linear"), "{refusal}");
        assert!(!TargetModules::Listed(vec![]).is_sound());
        assert!(!TargetModules::Listed(vec![TargetModule::QProj; 2]).is_sound());
    }

    #[test]
    fn an_architecture_has_some_layers_and_not_others() {
        let all = TargetModules::ByArchitecture(TargetChoice::AllLinear);
        assert_eq!(all.of_architecture("LlamaForCausalLM").expect("known").len(), 7);
        let auto = TargetModules::default();
        assert_eq!(auto.of_architecture("GPT2LMHeadModel"), Ok(vec![TargetModule::CAttn]));
        let listed = TargetModules::Listed(vec![TargetModule::CFc, TargetModule::QProj]);
        let refusal = listed.of_architecture("GPT2LMHeadModel").expect_err("refused");
        assert!(refusal.contains("no layer q_proj") && refusal.contains("c_attn, c_proj, c_fc"), "{refusal}");
    }

    #[test]
    fn names_are_those_on_the_wire() {
        for module in TargetModule::ALL {
            assert_eq!(serde_json::to_value(module).expect("written"), module.as_str());
            assert_eq!(TargetModule::of_name(module.as_str()), Some(module));
        }
    }
}
