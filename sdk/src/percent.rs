//! Percent-decoding, for path parameters and query strings.

use std::borrow::Cow;

/// Decodes `%41` to `A`. `None` if an escape is broken or the result is not UTF-8.
pub(crate) fn decode(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => hex(bytes.next()?)? << 4 | hex(bytes.next()?)?,
            other => other,
        });
    }
    String::from_utf8(decoded).ok().map(Cow::Owned)
}

/// Finds the first `name=value` of a query string and decodes the value.
pub(crate) fn query_value<'q>(query: &'q str, name: &str) -> Option<Cow<'q, str>> {
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode_form(key)? == name).then(|| decode_form(value))?
    })
}

/// In forms and query strings, a plus is a space.
fn decode_form(text: &str) -> Option<Cow<'_, str>> {
    if text.contains('+') {
        let spaced = text.replace('+', " ");
        return decode(&spaced).map(|decoded| Cow::Owned(decoded.into_owned()));
    }
    decode(text)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_escapes() {
        assert_eq!(decode("plain").unwrap(), "plain");
        assert_eq!(decode("J%C3%BCrgen%2f").unwrap(), "Jürgen/");
        assert_eq!(decode("a+b").unwrap(), "a+b");
    }

    #[test]
    fn refuses_what_is_no_text() {
        for broken in ["%", "%4", "%zz", "%ff", "%+1"] {
            assert_eq!(decode(broken), None, "{broken}");
        }
    }

    #[test]
    fn finds_values() {
        let query = "a=1&na%20me=x+y%21&flag&a=2";
        assert_eq!(query_value(query, "a").unwrap(), "1");
        assert_eq!(query_value(query, "na me").unwrap(), "x y!");
        assert_eq!(query_value(query, "flag").unwrap(), "");
        assert_eq!(query_value(query, "b"), None);
    }
}
