//! What may stand in a line: text that is cut to size, and does nothing but be read.

use super::MAX_LINE_BYTES;
use faas_api::LogSource;
use std::fmt::Write as _;

/// What stands where a line was cut.
pub(super) const CUT_MARK: &str = " … (cut)";

/// The same with text that can stand in a line.
pub(super) fn source(mut source: LogSource) -> LogSource {
    match &mut source {
        LogSource::Request { method, path, .. } => {
            escape(method, false);
            escape(path, false);
        }
        LogSource::Stdout { message } | LogSource::Stderr { message } => escape(message, false),
        LogSource::Log { context, message } => {
            escape(context, false);
            escape(message, true);
        }
        // A failure has many lines by design; nothing else of it may steer a terminal.
        LogSource::Failure { message } => escape(message, true),
    }
    source
}

/// Replaces what would end a line, steer a terminal or reorder text by its escape.
pub(super) fn escape(text: &mut String, keep_newlines: bool) {
    // Nearly all text is like this.
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return;
    }
    let harmless = |c: char| !is_unsafe(c) || (keep_newlines && c == '\n');
    if text.chars().all(harmless) {
        return;
    }
    let mut escaped = String::with_capacity(text.len() + 64);
    for c in text.chars() {
        if harmless(c) {
            escaped.push(c);
        } else {
            escaped.extend(c.escape_default());
        }
        if escaped.len() > MAX_LINE_BYTES {
            cut(&mut escaped);
            break;
        }
    }
    *text = escaped;
}

/// Controls (C0, DEL, C1) but for the tab, and the marks that start a line or reorder text.
pub(super) fn is_unsafe(c: char) -> bool {
    match c {
        '\t' => false,
        '\u{61c}' | '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
            true
        }
        c => c.is_control(),
    }
}

/// Cuts a line to its limit, the mark included.
pub(super) fn cut(text: &mut String) {
    text.truncate(text.floor_char_boundary(MAX_LINE_BYTES - CUT_MARK.len()));
    text.push_str(CUT_MARK);
}

/// The text with every byte that is no UTF-8 written as `\x..`.
pub(super) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() + 64);
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            // Writing to a string cannot fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}
