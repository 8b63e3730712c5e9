//! Canonical JSON against RFC 8785's own words, and as a property over any value our formats can hold.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};
use spec::canonical::to_canonical_bytes;

#[test]
fn strings_are_escaped_as_in_rfc_8785() {
    // RFC 8785, section 3.2.2, the "string" of its example: the expected bytes are copied from section 3.2.4.
    let input: Value = serde_json::from_str(r#"{"string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/"}"#).unwrap();
    let expected = [
        0x7b, 0x22, 0x73, 0x74, 0x72, 0x69, 0x6e, 0x67, 0x22, 0x3a, 0x22, 0xe2, 0x82, 0xac, 0x24, 0x5c, 0x75, 0x30,
        0x30, 0x30, 0x66, 0x5c, 0x6e, 0x41, 0x27, 0x42, 0x5c, 0x22, 0x5c, 0x5c, 0x5c, 0x5c, 0x5c, 0x22, 0x2f, 0x22,
        0x7d,
    ];
    assert_eq!(to_canonical_bytes(&input).unwrap(), expected);
}

#[test]
fn integers_beyond_53_bits_are_refused() {
    let limit = 1_u64 << 53;
    assert!(to_canonical_bytes(&json!(limit)).is_ok());
    assert!(to_canonical_bytes(&json!(limit + 1)).is_err());
    assert!(to_canonical_bytes(&json!(-(1_i64 << 53) - 1)).is_err());
    assert!(to_canonical_bytes(&json!([{"a": [0.5]}])).is_err(), "however deep");
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-(1_i64 << 53)..=(1_i64 << 53)).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            proptest::collection::btree_map("[a-zA-Z0-9_-]{0,8}", inner, 0..6)
                .prop_map(|map: BTreeMap<String, Value>| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn one_value_has_one_form(value in value()) {
        let bytes = to_canonical_bytes(&value).unwrap();
        let again: Value = serde_json::from_slice(&bytes).unwrap();
        prop_assert_eq!(&again, &value);
        prop_assert_eq!(to_canonical_bytes(&again).unwrap(), bytes);
    }
}
