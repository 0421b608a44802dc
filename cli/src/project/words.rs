//! Values that people write as text: `10s`, `64MiB`, `100/1m`.

use jiff::SignedDuration;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, Visitor, value::MapAccessDeserializer},
};
use std::{borrow::Cow, fmt, marker::PhantomData, str::FromStr};

/// A time: `500ms`, `10s`, `5m`, `1h 30m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Length(u64);

impl Length {
    /// In milliseconds.
    pub(super) fn ms(self) -> u64 {
        self.0
    }
}

impl FromStr for Length {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no duration; write `500ms`, `10s` or `5m`");
        let duration: SignedDuration = text.parse().map_err(|_| wrong())?;
        u64::try_from(duration.as_millis()).map(Self).map_err(|_| wrong())
    }
}

/// A size: `512KiB`, `64MiB`, `1GiB`, or a number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size(u64);

impl Size {
    /// In bytes.
    pub(super) fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let factor = match unit.trim() {
            "" | "B" => Some(1),
            "KiB" | "K" => Some(1 << 10),
            "MiB" | "M" => Some(1 << 20),
            "GiB" | "G" => Some(1 << 30),
            _ => None,
        };
        let bytes = number.parse::<u64>().ok().zip(factor);
        let bytes = bytes.and_then(|(number, factor)| number.checked_mul(factor));
        bytes.map(Self).ok_or_else(|| {
            format!("`{text}` is no size; write `512KiB`, `64MiB` or a number of bytes")
        })
    }
}

/// A rate: `100/1m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rate {
    pub(super) requests: u32,
    pub(super) per_ms: u64,
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rate = text.split_once('/').and_then(|(requests, per)| {
            let requests = requests.trim().parse().ok()?;
            let per = per.trim();
            let one = format!("1{per}");
            // `100/s` says as much as `100/1s`.
            let per: Length = per.parse().or_else(|_| one.parse()).ok()?;
            Some(Self { requests, per_ms: per.ms() })
        });
        rate.ok_or_else(|| format!("`{text}` is no rate; write `100/1m`"))
    }
}

/// `none`: nothing is shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ReuseText;

impl FromStr for ReuseText {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self),
            _ => Err(format!("`{text}` is not `none`; to share write {{ requests = 1000 }}")),
        }
    }
}

macro_rules! deserialize_from_text {
    ($($type:ident: $kinds:tt, $example:literal, $pattern:literal;)*) => {
        $(
            impl<'de> Deserialize<'de> for $type {
                fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                    deserializer.deserialize_any(Text(PhantomData))
                }
            }

            impl JsonSchema for $type {
                fn schema_name() -> Cow<'static, str> {
                    stringify!($type).into()
                }

                fn json_schema(_: &mut SchemaGenerator) -> Schema {
                    json_schema!({
                        "type": $kinds,
                        "pattern": $pattern,
                        "examples": [$example],
                    })
                }

                fn inline_schema() -> bool {
                    true
                }
            }
        )*
    };
}

deserialize_from_text! {
    Length: "string", "10s", "^[0-9].*[a-z]$";
    Size: ["string", "integer"], "64MiB", "^[0-9]+ *([KMG](iB)?|B)?$";
}

struct Text<T>(PhantomData<T>);

impl<T: FromStr<Err = String>> Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text such as \"10s\" or \"64MiB\"")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        number.to_string().parse().map_err(E::custom)
    }
}

/// A table, or a text that says the same or the usual.
#[derive(Debug, Clone)]
pub(super) enum OrText<T, S = String> {
    Table(T),
    Text(S),
}

impl<'de, T: Deserialize<'de>, S: FromStr<Err = String>> Deserialize<'de> for OrText<T, S> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either<T, S>(PhantomData<(T, S)>);

        impl<'de, T: Deserialize<'de>, S: FromStr<Err = String>> Visitor<'de> for Either<T, S> {
            type Value = OrText<T, S>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a table")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                text.parse().map(OrText::Text).map_err(E::custom)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(OrText::Table)
            }
        }

        deserializer.deserialize_any(Either(PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for OrText<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("{}OrText", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let table = generator.subschema_for::<T>();
        json_schema!({ "anyOf": [{ "type": "string" }, table] })
    }

    fn inline_schema() -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        assert_eq!("500ms".parse(), Ok(Length(500)));
        assert_eq!("1m".parse(), Ok(Length(60_000)));
        assert_eq!("64MiB".parse(), Ok(Size(64 << 20)));
        assert_eq!("1 GiB".parse(), Ok(Size(1 << 30)));
        assert_eq!("70000".parse(), Ok(Size(70_000)));
        let minute = |requests| Rate { requests, per_ms: 60_000 };
        assert_eq!("100/1m".parse(), Ok(minute(100)));
        assert_eq!("5 / m".parse(), Ok(minute(5)));
        for bad in ["", "10", "s", "-1s", "10 x"] {
            assert!(bad.parse::<Length>().is_err(), "{bad}");
        }
        for bad in ["", "MiB", "1MB", "-1", "1.5MiB", "99999999999GiB"] {
            assert!(bad.parse::<Size>().is_err(), "{bad}");
        }
        for bad in ["", "100", "/1m", "x/1m", "1/x"] {
            assert!(bad.parse::<Rate>().is_err(), "{bad}");
        }
    }
}
