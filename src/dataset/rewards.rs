//! Lists of rewards, one for each completion: `{name}_chosen` and `{name}_rejected`.

use serde_json::{Map, Value};

use super::{extra::present, fields::Notes};
use crate::domain::{ExtraField, Sides};

/// The most rewards a completion can have.
const MAX_REWARDS: usize = ExtraField::MAX_REWARDS;

/// MODPO's rewards under the other objectives.
pub(super) const MARGIN: RewardFields =
    RewardFields { names: ["margin_rewards_chosen", "margin_rewards_rejected"], takes_a_number: false };
/// HPO's auxiliary rewards; a number is a list of one.
pub(super) const AUX: RewardFields =
    RewardFields { names: ["aux_rewards_chosen", "aux_rewards_rejected"], takes_a_number: true };

/// One pair of fields.
#[derive(Debug)]
pub(super) struct RewardFields {
    /// Chosen's, rejected's.
    names: [&'static str; 2],
    takes_a_number: bool,
}

/// How many rewards the first line that has them gives to each completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Length {
    n: usize,
    line: u64,
}

impl RewardFields {
    /// Reads both lists; `length` is that of the file's earlier lines and is set by the first.
    pub(super) fn parse(
        &self,
        row: &Map<String, Value>,
        length: &mut Option<Length>,
        notes: &mut Notes,
    ) -> Option<Sides<Vec<f64>>> {
        let values = self.names.map(|name| present(row, name));
        if values == [None, None] {
            return None;
        }
        let [chosen, rejected] = [0, 1].map(|side| {
            let Some(value) = values[side] else {
                let (missing, other) = (self.names[side], self.names[1 - side]);
                let message = format!("the field `{missing}` is missing beside `{other}`: give both or neither");
                notes.problem(format!("/{missing}"), "missing_field", message);
                return None;
            };
            self.list(value, self.names[side], notes)
        });
        let (chosen, rejected) = (chosen?, rejected?);
        let [chosen_name, rejected_name] = self.names;
        if chosen.len() != rejected.len() {
            let message = format!(
                "length {}, but `{chosen_name}` has length {}: give both completions the same rewards",
                rejected.len(),
                chosen.len()
            );
            notes.problem(format!("/{rejected_name}"), "inconsistent_length", message);
            return None;
        }
        let first = length.get_or_insert(Length { n: chosen.len(), line: notes.line() });
        if first.n != chosen.len() {
            let message = format!(
                "length {}, but line {} has length {}: give every line the same rewards",
                chosen.len(),
                first.line,
                first.n
            );
            notes.problem(format!("/{chosen_name}"), "inconsistent_length", message);
            return None;
        }
        Some(Sides { chosen, rejected })
    }

    fn list(&self, value: &Value, name: &str, notes: &mut Notes) -> Option<Vec<f64>> {
        let pointer = format!("/{name}");
        let list = match value {
            Value::Array(list) => list.as_slice(),
            number @ Value::Number(_) if self.takes_a_number => std::slice::from_ref(number),
            other => {
                let expected = if self.takes_a_number { "a number or a list of numbers" } else { "a list of numbers" };
                notes.wrong_type(other, &pointer, expected);
                return None;
            }
        };
        if !(1..=MAX_REWARDS).contains(&list.len()) {
            let message = format!("length {}: give 1 to {MAX_REWARDS} rewards", list.len());
            notes.problem(pointer, "out_of_range", message);
            return None;
        }
        // Every one is looked at, also after one that is wrong. JSON has no other numbers than finite ones.
        let numbers: Vec<_> = (0..)
            .zip(list)
            .map(|(i, value): (usize, _)| {
                let number = value.as_f64();
                if number.is_none() {
                    notes.wrong_type(value, &format!("{pointer}/{i}"), "a number");
                }
                number
            })
            .collect();
        numbers.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What `fields` reads from a row, or what is wrong with it.
    fn parse(fields: &RewardFields, row: &Value, length: &mut Option<Length>) -> Result<Sides<Vec<f64>>, Vec<String>> {
        let mut notes = Notes::new(7);
        let sides = fields.parse(row.as_object().expect("an object"), length, &mut notes);
        let problems = notes.problems.into_iter();
        let problems: Vec<_> =
            problems.map(|p| format!("{} {}: {}", p.pointer.unwrap_or_default(), p.code, p.message)).collect();
        if problems.is_empty() { Ok(sides.expect("rewards")) } else { Err(problems) }
    }

    fn margin(chosen: Value, rejected: Value) -> Result<Sides<Vec<f64>>, Vec<String>> {
        parse(&MARGIN, &json!({"margin_rewards_chosen": chosen, "margin_rewards_rejected": rejected}), &mut None)
    }

    #[test]
    fn both_lists_are_read_and_a_number_is_a_list_of_one() {
        let sides = margin(json!([1, -2.5]), json!([0, 1e300])).expect("rewards");
        assert_eq!(sides, Sides { chosen: vec![1.0, -2.5], rejected: vec![0.0, 1e300] });
        let row = json!({"aux_rewards_chosen": 2, "aux_rewards_rejected": [0.5]});
        assert_eq!(parse(&AUX, &row, &mut None), Ok(Sides { chosen: vec![2.0], rejected: vec![0.5] }));
        let mut notes = Notes::new(1);
        let row = json!({"margin_rewards_chosen": null});
        assert_eq!(MARGIN.parse(row.as_object().expect("an object"), &mut None, &mut notes), None);
        assert!(notes.problems.is_empty(), "null is absent");
    }

    #[test]
    fn everything_wrong_with_rewards_is_named() {
        let found = |chosen, rejected| margin(chosen, rejected).expect_err("problems");
        assert_eq!(
            found(json!([1]), json!(null)),
            ["/margin_rewards_rejected missing_field: the field `margin_rewards_rejected` is missing beside \
              `margin_rewards_chosen`: give both or neither"]
        );
        assert_eq!(
            found(json!(1), json!([1, "2", null])),
            [
                "/margin_rewards_chosen wrong_type: expected a list of numbers, found a number",
                "/margin_rewards_rejected/1 wrong_type: expected a number, found a text",
                "/margin_rewards_rejected/2 wrong_type: expected a number, found null",
            ]
        );
        assert_eq!(
            found(json!([]), json!(vec![0; 65])),
            [
                "/margin_rewards_chosen out_of_range: length 0: give 1 to 64 rewards",
                "/margin_rewards_rejected out_of_range: length 65: give 1 to 64 rewards",
            ]
        );
        assert_eq!(
            found(json!([1, 2]), json!([1])),
            [
                "/margin_rewards_rejected inconsistent_length: length 1, but `margin_rewards_chosen` has length 2: give both \
              completions the same rewards"
            ]
        );
    }

    #[test]
    fn every_line_has_as_many_as_the_first() {
        let row = |n: usize| json!({"margin_rewards_chosen": vec![1; n], "margin_rewards_rejected": vec![0; n]});
        let mut length = Some(Length { n: 2, line: 3 });
        assert!(parse(&MARGIN, &row(2), &mut length).is_ok());
        assert_eq!(
            parse(&MARGIN, &row(1), &mut length).expect_err("problems"),
            [
                "/margin_rewards_chosen inconsistent_length: length 1, but line 3 has length 2: give every line the same rewards"
            ]
        );
        let mut length = None;
        assert!(parse(&MARGIN, &row(1), &mut length).is_ok());
        assert_eq!(length, Some(Length { n: 1, line: 7 }));
    }
}
