//! TRL's standard format with an explicit prompt: `{"prompt","chosen","rejected"}`, three texts.

use serde_json::{Map, Value};

use crate::dataset::{Example, Prompt, fields::Notes, format};

pub(super) fn parse(row: &Map<String, Value>, notes: &mut Notes) -> Option<Example> {
    let [prompt, chosen, rejected] =
        ["prompt", "chosen", "rejected"].map(|name| notes.text_field(row, name).map(str::to_owned));
    format::finish(prompt.map(Prompt::Text), [chosen, rejected], ["/chosen", "/rejected"], notes)
}

#[cfg(test)]
mod tests {
    use crate::{
        dataset::{
            Prompt,
            format::tests::{pair, problems},
        },
        domain::DatasetFormat::TrlStandard,
    };

    #[test]
    fn three_texts_are_a_pair_as_they_are() {
        let pair =
            pair(TrlStandard, r#"{"id":"x","prompt":"The sky is","chosen":" blue.","rejected":" gr\u0000een."}"#);
        assert_eq!(pair.prompt, Prompt::Text("The sky is".into()));
        assert_eq!((pair.chosen.as_str(), pair.rejected.as_str()), (" blue.", " gr\0een."));
    }

    #[test]
    fn everything_wrong_with_a_line_is_named() {
        assert_eq!(
            problems(TrlStandard, r#"{"prompt":1,"chosen":null}"#),
            ["/prompt wrong_type", "/chosen wrong_type", "/rejected missing_field"]
        );
        assert_eq!(
            problems(TrlStandard, r#"{"prompt":" ","chosen":"","rejected":"\n"}"#),
            ["/prompt empty_prompt", "/chosen empty_completion", "/rejected empty_completion"]
        );
        assert_eq!(
            problems(TrlStandard, r#"{"prompt":"p","chosen":"same","rejected":"same"}"#),
            ["/rejected identical_completions"]
        );
    }
}
