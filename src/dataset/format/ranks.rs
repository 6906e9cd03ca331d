//! Which of several ranked completions are the pair: the best and the worst.

use serde_json::{Map, Value};

use crate::dataset::fields::Notes;

/// The places of the best and the worst item of a list, by their `rank`: the lower the better; of equals the first.
pub(super) fn best_and_worst<'a>(
    row: &'a Map<String, Value>,
    name: &str,
    notes: &mut Notes,
) -> Option<[(usize, &'a Map<String, Value>); 2]> {
    let value = notes.field(row, name)?;
    let Some(list) = value.as_array() else {
        notes.wrong_type(value, &format!("/{name}"), "a list of ranked completions");
        return None;
    };
    let items: Vec<_> = list.iter().enumerate().map(|(i, item)| ranked(item, &format!("/{name}/{i}"), notes)).collect();
    let items: Vec<(f64, &Map<String, Value>)> = items.into_iter().collect::<Option<_>>()?;
    let mut best = 0;
    let mut worst = 0;
    for (i, (rank, _)) in items.iter().enumerate() {
        if *rank < items[best].0 {
            best = i;
        }
        if *rank > items[worst].0 {
            worst = i;
        }
    }
    if best == worst {
        let message = "no completion is better than another: give at least two of different rank";
        notes.problem(format!("/{name}"), "no_preference", message);
        return None;
    }
    Some([best, worst].map(|i| (i, items[i].1)))
}

fn ranked<'a>(item: &'a Value, pointer: &str, notes: &mut Notes) -> Option<(f64, &'a Map<String, Value>)> {
    let Some(fields) = item.as_object() else {
        notes.wrong_type(item, pointer, "a completion with its rank");
        return None;
    };
    let pointer = format!("{pointer}/rank");
    let Some(rank) = fields.get("rank") else {
        notes.problem(pointer, "missing_field", "a completion needs its `rank`");
        return None;
    };
    let Some(number) = rank.as_f64() else {
        notes.wrong_type(rank, &pointer, "a number");
        return None;
    };
    Some((number, fields))
}
