//! Wasm to deploy: the examples, the test guests, and modules written as text.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A test guest, by what kind of function it is. All of them behave alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guest {
    /// A component of WASI 0.3.
    Http03,
    /// A component of WASI 0.2.
    Http02,
    /// A module of WASI 0.1, called as CGI.
    Cgi01,
    /// A `wasi:cli/run` component, called as CGI.
    Cgi02,
}

impl Guest {
    /// One of each kind.
    pub const ALL: [Self; 4] = [Self::Http03, Self::Http02, Self::Cgi01, Self::Cgi02];

    /// The name of the app that [`crate::Node::with_guests`] deploys it as.
    pub fn app(self) -> &'static str {
        match self {
            Self::Http03 => "http03",
            Self::Http02 => "http02",
            Self::Cgi01 => "cgi01",
            Self::Cgi02 => "cgi02",
        }
    }

    /// The kind as the API names it.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Http03 => "http-0.3",
            Self::Http02 => "http-0.2",
            Self::Cgi01 => "cgi-0.1",
            Self::Cgi02 => "cgi-0.2",
        }
    }

    /// Whether its standard output is its response.
    pub fn is_cgi(self) -> bool {
        matches!(self, Self::Cgi01 | Self::Cgi02)
    }

    /// Where its artifact is.
    pub fn file(self) -> PathBuf {
        target().join("guests").join(match self {
            Self::Http03 => "wasm32-wasip2/release/guest_p3.wasm",
            Self::Http02 => "wasm32-wasip2/release/guest_p2.wasm",
            Self::Cgi01 => "wasm32-wasip1/release/guest-cgi.wasm",
            Self::Cgi02 => "wasm32-wasip2/release/guest-cgi.wasm",
        })
    }

    /// Its artifact.
    ///
    /// # Panics
    /// When it was not built.
    pub fn wasm(self) -> Vec<u8> {
        read(&self.file())
    }
}

/// The test guests that ask others through the SDK, for WASI 0.3 and 0.2.
///
/// # Panics
/// When they were not built.
pub fn fetchers() -> [Vec<u8>; 2] {
    ["guest_fetch03", "guest_fetch02"].map(|name| {
        let file = format!("guests/wasm32-wasip2/release/{name}.wasm");
        read(&target().join(file))
    })
}

/// The repository.
pub fn repository() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("tests/ has a parent").to_owned()
}

/// Where an example's artifact is.
///
/// # Panics
/// When it was not built.
pub fn example(name: &str) -> PathBuf {
    let file = target().join("examples").join(format!("{name}.wasm"));
    assert!(file.is_file(), "{}", missing(&file));
    file
}

/// A guest that writes through `wasi:logging`: `logging02` or `logging03`.
///
/// # Panics
/// When it was not built.
pub fn logging(name: &str) -> Vec<u8> {
    read(&target().join(format!("guests/wasm32-wasip2/release/guest_{name}.wasm")))
}

/// A test guest that is a component, by the name of its folder.
///
/// # Panics
/// When it was not built.
pub fn guest(name: &str) -> Vec<u8> {
    read(&target().join(format!("guests/wasm32-wasip2/release/guest_{name}.wasm")))
}

/// A program of tests/guests/wat with other words in its text, assembled.
///
/// # Panics
/// When there is none of that name.
pub fn wat_with(name: &str, words: &[(&str, &str)]) -> Vec<u8> {
    let source = wat_source(name);
    assemble(&words.iter().fold(source, |text, (from, to)| text.replace(from, to)))
}

/// A program of tests/guests/wat, assembled.
///
/// # Panics
/// When there is none of that name.
pub fn wat(name: &str) -> Vec<u8> {
    assemble(&wat_source(name))
}

/// The smallest program there is, which answers this text. Every text is another artifact.
///
/// # Panics
/// When the text is over 32 bytes.
pub fn says(text: &str) -> Vec<u8> {
    assert!(text.len() <= 32 && text.is_ascii(), "a short plain text");
    let mut padded = text.to_owned();
    while padded.len() < 32 {
        padded.push(' ');
    }
    assemble(&wat_source("hello").replace("TEXT", &padded))
}

/// Text to binary.
///
/// # Panics
/// When the text is not WebAssembly.
pub fn assemble(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap_or_else(|error| panic!("{error}"))
}

fn wat_source(name: &str) -> String {
    let file = repository().join(format!("tests/guests/wat/{name}.wat"));
    String::from_utf8(read(&file)).expect("text")
}

fn read(file: &Path) -> Vec<u8> {
    fs::read(file).unwrap_or_else(|_| panic!("{}", missing(file)))
}

fn missing(file: &Path) -> String {
    format!("{} is missing: tests/run.sh builds what the tests need", file.display())
}

/// Guests and examples are always built here, wherever the host's own build goes.
fn target() -> PathBuf {
    repository().join("target")
}
