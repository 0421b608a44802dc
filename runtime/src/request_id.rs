//! The id of a request: made first, and in every log line, response and error about it.

use http::HeaderValue;
use std::fmt;

/// 128 bits, and how they are written. The node makes ULIDs: 48 bits of milliseconds, 80 random
/// bits, 26 characters of Crockford's base 32. A trusted proxy may have made another one.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct RequestId {
    bytes: [u8; 16],
    form: Form,
}

/// How an id is written.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Form {
    Ulid,
    /// 32 hexadecimal digits, as nginx makes them.
    Hex,
    /// The same with hyphens (RFC 9562), as Envoy makes them.
    Uuid,
}

/// The longest written form, in bytes.
const MAX_LEN: usize = 36;

impl RequestId {
    /// A fresh id.
    pub(crate) fn new() -> Self {
        Self { bytes: ulid::Ulid::generate().to_bytes(), form: Form::Ulid }
    }

    /// An id that somebody else made: a ULID, a UUID, or 32 hexadecimal digits, exactly as this
    /// node would write it.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (bytes, form) = match text.len() {
            26 => (ulid::Ulid::from_string(text).ok()?.to_bytes(), Form::Ulid),
            32 => (u128::from_str_radix(text, 16).ok()?.to_be_bytes(), Form::Hex),
            36 => {
                (u128::from_str_radix(&text.replace('-', ""), 16).ok()?.to_be_bytes(), Form::Uuid)
            }
            _ => return None,
        };
        let id = Self { bytes, form };
        (id.write(&mut [0; MAX_LEN]) == text).then_some(id)
    }

    /// The id as a header value.
    pub(crate) fn header(self) -> HeaderValue {
        HeaderValue::from_str(self.write(&mut [0; MAX_LEN]))
            .unwrap_or_else(|_| HeaderValue::from_static(""))
    }

    fn write(self, buffer: &mut [u8; MAX_LEN]) -> &str {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        if self.form == Form::Ulid {
            let (text, _) = buffer.split_at_mut(ulid::ULID_LEN);
            let text = <&mut [u8; ulid::ULID_LEN]>::try_from(text);
            return text.map_or("", |text| ulid::Ulid::from_bytes(self.bytes).array_to_str(text));
        }
        let mut length = 0;
        let mut put = |byte: u8| {
            if let Some(place) = buffer.get_mut(length) {
                *place = byte;
                length += 1;
            }
        };
        for (at, byte) in self.bytes.into_iter().enumerate() {
            if self.form == Form::Uuid && matches!(at, 4 | 6 | 8 | 10) {
                put(b'-');
            }
            for digit in [byte >> 4, byte & 15] {
                put(DIGITS.get(usize::from(digit)).copied().unwrap_or(b'0'));
            }
        }
        let text = buffer.get(..length).unwrap_or_default();
        std::str::from_utf8(text).unwrap_or_default()
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.write(&mut [0; MAX_LEN]))
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ids_of_others_are_written_as_they_came() {
        for text in [
            "01ARZ3NDEKTSV4RRFFQ69G5FAV",
            "7f1a00c5d2b94d2c8f1e0a9b8c7d6e5f",
            "7f1a00c5-d2b9-4d2c-8f1e-0a9b8c7d6e5f",
            "00000000000000000000000000000000",
        ] {
            let id = RequestId::parse(text).unwrap();
            assert_eq!((id.to_string().as_str(), id.header().to_str().unwrap()), (text, text));
        }
        for text in [
            "",
            "42",
            "01arz3ndektsv4rrffq69g5fav",
            "81ARZ3NDEKTSV4RRFFQ69G5FAV",
            "7F1A00C5D2B94D2C8F1E0A9B8C7D6E5F",
            "+f1a00c5d2b94d2c8f1e0a9b8c7d6e5f",
            "7f1a00c5-d2b94-d2c-8f1e-0a9b8c7d6e5f",
            "------------------------------------",
            "7f1a00c5-d2b9-4d2c-8f1e-0a9b8c7d6e5f0",
        ] {
            assert_eq!(RequestId::parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_made_is_read(text in "\\PC{20,40}") {
            let id = RequestId::new();
            prop_assert_eq!(RequestId::parse(&id.to_string()), Some(id));
            // Whatever is taken is written as it came.
            if let Some(id) = RequestId::parse(&text) {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }
}
