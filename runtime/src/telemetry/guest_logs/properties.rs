//! What must hold of a function's lines, whatever bytes it wrote and whatever a disk has kept of
//! them. Each function panics where it does not: tests call them with small random inputs, `fuzz/`
//! with many.

#![expect(clippy::expect_used, reason = "a property that does not hold fails its test")]
#![allow(unreachable_pub, reason = "`fuzz/` reaches it, by a feature")]

use super::{
    MAX_LINE_BYTES,
    disk::index::Segment,
    escape::{self, hex},
};
use faas_api::{LogLine, LogSource};

/// What is shown of any bytes is text of limited length that steers nothing, and can be read back
/// from JSON as what it was; doing it twice changes nothing.
pub fn lines(data: &[u8]) {
    let text = hex(data);
    for keep_newlines in [false, true] {
        let mut shown = text.clone();
        escape::escape(&mut shown, keep_newlines);
        let harmful = |c: char| escape::is_unsafe(c) && !(keep_newlines && c == '\n');
        assert!(!shown.contains(harmful), "{shown:?}");
        assert!(shown.len() <= MAX_LINE_BYTES.max(text.len()), "{}", shown.len());
        let mut again = shown.clone();
        escape::escape(&mut again, keep_newlines);
        assert_eq!(again, shown);
    }
    let message = text.clone();
    for source in [
        LogSource::Stderr { message: message.clone() },
        LogSource::Log { context: message.clone(), message: message.clone() },
        LogSource::Failure { message },
    ] {
        let source = escape::source(source);
        let json = serde_json::to_string(&source).expect("JSON");
        assert!(!json.contains('\n'), "one line: {json}");
        let back: LogSource = serde_json::from_str(&json).expect("what was written");
        assert_eq!(back, source);
    }
}

/// A file of lines is read as far as it has whole lines, whatever is in it.
pub fn log_file(data: &[u8]) {
    let segment = Segment::scan(1, data).expect("memory does not fail");
    let whole = data.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    assert_eq!(segment.bytes(), whole as u64);
    // What is behind the last whole line makes no difference, and neither does reading it again.
    let again = Segment::scan(1, data.get(..whole).unwrap_or_default()).expect("memory");
    assert_eq!(again, segment);
    for line in data.split(|byte| *byte == b'\n') {
        if let Ok(line) = serde_json::from_slice::<LogLine>(line) {
            let text = serde_json::to_string(&line).expect("JSON");
            assert_eq!(serde_json::from_str::<LogLine>(&text).expect("what was written"), line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn whatever_a_function_writes(
            bytes in any::<Vec<u8>>(),
            text in "(\\PC|[\u{0}-\u{a0}]|\u{1b}\\[31m|\u{202e}|\u{2028}|\\{\"level\":\"error\"\\}){0,40}",
            times in prop::sample::select(vec![1_usize, 1, 1, 2000]),
        ) {
            lines(&bytes);
            lines(text.repeat(times).as_bytes());
        }

        #[test]
        fn whatever_is_in_a_file(
            parts in prop::collection::vec(prop::sample::select(vec![
                r#"{"seq":1,"time":"2026-01-01T00:00:00Z","app":"a","function":"main","version":"v1","request_id":"x","level":"info","source":"stderr","message":"m"}"#,
                r#"{"seq":18446744073709551615,"time":"2026-01-01T00:00:00Z","app":"a"}"#,
                r#"{"deleted":"a"}"#, r#"{"deleted":"../a"}"#, r#"{"deleted":"a","seq":1}"#,
                "{}", "[", "\n", "\n", "\r\n", "\0", "{\"seq\":1",
            ]), 0..12),
            rest in any::<Vec<u8>>(),
        ) {
            log_file(parts.concat().as_bytes());
            log_file(&[parts.join("\n").as_bytes(), &rest].concat());
        }
    }
}
