//! `.env` files: `NAME=VALUE` lines.
//!
//! ```text
//! # a comment
//! export NAME=plain text   # ends before a `#` that follows a space
//! SINGLE='exactly as it is, lines too'
//! DOUBLE="with \n, \t, \", \\ and \$"
//! ```
//!
//! Nothing is put in place of `$NAME`: a password may have a `$`, and what a file means must not
//! depend on who reads it.

use crate::{
    artifact::io_text,
    error::{CliError, Exit, Result},
    format,
};
use faas_api::VarName;
use std::{collections::BTreeMap, io::Read as _, path::Path};

/// The largest file, in bytes: more than an app may have.
const MAX_FILE: u64 = 1 << 20;

/// What a file sets, the last of several for one name.
pub(crate) type Entries = BTreeMap<VarName, String>;

/// Reads a file; `-` is standard input.
pub(crate) fn read(file: &Path) -> Result<Entries> {
    let named = pairs(file)?.into_iter().map(|pair| match pair.name.parse::<VarName>() {
        Ok(name) => Ok((name, pair.value)),
        Err(error) => Err(wrong(file, Problem { line: pair.line, what: error.to_string() })),
    });
    named.collect()
}

fn pairs(file: &Path) -> Result<Vec<Pair>> {
    let shown = file.display();
    let unreadable = |error: std::io::Error| {
        let message = format!("cannot read `{shown}`: {}", io_text(&error));
        CliError::new(Exit::Usage, "no_such_file", message)
    };
    let mut text = String::new();
    let read = match file == Path::new("-") {
        true => std::io::stdin().take(MAX_FILE + 1).read_to_string(&mut text),
        false => {
            let file = std::fs::File::open(file).map_err(unreadable)?;
            file.take(MAX_FILE + 1).read_to_string(&mut text)
        }
    };
    let bytes = read.map_err(unreadable)?;
    if bytes as u64 > MAX_FILE {
        return Err(CliError::usage(format!("`{shown}` has more than {MAX_FILE} bytes")));
    }
    parse(&text).map_err(|problem| wrong(file, problem))
}

fn wrong(file: &Path, Problem { line, what }: Problem) -> CliError {
    CliError::usage(format!("`{}`, line {line}: {what}", file.display()))
        .hint("lines are NAME=VALUE; values with spaces at an end, ` #` or lines are in quotes")
}

/// Variables as lines that [`read`] reads back.
pub(crate) fn written<'a>(
    variables: impl IntoIterator<Item = (&'a VarName, &'a String)>,
) -> String {
    let lines = variables.into_iter().map(|(name, value)| format!("{name}={}\n", quoted(value)));
    lines.collect()
}

fn quoted(value: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "_-./:@%+,=~?&".contains(c);
    if value.chars().all(plain) {
        return value.to_owned();
    }
    let mut text = String::from("\"");
    for c in value.chars() {
        match c {
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            '"' | '\\' | '$' => text.extend(['\\', c]),
            c => text.push(c),
        }
    }
    text.push('"');
    format::printable(&text).into_owned()
}

/// A line of a file.
#[derive(Debug, PartialEq, Eq)]
struct Pair {
    line: usize,
    name: String,
    value: String,
}

/// What is wrong with a file. Says nothing of values.
#[derive(Debug, PartialEq, Eq)]
struct Problem {
    line: usize,
    what: String,
}

fn parse(text: &str) -> std::result::Result<Vec<Pair>, Problem> {
    let mut cursor = Cursor { rest: text.strip_prefix('\u{feff}').unwrap_or(text), line: 1 };
    let mut pairs = Vec::new();
    while let Some(pair) = cursor.pair()? {
        pairs.push(pair);
    }
    Ok(pairs)
}

/// What is yet to be read, and the number of its first line.
struct Cursor<'a> {
    rest: &'a str,
    line: usize,
}

impl Cursor<'_> {
    fn pair(&mut self) -> std::result::Result<Option<Pair>, Problem> {
        loop {
            self.rest = self.rest.trim_start_matches([' ', '\t', '\r']);
            match self.rest.chars().next() {
                None => return Ok(None),
                Some('\n' | '#') => drop(self.take_line()),
                Some(_) => break,
            }
        }
        let line = self.line;
        let content = self.rest.lines().next().unwrap_or_default();
        let Some((name, value)) = content.split_once('=') else {
            return Err(self.problem("there is no `=`"));
        };
        let quote = value.trim_start_matches([' ', '\t']).chars().next();
        let name = name.trim();
        let name = name.strip_prefix("export ").unwrap_or(name).trim_start().to_owned();
        self.advance(content.len() - value.len());
        let value = match quote {
            Some(quote @ ('"' | '\'')) => {
                self.rest = self.rest.trim_start_matches([' ', '\t']);
                self.advance(quote.len_utf8());
                self.quoted(quote)?
            }
            _ => plain(&self.take_line()),
        };
        Ok(Some(Pair { line, name, value }))
    }

    /// A value up to its closing quote, behind which there is nothing but a comment.
    fn quoted(&mut self, quote: char) -> std::result::Result<String, Problem> {
        let mut value = String::new();
        let mut chars = self.rest.char_indices();
        while let Some((place, c)) = chars.next() {
            match c {
                c if c == quote => {
                    self.advance(place + c.len_utf8());
                    let behind = self.rest.lines().next().unwrap_or_default().trim_start();
                    if !behind.is_empty() && !behind.starts_with('#') {
                        return Err(self.problem("there is something behind the closing quote"));
                    }
                    drop(self.take_line());
                    return Ok(value);
                }
                '\\' if quote == '"' => match chars.next() {
                    Some((_, 'n')) => value.push('\n'),
                    Some((_, 'r')) => value.push('\r'),
                    Some((_, 't')) => value.push('\t'),
                    Some((_, c @ ('"' | '\\' | '$'))) => value.push(c),
                    Some((_, c)) => value.extend(['\\', c]),
                    None => break,
                },
                c => value.push(c),
            }
        }
        Err(self.problem("the quote is not closed"))
    }

    fn take_line(&mut self) -> String {
        let line = self.rest.split_inclusive('\n').next().unwrap_or_default().to_owned();
        self.advance(line.len());
        line
    }

    fn advance(&mut self, bytes: usize) {
        let (read, rest) = self.rest.split_at(bytes);
        self.line += read.matches('\n').count();
        self.rest = rest;
    }

    fn problem(&self, what: &str) -> Problem {
        Problem { line: self.line, what: what.to_owned() }
    }
}

/// A value without quotes: up to a comment, without spaces at its ends.
fn plain(text: &str) -> String {
    let comment = text
        .match_indices('#')
        .find(|(place, _)| text.get(..*place).is_some_and(|before| before.ends_with([' ', '\t'])));
    let text = comment.and_then(|(place, _)| text.get(..place)).unwrap_or(text);
    text.trim().to_owned()
}

/// What `faas dev` does with these files.
#[cfg(feature = "serve")]
pub(crate) mod dev {
    use super::{Entries, pairs};
    use crate::{
        client::Client,
        error::{CliError, Exit, Result},
        format,
        project::{MANIFEST, Project},
        ui::Ui,
    };
    use faas_api::{Env, EnvChange, ErrorCode, VarName};
    use std::{
        collections::BTreeSet,
        path::{Path, PathBuf},
    };

    /// Beside the manifest; what the later one sets wins. The second is for this machine alone.
    const FILES: [&str; 2] = [".env", ".env.local"];

    /// Where a project's files are, or would be.
    pub(crate) fn files(dir: &Path) -> [PathBuf; 2] {
        FILES.map(|file| dir.join(file))
    }

    /// Makes the variables of the development node what the files say, and sets the secrets that
    /// the manifest names. Without files nothing is touched, unless one has just been removed.
    pub(crate) async fn apply(
        ui: &Ui,
        client: &Client,
        project: &Project,
        changed: &[PathBuf],
    ) -> Result<()> {
        let files = files(&project.dir);
        let mut entries = Entries::new();
        let mut read = Vec::new();
        for (file, name) in files.iter().zip(FILES).filter(|(file, _)| file.is_file()) {
            entries.extend(usable(ui, file)?);
            read.push(name);
        }
        if read.is_empty() && !files.iter().any(|file| changed.contains(file)) {
            return Ok(());
        }
        let named = secrets_of(project);
        let (secrets, env): (Entries, Entries) =
            entries.into_iter().partition(|(name, _)| named.contains(name));
        for (name, value) in secrets {
            client.put_secret(&project.app, &name, value).await?;
        }
        let known = match client.env(&project.app).await {
            Ok(Env { env, .. }) => env,
            Err(error) if error.exit == Exit::NotFound => Entries::new(),
            Err(error) => return Err(error),
        };
        let change = difference(&known, env);
        if !change.0.is_empty() {
            client.change_env(&project.app, &change).await?;
            let count = format::counted(change.0.len(), "variable");
            let said = if read.is_empty() { FILES.join(" and ") } else { read.join(" and ") };
            ui.notice(&format!("changed {count} to match {said}"));
        }
        Ok(())
    }

    /// What a file sets. It may be for other tools, too: names that functions cannot have are left
    /// out, and that is said.
    fn usable(ui: &Ui, file: &Path) -> Result<Entries> {
        let mut entries = Entries::new();
        for pair in pairs(file)? {
            match pair.name.parse::<VarName>() {
                Ok(name) => drop(entries.insert(name, pair.value)),
                Err(error) => {
                    ui.notice(&format!("{}, line {}: {error}", file.display(), pair.line));
                }
            }
        }
        Ok(entries)
    }

    /// A secret that is missing is set in a file here, and not with a command.
    pub(crate) fn explain(error: CliError) -> CliError {
        match error.code == ErrorCode::MissingSecret.as_str() {
            true => error.hint(format!("set it in {} beside {MANIFEST}", FILES.join(" or "))),
            false => error,
        }
    }

    /// What makes one of the other.
    fn difference(known: &Entries, wanted: Entries) -> EnvChange {
        let gone = known.keys().filter(|name| !wanted.contains_key(*name));
        let gone: Vec<_> = gone.map(|name| (name.clone(), None)).collect();
        let set = wanted.into_iter().filter(|(name, value)| known.get(name) != Some(value));
        EnvChange(set.map(|(name, value)| (name, Some(value))).chain(gone).collect())
    }

    /// The secrets that any function of a project names.
    fn secrets_of(project: &Project) -> BTreeSet<VarName> {
        project.functions.iter().flat_map(|function| function.settings.secrets.clone()).collect()
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn differences() {
            let entries = |pairs: &[(&str, &str)]| -> Entries {
                pairs.iter().map(|(n, v)| (n.parse().unwrap(), (*v).to_owned())).collect()
            };
            let known = entries(&[("A", "1"), ("B", "1"), ("C", "1")]);
            let EnvChange(change) =
                difference(&known, entries(&[("A", "1"), ("B", "2"), ("D", "1")]));
            let change: Vec<_> = change.iter().map(|(n, v)| (n.as_str(), v.as_deref())).collect();
            assert_eq!(change, [("B", Some("2")), ("C", None), ("D", Some("1"))]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Vec<(String, String)> {
        parse(text).unwrap().into_iter().map(|pair| (pair.name, pair.value)).collect()
    }

    fn value(text: &str) -> String {
        let mut pairs = parsed(text);
        assert_eq!(pairs.len(), 1, "{text}");
        pairs.remove(0).1
    }

    #[test]
    fn lines_of_every_kind() {
        let text =
            "\u{feff}# first\r\n\n  A=1\r\nexport B = two words  \nC=\n\tD='x' # yes\nE=\"y\"";
        let pairs = parsed(text);
        let pairs: Vec<(&str, &str)> =
            pairs.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(pairs, [("A", "1"), ("B", "two words"), ("C", ""), ("D", "x"), ("E", "y")]);
    }

    #[test]
    fn values() {
        assert_eq!(value("A=x=y"), "x=y");
        assert_eq!(value("A=pa$word"), "pa$word");
        assert_eq!(value("A=\"pa$word ${HOME}\""), "pa$word ${HOME}");
        assert_eq!(value("A=x # comment"), "x");
        assert_eq!(value("A= # comment"), "");
        assert_eq!(value("A=#fff"), "#fff");
        assert_eq!(value("A=x#y"), "x#y");
        assert_eq!(value("A='it is # \\n \" so'"), "it is # \\n \" so");
        assert_eq!(value(r#"A="a\nb\t\"c\" \\ \$ \x""#), "a\nb\t\"c\" \\ $ \\x");
        assert_eq!(value("A='one\ntwo'"), "one\ntwo");
        assert_eq!(value("A=it's"), "it's");
    }

    #[test]
    fn mistakes_have_a_line_and_no_value() {
        for (text, line, part) in [
            ("A=1\nhunter2\n", 2, "no `=`"),
            ("A='x\ny'\nB=\"hunter2\n\n", 3, "not closed"),
            ("# c\n\nA='x'hunter2", 3, "behind"),
        ] {
            let problem = parse(text).unwrap_err();
            assert_eq!(problem.line, line, "{text}: {problem:?}");
            assert!(problem.what.contains(part) && !problem.what.contains("hunter2"));
        }
    }

    #[test]
    fn what_is_written_reads_the_same() {
        let names = ["A", "B", "C", "D", "E", "F"].map(|name| name.parse::<VarName>().unwrap());
        let values =
            ["", "plain/1", "two words ", "a\nb", "\"$\\'", "#x # ä\t\r"].map(str::to_owned);
        let variables: Entries = names.into_iter().zip(values).collect();
        let text = written(&variables);
        let read = parsed(&text).into_iter().map(|(name, value)| (name.parse().unwrap(), value));
        assert_eq!(read.collect::<Entries>(), variables, "{text}");
    }
}
