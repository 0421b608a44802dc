//! What is wrong with a manifest: where it stands, and what to write instead.

use super::MANIFEST;
use crate::error::{CliError, Exit};
use faas_api::manifest::ManifestProblem;
use std::ops::Range;
use toml::de::{DeTable, DeValue};

/// What is wrong with a manifest, in our words.
pub(super) struct Complaint {
    message: String,
    /// What stands beside the marked place.
    remark: String,
    hint: Option<String>,
    span: Option<Range<usize>>,
}

/// What people write who know another tool.
const OTHER_WORDS: [(&str, &str); 4] = [
    ("route", "`routes`? (a list: routes = [\"/api/*\"])"),
    ("outbound", "`grants.outbound`?"),
    ("function", "`functions`?"),
    ("secret", "`secrets`? (a list of names)"),
];

impl Complaint {
    /// About a key or a value that does not fit its type.
    pub(super) fn of(error: &toml::de::Error) -> Self {
        let text = error.message().trim();
        let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
        let complaint = |message: String, remark: String| Self {
            message,
            remark,
            hint: None,
            span: error.span(),
        };
        if let Some(rest) = first.strip_prefix("unknown field ") {
            let mut words = rest.split('`').skip(1).step_by(2);
            let key = words.next().unwrap_or_default();
            return complaint(
                format!("unknown key `{key}`"),
                suggestion(key, &words.collect::<Vec<_>>()),
            );
        }
        if let Some(key) = first.strip_prefix("missing field ") {
            return complaint(format!("missing key {key}"), String::new());
        }
        if let Some(message) = wrong_type(first) {
            return complaint(message, String::new());
        }
        complaint(first.to_owned(), rest.lines().collect::<Vec<_>>().join(" "))
    }

    /// About what the manifest says as a whole.
    pub(super) fn about(problem: ManifestProblem, root: &DeTable<'_>) -> Self {
        let ManifestProblem { at, problem, hint } = problem;
        // `domains` and `health` of the wire stand in [app].
        let place = match at.as_str() {
            "domains" | "health" => format!("app.{at}"),
            _ => at,
        };
        let span = locate(root, &place);
        Self { message: format!("{place}: {problem}"), remark: String::new(), hint, span }
    }

    /// With the line, and the place in it marked.
    pub(super) fn explain(self, text: &str) -> CliError {
        let Self { message, remark, hint, span } = self;
        let with_hint = |error: CliError| match hint {
            Some(hint) => error.hint(hint),
            None => error,
        };
        let Some(span) = span else {
            let message = format!("{message} in {MANIFEST}");
            return with_hint(CliError::new(Exit::Usage, "manifest", message));
        };
        let before = text.get(..span.start).unwrap_or(text);
        let number = before.matches('\n').count() + 1;
        let line_start = before.rfind('\n').map_or(0, |place| place + 1);
        let line = text.get(line_start..).and_then(|rest| rest.lines().next()).unwrap_or_default();
        let column = before.len() - line_start;
        let marked = span.len().min(line.len().saturating_sub(column));
        let indent = line.get(..column).map_or(column, |start| start.chars().count());
        let marked = line.get(column..column + marked).map_or(marked, |part| part.chars().count());
        let gutter = " ".repeat(number.to_string().len());
        let marks = format!("{}{} {remark}", " ".repeat(indent), "^".repeat(marked.max(1)));
        let message = format!("{message} in {MANIFEST}, line {number}");
        with_hint(CliError::new(Exit::Usage, "manifest", message).details(vec![
            format!("{number} | {line}"),
            format!("{gutter} | {}", marks.trim_end()),
        ]))
    }
}

/// A value of another type, in the words of TOML's users and not of its parser.
fn wrong_type(text: &str) -> Option<String> {
    let (found, expected) = text.strip_prefix("invalid type: ")?.split_once(", expected ")?;
    let expected = match expected {
        "a sequence" => "a list",
        "a boolean" => "true or false",
        "a map" => "a table",
        other if other.starts_with("struct ") => "a table",
        other => other,
    };
    let found = match found.split_once(' ') {
        Some(("boolean", value)) => value.to_owned(),
        Some(("string", value)) => format!("the text {value}"),
        Some(("integer" | "floating", value)) => {
            format!("the number {}", value.trim_start_matches("point "))
        }
        _ => match found {
            "sequence" => "a list".to_owned(),
            "map" => "a table".to_owned(),
            other => other.to_owned(),
        },
    };
    Some(format!("expected {expected}, found {found}"))
}

/// Where the last part of a dotted path stands that there is.
fn locate(root: &DeTable<'_>, path: &str) -> Option<Range<usize>> {
    let (mut table, mut span) = (Some(root), None);
    for part in path.split('.') {
        let Some((key, value)) = table.and_then(|table| table.get_key_value(part)) else {
            break;
        };
        span = Some(key.span());
        table = match value.get_ref() {
            DeValue::Table(inner) => Some(inner),
            _ => None,
        };
    }
    span
}

fn suggestion(key: &str, known: &[&str]) -> String {
    let other = OTHER_WORDS.iter().find(|(word, meant)| {
        let meant = meant.trim_start_matches('`').split(['`', '.']).next().unwrap_or_default();
        *word == key && known.contains(&meant)
    });
    if let Some((_, meant)) = other {
        return format!("did you mean {meant}");
    }
    let near = known.iter().map(|word| (distance(key, word), word)).min();
    match near {
        Some((distance, word)) if distance <= key.len().max(word.len()) / 3 + 1 => {
            format!("did you mean `{word}`?")
        }
        _ => {
            let known: Vec<String> = known.iter().map(|word| format!("`{word}`")).collect();
            format!("known here: {}", known.join(", "))
        }
    }
}

/// How many letters to add, drop or change to get from one word to the other (Levenshtein).
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (place, letter) in from.chars().enumerate() {
        let mut next = vec![place + 1];
        for ((other, pair), left) in to.iter().zip(row.windows(2)).zip(0..) {
            let (diagonal, above) = match pair {
                [diagonal, above] => (*diagonal, *above),
                _ => continue,
            };
            let left = next.get(left).copied().unwrap_or(usize::MAX - 1);
            let change = usize::from(*other != letter);
            next.push((diagonal + change).min(above + 1).min(left + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        assert_eq!(distance("route", "routes"), 1);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("same", "same"), 0);
    }
}
