//! What must hold of what a program writes as CGI, and of what is uploaded as a program, whatever
//! bytes somebody chose. Each function panics where it does not: tests call them with small random
//! inputs, `fuzz/` with many.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a property that does not hold fails its test"
)]
#![allow(unreachable_pub, reason = "`fuzz/` reaches it, by a feature")]

use super::{cgi, pool::Flavor, worker};
use faas_api::{Artifact, ArtifactError, Digest, Kind};
use std::{sync::LazyLock, time::Instant};
use wasmtime::Engine;

/// A head: status and fields, and where it ends.
type Head = (u16, Vec<(String, Vec<u8>)>, usize);

/// A header block is read as by a second reader, written for nothing but to be read, and no byte
/// behind it makes a difference.
pub fn cgi_block(data: &[u8]) {
    let read = |block: &[u8]| match cgi::parse_block(block) {
        Ok(Some((response, length))) => {
            let fields = response.headers().iter();
            let fields = fields.map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()));
            Ok(Some((response.status().as_u16(), sorted(fields.collect()), length)))
        }
        Ok(None) => Ok(None),
        Err(problem) => {
            assert!(!problem.contains(['\n', '\r', '\u{1b}']), "{problem:?}");
            Err(())
        }
    };
    let whole = read(data);
    assert_eq!(whole, model(data), "{:?}", String::from_utf8_lossy(data));
    if let Ok(Some((_, _, length))) = whole {
        assert_eq!(read(&data[..length]), whole);
        assert_eq!(read(&data[..length - 1]), Ok(None), "it ends nowhere before");
    }
}

/// Fields of one name stay in their order.
fn sorted(mut fields: Vec<(String, Vec<u8>)>) -> Vec<(String, Vec<u8>)> {
    fields.sort_by(|a, b| a.0.cmp(&b.0));
    fields
}

fn model(block: &[u8]) -> Result<Option<Head>, ()> {
    let (mut fields, mut status, mut length) = (Vec::new(), None, 0);
    for line in block.split_inclusive(|byte| *byte == b'\n') {
        let Some(text) = line.strip_suffix(b"\n") else { return Ok(None) };
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        length += line.len();
        if text.is_empty() {
            let redirect = fields.iter().any(|(name, _)| name == "location");
            let implied = if redirect { 302 } else { 200 };
            return match fields.is_empty() && status.is_none() {
                true => Err(()),
                false => Ok(Some((status.unwrap_or(implied), sorted(fields), length))),
            };
        }
        let mut parts = text.splitn(2, |byte| *byte == b':');
        let name = parts.next().unwrap_or_default();
        let value = parts.next().ok_or(())?.trim_ascii();
        if name.eq_ignore_ascii_case(b"status") {
            let digits = value.split(|byte| *byte == b' ').next().unwrap_or_default();
            let digits = std::str::from_utf8(digits).map_err(drop)?;
            let good = digits.len() == 3 && digits.bytes().all(|byte| byte.is_ascii_digit());
            let number = digits.parse().ok().filter(|number| good && (200..1000).contains(number));
            status = Some(number.ok_or(())?);
            continue;
        }
        // RFC 9110 §5.6.2 and §5.5.
        let token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
        let visible = |byte: &u8| *byte == b'\t' || *byte >= b' ' && *byte != 0x7f;
        if name.is_empty() || !name.iter().all(token) || !value.iter().all(visible) {
            return Err(());
        }
        fields.push((String::from_utf8_lossy(name).to_ascii_lowercase(), value.to_vec()));
    }
    Ok(None)
}

/// Bytes that somebody uploads are refused, or are what they are said to be, and compile or do not.
/// Returns what they are.
pub fn artifact(data: &[u8]) -> Option<Kind> {
    static SYNC: LazyLock<Engine> = LazyLock::new(|| engine(Flavor::Sync));
    static CONCURRENT: LazyLock<Engine> = LazyLock::new(|| engine(Flavor::Concurrent));
    let begun = Instant::now();
    let artifact = match Artifact::inspect(data) {
        Ok(artifact) => artifact,
        Err(ArtifactError::Damaged { offset, .. }) => {
            assert!(offset <= data.len() as u64, "{offset}");
            assert!(data.starts_with(b"\0asm"));
            return None;
        }
        Err(_) => {
            assert!(!data.starts_with(b"\0asm"));
            return None;
        }
    };
    assert_eq!((artifact.digest, artifact.size), (Digest::of(data), data.len() as u64));
    let kind = artifact.kind?;
    let is_component = data[4..8] == [0x0d, 0, 1, 0];
    assert_eq!(is_component, kind != Kind::Cgi01, "{kind}");
    let has = |prefix: &str| artifact.exports.iter().any(|name| name.starts_with(prefix));
    assert!(match kind {
        Kind::Http03 => has("wasi:http/handler@0.3."),
        Kind::Http02 => has("wasi:http/incoming-handler@0.2."),
        Kind::Cgi02 => has("wasi:cli/run@0.2."),
        Kind::Cgi01 => artifact.exports.iter().any(|name| name == "_start"),
    });
    let engine = if kind == Kind::Http03 { &*CONCURRENT } else { &*SYNC };
    if let Ok(code) = worker::native_code(engine, data, is_component, false) {
        // What was compiled is no artifact, wherever it would be sent to.
        assert_eq!(Artifact::inspect(&code), Err(ArtifactError::Precompiled));
    }
    assert!(begun.elapsed().as_secs() < 60, "it took {:?}", begun.elapsed());
    Some(kind)
}

fn engine(flavor: Flavor) -> Engine {
    flavor.compiler(false).expect("an engine")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn two_readers_of_header_blocks_agree(
            lines in prop::collection::vec(prop::sample::select(vec![
                "Status: 404 Not Found\n", "status:201\r\n", "Status: 99\n", "Status: 100\n",
                "Status: 1000\n", "Status:\n", "STATUS: 200\n", "Location: /x\n", "x: y\r\n",
                "X:\n", ": x\n", "a b: c\n", "x: a\u{1}b\n", "x: \u{e4}\n", "\u{e4}: x\n", "x\n",
                "x: y\r\r\n", "\r\n", "\n", "\r", "x: \u{c} y\n", " x: y\n", "x : y\n", "x: y",
                "content-length: 5\n", "content-length: 6\n", "x:\u{7f}\n", "x:\0\n",
            ]), 0..6),
            rest in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            cgi_block(lines.concat().as_bytes());
            cgi_block(&[lines.concat().as_bytes(), &rest].concat());
            cgi_block(&rest);
        }
    }

    /// What `wasm-smith` made of random bytes (`fuzz/examples/modules.rs`): modules with a `_start`,
    /// modules with whatever came, and components; one after the other, each behind its length.
    fn generated() -> Vec<&'static [u8]> {
        let mut rest: &'static [u8] = include_bytes!("../../testdata/generated.bin");
        let mut all = Vec::new();
        while let Some((length, after)) = rest.split_first_chunk::<4>() {
            let (wasm, after) = after.split_at(u32::from_le_bytes(*length) as usize);
            all.push(wasm);
            rest = after;
        }
        all
    }

    #[test]
    fn programs_that_nobody_wrote() {
        let kinds: Vec<Option<Kind>> = generated().into_iter().map(artifact).collect();
        let count = |kind| kinds.iter().filter(|other| **other == kind).count();
        assert!(count(Some(Kind::Cgi01)) >= 30 && count(None) >= 20, "{kinds:?}");
        for wasm in generated() {
            assert!(Artifact::inspect(wasm).is_ok(), "all of them are valid");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: small(24), ..ProptestConfig::default() })]

        #[test]
        fn damaged_programs_that_nobody_wrote(
            wasm in prop::sample::select(generated()),
            harms in prop::collection::vec((any::<prop::sample::Index>(), 0..8), 1..4),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut damaged = wasm.to_vec();
            for (at, bit) in &harms {
                let at = at.index(damaged.len());
                damaged[at] ^= 1_u8 << bit;
            }
            artifact(&damaged);
            artifact(&wasm[..cut.index(wasm.len())]);
        }
    }

    /// As many cases as are asked for, or a few: each one is compiled.
    fn small(cases: u32) -> u32 {
        std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(cases)
    }
}
