//! A method in an answer, with all its settings as they are used.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::{JobSpec, MethodKind};

/// A method with all its settings: `type`, and under its name the method's own, `hyperparameters` and, where it takes any,
/// `references` (the base in front).
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(super) struct MethodObject {
    r#type: MethodKind,
    #[serde(flatten)]
    #[schema(value_type = BTreeMap<String, Object>)]
    section: BTreeMap<&'static str, serde_json::Value>,
}

impl MethodObject {
    pub(super) fn of(spec: &JobSpec) -> Self {
        let kind = spec.method.kind();
        let mut section = serde_json::to_value(&spec.method).expect("settings are JSON");
        let fields = section.as_object_mut().expect("a tagged enum is an object");
        fields.remove("type");
        if kind != MethodKind::Dpo {
            fields.insert("references".to_owned(), serde_json::json!(spec.references));
        }
        fields.insert("hyperparameters".to_owned(), serde_json::json!(spec.hyperparameters));
        Self { r#type: kind, section: BTreeMap::from([(kind.as_str(), section)]) }
    }
}
