//! The bytes before the tensors of a GGUF file (version 3).

use candle_core::quantized::gguf_file::Value;

use super::placed::Place;
use crate::model::ModelError;

/// Where tensors begin is a multiple of this.
pub(super) const ALIGNMENT: u64 = 32;

/// The least multiple of the alignment that is not less.
pub(super) fn aligned(n: u64) -> u64 {
    n.next_multiple_of(ALIGNMENT)
}

/// Everything up to the first tensor; `places` count from there.
pub(super) fn header(metadata: &[(String, Value)], tensors: &[(String, Place)]) -> Result<Vec<u8>, ModelError> {
    let mut out = Vec::from(b"GGUF");
    out.extend(3u32.to_le_bytes());
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((metadata.len() as u64).to_le_bytes());
    for (key, value) in metadata {
        add_text(&mut out, key);
        out.extend(type_of(value).to_le_bytes());
        add_value(&mut out, value)?;
    }
    for (name, Place { at, number, shape }) in tensors {
        add_text(&mut out, name);
        out.extend((shape.len() as u32).to_le_bytes());
        // The length of a row comes first.
        shape.iter().rev().for_each(|n| out.extend((*n as u64).to_le_bytes()));
        out.extend(number.ggml().to_le_bytes());
        out.extend(at.to_le_bytes());
    }
    out.resize(aligned(out.len() as u64) as usize, 0);
    Ok(out)
}

fn add_text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn type_of(value: &Value) -> u32 {
    match value {
        Value::U8(_) => 0,
        Value::I8(_) => 1,
        Value::U16(_) => 2,
        Value::I16(_) => 3,
        Value::U32(_) => 4,
        Value::I32(_) => 5,
        Value::F32(_) => 6,
        Value::Bool(_) => 7,
        Value::String(_) => 8,
        Value::Array(_) => 9,
        Value::U64(_) => 10,
        Value::I64(_) => 11,
        Value::F64(_) => 12,
    }
}

fn add_value(out: &mut Vec<u8>, value: &Value) -> Result<(), ModelError> {
    match value {
        Value::U8(x) => out.push(*x),
        Value::I8(x) => out.extend(x.to_le_bytes()),
        Value::U16(x) => out.extend(x.to_le_bytes()),
        Value::I16(x) => out.extend(x.to_le_bytes()),
        Value::U32(x) => out.extend(x.to_le_bytes()),
        Value::I32(x) => out.extend(x.to_le_bytes()),
        Value::U64(x) => out.extend(x.to_le_bytes()),
        Value::I64(x) => out.extend(x.to_le_bytes()),
        Value::F32(x) => out.extend(x.to_le_bytes()),
        Value::F64(x) => out.extend(x.to_le_bytes()),
        Value::Bool(x) => out.push(u8::from(*x)),
        Value::String(text) => add_text(out, text),
        Value::Array(values) => {
            // Of an empty list the type makes no difference.
            let of = values.first().map_or(8, type_of);
            if values.iter().any(|value| type_of(value) != of) {
                return Err(ModelError::invalid("a list of a GGUF file holds values of several types"));
            }
            out.extend(of.to_le_bytes());
            out.extend((values.len() as u64).to_le_bytes());
            for value in values {
                add_value(out, value)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use candle_core::quantized::gguf_file::Content;

    use super::*;
    use crate::model::export::number::Number;

    #[test]
    fn what_is_written_is_read_again() {
        let list = |values: Vec<Value>| Value::Array(values);
        let values = [
            Value::U8(1),
            Value::I8(-1),
            Value::U16(2),
            Value::I16(-2),
            Value::U32(3),
            Value::I32(-3),
            Value::U64(4),
            Value::I64(-4),
            Value::F32(0.5),
            Value::F64(0.25),
            Value::Bool(true),
            Value::String("ä".into()),
            list(vec![Value::String("a".into()), Value::String(String::new())]),
            list(vec![list(vec![Value::F32(1.0)]), list(vec![])]),
        ];
        let metadata: Vec<(String, Value)> = (0..).map(|i| format!("key.{i}")).zip(values).collect();
        let place = Place { at: 64, number: Number::Q8_0, shape: vec![3, 32] };
        let bytes = header(&metadata, &[("blk.0.attn_q.weight".into(), place)]).expect("written");
        assert_eq!(bytes.len() as u64 % ALIGNMENT, 0);
        let content = Content::read(&mut Cursor::new(&bytes)).expect("read");
        assert_eq!(content.metadata.len(), metadata.len());
        for (key, value) in &metadata {
            assert_eq!(format!("{:?}", content.metadata[key]), format!("{value:?}"));
        }
        let tensor = &content.tensor_infos["blk.0.attn_q.weight"];
        assert_eq!((tensor.shape.dims(), tensor.offset), ([3, 32].as_slice(), 64));
        assert_eq!(content.tensor_data_offset, bytes.len() as u64);
    }

    #[test]
    fn a_list_of_two_types_is_refused() {
        let mixed = Value::Array(vec![Value::U8(1), Value::Bool(true)]);
        assert!(header(&[("key".into(), mixed)], &[]).is_err());
    }
}
