//! The layers LoRA can be attached to.

use serde::{Deserialize, Serialize};
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_on_the_wire() {
        for module in TargetModule::ALL {
            assert_eq!(serde_json::to_value(module).expect("written"), module.as_str());
            assert_eq!(TargetModule::of_name(module.as_str()), Some(module));
        }
    }
}
