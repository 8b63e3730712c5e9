//! Canonical JSON: one byte string for one value, so that it can be hashed and signed.
//!
//! The rules are those of RFC 8785 for the values Bullion uses: keys sorted, no white space, strings with the shortest
//! escapes. Numbers are integers within ±2^53 only; a float is refused, because no format of ours has one.

use serde::Serialize;
use serde_json::Value;

/// A value that has no canonical form.
#[derive(Debug, thiserror::Error)]
pub enum CanonicalError {
    /// A number that is not an integer of at most 53 bits.
    #[error("{0} is not an integer of at most 53 bits: it has no canonical form")]
    Number(serde_json::Number),
    /// The value cannot be written as JSON at all.
    #[error("the value cannot be written as JSON")]
    Json(#[from] serde_json::Error),
}

/// The canonical bytes of `value`, without a trailing newline.
pub fn to_canonical_bytes<T: Serialize>(value: &T) -> Result<Vec<u8>, CanonicalError> {
    let value = serde_json::to_value(value)?;
    check_numbers(&value)?;
    // serde_json's map is a BTreeMap (its `preserve_order` feature is banned in deny.toml): keys come out sorted by their
    // UTF-8 bytes, which for the ASCII keys of our formats is the order of RFC 8785.
    Ok(serde_json::to_vec(&value)?)
}

fn check_numbers(value: &Value) -> Result<(), CanonicalError> {
    const LIMIT: u64 = 1 << 53;
    match value {
        Value::Number(number) => {
            let magnitude = number.as_u64().or_else(|| number.as_i64().map(i64::unsigned_abs));
            match magnitude {
                Some(magnitude) if magnitude <= LIMIT => Ok(()),
                _ => Err(CanonicalError::Number(number.clone())),
            }
        }
        Value::Array(items) => items.iter().try_for_each(check_numbers),
        Value::Object(map) => map.values().try_for_each(check_numbers),
        Value::Null | Value::Bool(_) | Value::String(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keys_are_sorted_and_floats_refused() {
        let bytes = to_canonical_bytes(&json!({"b": [1, -2], "a": {"z": "é\n\"", "y": null}})).unwrap();
        assert_eq!(String::from_utf8(bytes).unwrap(), "{\"a\":{\"y\":null,\"z\":\"é\\n\\\"\"},\"b\":[1,-2]}");
        assert!(matches!(to_canonical_bytes(&json!(1.5)), Err(CanonicalError::Number(_))));
        assert!(matches!(to_canonical_bytes(&json!(u64::MAX)), Err(CanonicalError::Number(_))));
    }
}
