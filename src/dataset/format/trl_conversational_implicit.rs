//! TRL's conversational format with an implicit prompt: `{"chosen","rejected"}`, lists of messages that share a beginning.

use serde_json::{Map, Value};

use crate::dataset::{Example, Prompt, fields::Notes, format, messages};

/// The prompt is the messages both sides begin with; where one side is the beginning of the other, its last message counts as
/// its completion (as in TRL's `extract_prompt`).
pub(super) fn parse(row: &Map<String, Value>, notes: &mut Notes) -> Option<Example> {
    format::warn_of_tools(row.get("tools"), "/tools", notes);
    let [chosen, rejected] = ["chosen", "rejected"]
        .map(|name| notes.field(row, name).and_then(|list| messages::parse(list, &format!("/{name}"), notes)));
    let (mut chosen, mut rejected) = (chosen?, rejected?);
    if chosen == rejected {
        let message = "both sides are the same, so there is nothing to prefer: remove the line";
        notes.problem("/rejected", "identical_completions", message);
        return None;
    }
    let shared = chosen.iter().zip(&rejected).take_while(|(a, b)| a == b).count();
    let end = shared.min(chosen.len().saturating_sub(1)).min(rejected.len().saturating_sub(1));
    if end == 0 {
        let message = "the two sides share no first message to take as the prompt: give it in a field `prompt`";
        notes.problem("", "no_shared_prompt", message);
        return None;
    }
    let completions = [
        messages::completion(&chosen.split_off(end), "/chosen", notes),
        messages::completion(&rejected.split_off(end), "/rejected", notes),
    ];
    // What is left of either side is the prompt; a problem in it is pointed at where it stands first.
    messages::check_prompt(&chosen, "/chosen", notes);
    format::finish(Some(Prompt::Messages(chosen)), completions, ["/chosen", "/rejected"], notes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        dataset::format::tests::{pair, problems},
        domain::DatasetFormat::TrlConversationalImplicit,
    };

    fn line(chosen: &[(&str, &str)], rejected: &[(&str, &str)]) -> String {
        let list = |side: &[(&str, &str)]| -> Vec<Value> {
            side.iter().map(|(role, content)| serde_json::json!({"role": role, "content": content})).collect()
        };
        serde_json::json!({"chosen": list(chosen), "rejected": list(rejected)}).to_string()
    }

    #[test]
    fn the_prompt_is_the_shared_messages() {
        let turns = [("user", "Hi"), ("assistant", "Hello"), ("user", "Bye")];
        let with = |last| [&turns[..], &[("assistant", last)]].concat();
        let pair = pair(TrlConversationalImplicit, &line(&with("A"), &with("B")));
        assert!(matches!(&pair.prompt, Prompt::Messages(m) if m.len() == 3 && m[2].content == "Bye"));
        assert_eq!((pair.chosen.as_str(), pair.rejected.as_str()), ("A", "B"));
    }

    #[test]
    fn everything_wrong_with_a_line_is_named() {
        let found = |chosen: &[_], rejected: &[_]| problems(TrlConversationalImplicit, &line(chosen, rejected));
        let (hi, a, b) = (("user", "Hi"), ("assistant", "A"), ("assistant", "B"));
        assert_eq!(found(&[a], &[b]), [" no_shared_prompt"]);
        assert_eq!(found(&[], &[b]), [" no_shared_prompt"]);
        assert_eq!(found(&[hi, a], &[hi, a]), ["/rejected identical_completions"]);
        assert_eq!(found(&[hi, a, hi, b], &[hi, b]), ["/chosen too_many_messages"]);
        assert_eq!(found(&[hi, a], &[hi, a, hi, b]), ["/rejected too_many_messages"]);
        assert_eq!(found(&[hi, hi, a], &[hi, hi, b]), ["/chosen/1/role roles_do_not_alternate"]);
    }
}
