//! Objects that are only ever written as objects: for fields, with `deserialize_with`.
//!
//! What serde derives takes a list for a struct too, its fields in order. The documents say nothing
//! of that, and a list is more likely a mistake: `limits: [null, 5]`.

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor, value::MapAccessDeserializer},
};
use std::{fmt, marker::PhantomData};

/// An object.
pub(crate) fn only<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    deserializer.deserialize_map(Only(PhantomData))
}

/// An object, or `null`.
pub(crate) fn or_null<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct Inner<T>(T);

    impl<'de, T: Deserialize<'de>> Deserialize<'de> for Inner<T> {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            only(deserializer).map(Self)
        }
    }

    Ok(Option::<Inner<T>>::deserialize(deserializer)?.map(|Inner(value)| value))
}

struct Only<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Only<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map))
    }
}

#[cfg(test)]
mod tests {
    use crate::manifest::{Manifest, NewVersion};
    use serde_json::{Value, json};

    fn with(settings: Value) -> Result<Manifest, String> {
        let digest = "0".repeat(64);
        let function = json!({ "name": "web", "digest": digest, "settings": settings });
        let text = json!({ "functions": [function] }).to_string();
        serde_json::from_str(&text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_list_is_no_object() {
        assert!(with(json!({ "limits": { "cpu_ms": 5 }, "cors": null })).is_ok());
        for (settings, part) in [
            (json!([[]]), "sequence"),
            (json!({ "limits": [null, 5] }), "sequence"),
            (json!({ "grants": [[]] }), "sequence"),
            (json!({ "rate_limit": [1, 2] }), "sequence"),
            (json!({ "cors": [[]] }), "sequence"),
            (json!({ "limits": { "cpu": 5 } }), "unknown field `cpu`"),
        ] {
            let error = with(settings.clone()).unwrap_err();
            assert!(error.contains(part) && error.contains(" at line 1 column "), "{error}");
        }
        assert!(serde_json::from_str::<NewVersion>(r#"{"manifest":[[],null,[]]}"#).is_err());
    }
}
