//! TRL's standard format with an implicit prompt: `{"chosen","rejected"}`, two texts that share a beginning.

use serde_json::{Map, Value};

use crate::dataset::{Example, Prompt, fields::Notes, format, words::is_of_a_word};

pub(super) fn parse(row: &Map<String, Value>, notes: &mut Notes) -> Option<Example> {
    let [chosen, rejected] = ["chosen", "rejected"].map(|name| notes.text_field(row, name));
    let (chosen, rejected) = (chosen?, rejected?);
    if chosen == rejected {
        let message = "both texts are the same, so there is nothing to prefer: remove the line";
        notes.problem("/rejected", "identical_completions", message);
        return None;
    }
    let end = prompt_end(chosen, rejected);
    if chosen[..end].trim().is_empty() {
        let message = "the two texts share no beginning to take as the prompt: give it in a field `prompt`";
        notes.problem("", "no_shared_prompt", message);
        return None;
    }
    let completions = [chosen, rejected].map(|text| Some(text[end..].to_owned()));
    format::finish(Some(Prompt::Text(chosen[..end].to_owned())), completions, ["/chosen", "/rejected"], notes)
}

/// Where the shared beginning ends, in bytes.
///
/// As TRL's `extract_prompt`: the longest common beginning, less a space at its end, so that the space goes to the
/// completions; and where one text is the beginning of the other, less its last character, so that no completion is empty.
/// Unlike TRL, the cut then moves back to the beginning of a word: "The sky is blue" and "The sky is black" share
/// "The sky is" and not "The sky is bl", which no tokenizer would cut there.
fn prompt_end(chosen: &str, rejected: &str) -> usize {
    let shared = chosen.chars().zip(rejected.chars()).take_while(|(a, b)| a == b).map(|(a, _)| a.len_utf8()).sum();
    let before = |end: usize| chosen[..end].chars().next_back();
    let mut end: usize = shared;
    if end == chosen.len().min(rejected.len()) {
        end -= before(end).map_or(0, char::len_utf8);
    }
    let inside_a_word = |end: usize| {
        let next = |text: &str| text[end..].chars().next().is_some_and(is_of_a_word);
        before(end).is_some_and(is_of_a_word) && (next(chosen) || next(rejected))
    };
    while inside_a_word(end) {
        end -= before(end).map_or(0, char::len_utf8);
    }
    if before(end) == Some(' ') { end - 1 } else { end }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        dataset::format::tests::{pair, problems},
        domain::DatasetFormat::TrlStandardImplicit,
    };

    /// Prompt and completions.
    fn split(chosen: &'static str, rejected: &'static str) -> [&'static str; 3] {
        let end = prompt_end(chosen, rejected);
        [&chosen[..end], &chosen[end..], &rejected[end..]]
    }

    #[test]
    fn the_prompt_is_the_shared_beginning_and_cuts_no_word() {
        assert_eq!(split("The sky is blue.", "The sky is green."), ["The sky is", " blue.", " green."]);
        assert_eq!(split("The sky is blue.", "The sky is black."), ["The sky is", " blue.", " black."]);
        assert_eq!(split("Q: 6*7?\n42", "Q: 6*7?\n43"), ["Q: 6*7?\n", "42", "43"]);
        assert_eq!(split("Oui: déjà", "Oui: dé"), ["Oui:", " déjà", " dé"]);
        assert_eq!(split("天空是蓝色", "天空是绿色"), ["天空是", "蓝色", "绿色"]);
        assert_eq!(split("Say: no", "Say: no way"), ["Say:", " no", " no way"]);
        assert_eq!(split("Hello", "Help"), ["", "Hello", "Help"]);
        assert_eq!(split("", "Help"), ["", "", "Help"]);
    }

    #[test]
    fn a_line_gives_a_pair_or_says_why_not() {
        let pair = pair(TrlStandardImplicit, r#"{"chosen":"The sky is blue.","rejected":"The sky is green."}"#);
        assert_eq!((pair.prompt, pair.chosen.as_str()), (Prompt::Text("The sky is".into()), " blue."));
        assert_eq!(problems(TrlStandardImplicit, r#"{"chosen":"Yes","rejected":"No"}"#), [" no_shared_prompt"]);
        assert_eq!(
            problems(TrlStandardImplicit, r#"{"chosen":"A b","rejected":"A b"}"#),
            ["/rejected identical_completions"]
        );
        assert_eq!(
            problems(TrlStandardImplicit, r#"{"chosen":"A:  ","rejected":"A: no"}"#),
            ["/chosen empty_completion"]
        );
    }
}
