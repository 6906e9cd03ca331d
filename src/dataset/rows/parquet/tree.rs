//! Puts the values of a row's columns together again: lists, objects, nulls.
//!
//! A column is a sequence of entries, each with two numbers. The definition level says how many of the optional and repeated
//! parts of its path are there, the repetition level which of the repeated parts the entry goes on with (0: it begins a row).

use std::io;

use parquet::{
    basic::{ConvertedType, LogicalType, Repetition},
    schema::types::Type,
};
use serde_json::{Map, Value};

use super::{columns::Column, damaged};
use crate::dataset::rows::{MAX_ROW_BYTES, Wrong};

/// A part of the schema.
#[derive(Debug)]
pub(super) enum Node {
    /// A column, by its number among those that are read.
    Leaf(usize),
    Object(Vec<(String, Node)>),
    /// It is there where the definition level is at least this.
    Optional(i16, Box<Node>),
    /// Its items are there from this definition level on, and go on at this repetition level.
    List {
        definition: i16,
        repetition: i16,
        item: Box<Node>,
    },
}

impl Node {
    /// The node of a type below these levels; its columns are numbered from `n_columns` on, which counts them.
    pub(super) fn of(schema: &Type, definition: i16, repetition: i16, n_columns: &mut usize) -> Self {
        let info = schema.get_basic_info();
        match info.has_repetition().then(|| info.repetition()) {
            Some(Repetition::OPTIONAL) => {
                Self::Optional(definition + 1, Box::new(Self::content(schema, definition + 1, repetition, n_columns)))
            }
            Some(Repetition::REPEATED) => {
                let (definition, repetition) = (definition + 1, repetition + 1);
                let item = Box::new(Self::content(schema, definition, repetition, n_columns));
                Self::List { definition, repetition, item }
            }
            _ => Self::content(schema, definition, repetition, n_columns),
        }
    }

    fn content(schema: &Type, definition: i16, repetition: i16, n_columns: &mut usize) -> Self {
        if schema.is_primitive() {
            *n_columns += 1;
            return Self::Leaf(*n_columns - 1);
        }
        if let Some(repeated) = list_of(schema) {
            let (definition, repetition) = (definition + 1, repetition + 1);
            let item = match wrapped(repeated, schema.name()) {
                Some(item) => Self::of(item, definition, repetition, n_columns),
                None => Self::content(repeated, definition, repetition, n_columns),
            };
            return Self::List { definition, repetition, item: Box::new(item) };
        }
        let field = |field: &parquet::schema::types::TypePtr| {
            (field.name().to_owned(), Self::of(field, definition, repetition, n_columns))
        };
        Self::Object(schema.get_fields().iter().map(field).collect())
    }

    /// The number of its first column; every part has one.
    fn first(&self) -> Option<usize> {
        match self {
            Self::Leaf(column) => Some(*column),
            Self::Object(fields) => fields.iter().find_map(|(_, field)| field.first()),
            Self::Optional(_, content) => content.first(),
            Self::List { item, .. } => item.first(),
        }
    }

    fn pass(&self, columns: &mut [Column]) -> io::Result<()> {
        match self {
            Self::Leaf(column) => columns[*column].pass().map(drop),
            Self::Object(fields) => fields.iter().try_for_each(|(_, field)| field.pass(columns)),
            Self::Optional(_, content) => content.pass(columns),
            Self::List { item, .. } => item.pass(columns),
        }
    }

    /// The value of the row that `columns` stand in, and behind it they stand; `n_bytes` counts those of its texts.
    pub(super) fn take(&self, columns: &mut [Column], n_bytes: &mut usize) -> io::Result<Result<Value, Wrong>> {
        let definition = |columns: &[Column], node: &Self| match node.first() {
            Some(first) => columns[first].definition(),
            None => Ok(0),
        };
        match self {
            Self::Leaf(column) => Ok(match columns[*column].take()? {
                Ok((value, n)) => {
                    *n_bytes += n;
                    if *n_bytes > MAX_ROW_BYTES { Err(too_long()) } else { Ok(value) }
                }
                Err(wrong) => Err(wrong),
            }),
            Self::Object(fields) => {
                let mut object = Map::new();
                for (name, field) in fields {
                    match field.take(columns, n_bytes)? {
                        Ok(value) => object.insert(name.clone(), value),
                        Err(wrong) => return Ok(Err(wrong)),
                    };
                }
                Ok(Ok(Value::Object(object)))
            }
            Self::Optional(level, content) => {
                if definition(columns, content)? >= *level {
                    return content.take(columns, n_bytes);
                }
                content.pass(columns)?;
                Ok(Ok(Value::Null))
            }
            Self::List { definition: level, repetition, item } => {
                if definition(columns, item)? < *level {
                    item.pass(columns)?;
                    return Ok(Ok(Value::Array(Vec::new())));
                }
                let first = item.first().ok_or_else(damaged)?;
                let mut items = Vec::new();
                loop {
                    match item.take(columns, n_bytes)? {
                        Ok(value) => items.push(value),
                        Err(wrong) => return Ok(Err(wrong)),
                    }
                    if columns[first].repetition() < *repetition {
                        return Ok(Ok(Value::Array(items)));
                    }
                }
            }
        }
    }
}

pub(super) fn too_long() -> Wrong {
    let message = format!("the row is longer than {} MiB: write one pair per row, and shorter", MAX_ROW_BYTES >> 20);
    Wrong::new("line_too_long", message)
}

/// The repeated part of a group that is a list.
fn list_of(group: &Type) -> Option<&Type> {
    let info = group.get_basic_info();
    let is_list =
        info.converted_type() == ConvertedType::LIST || matches!(info.logical_type_ref(), Some(LogicalType::List));
    let [repeated] = group.get_fields() else { return None };
    let is_repeated = repeated.get_basic_info().repetition() == Repetition::REPEATED;
    (is_list && is_repeated).then_some(repeated.as_ref())
}

/// The item within the repeated part; `None` where that is the item itself, as older writers have it (the format's rules for
/// reading lists they wrote).
fn wrapped<'a>(repeated: &'a Type, list_name: &str) -> Option<&'a Type> {
    if repeated.is_primitive() {
        return None;
    }
    let [item] = repeated.get_fields() else { return None };
    let is_item = repeated.name() == "array" || repeated.name() == format!("{list_name}_tuple");
    (!is_item).then_some(item.as_ref())
}
