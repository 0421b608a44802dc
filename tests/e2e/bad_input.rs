//! Whatever is uploaded: a code, a reason, a hint; the server goes on, and nothing is left behind.

use faas_api::{ErrorBody, ErrorCode};
use faas_tests::{
    Answer, Connection, Node, Request,
    artifacts::{self, Guest, says},
    process,
};
use std::{path::PathBuf, time::Duration};

/// A node with one app, and what its folders hold.
struct Watched {
    node: Node,
    files: Vec<PathBuf>,
}

impl Watched {
    fn new(config: &str) -> Self {
        let node = Node::with(config);
        node.deploy("good", &says("good"));
        let files = Self::files(&node);
        Self { node, files }
    }

    fn files(node: &Node) -> Vec<PathBuf> {
        let mut files = node.files("blobs");
        files.extend(node.files("cache"));
        files
    }

    /// Deploys what must be refused, and says why it was.
    #[track_caller]
    fn refused(&self, wasm: &[u8]) -> ErrorBody {
        let answer = self.node.try_deploy("bad", wasm);
        let body: ErrorBody = serde_json::from_slice(&answer.body)
            .unwrap_or_else(|error| panic!("{error}: {answer:?}"));
        assert_eq!(body.status, answer.status);
        answer.failure(body.code);
        assert!((400..500).contains(&answer.status), "{answer:?}");
        assert!(body.detail.is_some(), "{answer:?}");
        body
    }

    /// The server goes on, and nothing is left behind.
    #[track_caller]
    fn untouched(&self) {
        assert_eq!(self.node.get("/good/").expect(200).text().trim(), "good");
        assert_eq!(Self::files(&self.node), self.files);
        self.node.get("/bad/").failure(ErrorCode::NotFound);
        let apps = self.node.api(Request::get("/v1/apps")).json();
        assert_eq!(apps["apps"].as_array().unwrap().len(), 1);
        assert!(process::children(self.node.pid()).is_empty());
    }
}

#[test]
fn not_wasm() {
    let watched = Watched::new("");
    for (bytes, word) in [
        (&b""[..], "empty"),
        (b"hello", "\\0asm"),
        (b"\0as", "\\0asm"),
        (b"\x1f\x8b\x08\0\0\0", "gzip"),
        (b"PK\x03\x04", "zip"),
        (b"(module)", ".wat"),
        (b"#!/bin/sh\n", "\\0asm"),
        (&[0xff; 4096], "\\0asm"),
    ] {
        let error = watched.refused(bytes);
        assert_eq!(error.code, ErrorCode::InvalidWasm, "{bytes:?}");
        assert!(error.hint.is_some(), "{bytes:?}");
        assert!(error.detail.unwrap().contains(word), "{bytes:?}");
    }
    watched.untouched();
    let rejected = [("result", "rejected")];
    assert_eq!(watched.node.metrics().sum("faas_deploys_total", &rejected), 8.0);
}

#[test]
fn native_code_is_never_taken() {
    let watched = Watched::new("");
    // What this very node compiled, and any other object file.
    let cache = watched.node.files("cache");
    let own = cache.iter().map(|file| std::fs::read(file).unwrap());
    let elf = own.filter_map(|bytes| {
        let start = bytes.windows(4).position(|word| word == b"\x7fELF")?;
        Some(bytes[start..].to_vec())
    });
    let mut objects: Vec<Vec<u8>> = elf.collect();
    assert!(!objects.is_empty(), "no native code among {cache:?}");
    objects.push(b"\x7fELF\x02\x01\x01".to_vec());
    for object in objects {
        let error = watched.refused(&object);
        assert_eq!(error.code, ErrorCode::Precompiled);
        assert!(error.hint.is_some());
    }
    watched.untouched();
}

#[test]
fn cut_off_anywhere() {
    let watched = Watched::new("");
    for wasm in [Guest::Http02.wasm(), Guest::Cgi01.wasm(), says("whole")] {
        let step = wasm.len() / 40;
        let cuts = (8..wasm.len()).step_by(step.max(7)).chain([4, 6, wasm.len() - 1]);
        // What ends between two sections may be whole as far as anybody can tell.
        let between = section_ends(&wasm);
        for cut in cuts.filter(|cut| !between.contains(cut)) {
            let error = watched.refused(&wasm[..cut]);
            assert_eq!(error.status, 422, "at {cut} of {}: {error:?}", wasm.len());
        }
    }
    watched.untouched();
}

fn section_ends(wasm: &[u8]) -> Vec<usize> {
    let mut ends = vec![8];
    let mut at = 8;
    while at < wasm.len() {
        at += 1;
        let mut size = 0;
        for shift in (0..).step_by(7) {
            let byte = wasm[at];
            at += 1;
            size |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        at += size;
        ends.push(at);
    }
    ends
}

/// Some damage makes another valid program; none makes the platform fail.
#[test]
fn damaged_anywhere() {
    let watched = Watched::new("");
    // The smallest one that a real toolchain made.
    let wasm = std::fs::read(artifacts::example("c-cgi")).unwrap();
    let mut place = 12_345_usize;
    for round in 0..60_u8 {
        place = place.wrapping_mul(1_103_515_245).wrapping_add(12_345);
        let mut damaged = wasm.clone();
        let at = place % wasm.len();
        damaged[at] ^= 1 << (round % 8);
        let answer = watched.node.try_deploy("flipped", &damaged);
        assert!(matches!(answer.status, 201 | 422), "byte {at}: {answer:?}");
        if answer.status == 201 {
            // It may do anything but hurt.
            let answer = watched.node.get("/flipped/hello");
            assert!(answer.status < 505, "{answer:?}");
        }
    }
    assert_eq!(watched.node.get("/good/").expect(200).text().trim(), "good");
}

#[test]
fn nothing_to_run() {
    let watched = Watched::new("");
    let error = watched.refused(&artifacts::wat("no-export"));
    assert_eq!(error.code, ErrorCode::UnknownKind);
    let detail = error.detail.unwrap();
    assert!(detail.contains("`run`") && detail.contains("`handle`"), "{detail}");
    let hint = error.hint.unwrap();
    for word in ["wasi:http/handler@0.3", "incoming-handler@0.2", "_start"] {
        assert!(hint.contains(word), "{hint}");
    }
    let empty = watched.refused(b"\0asm\x01\0\0\0");
    assert_eq!(empty.code, ErrorCode::UnknownKind);
    watched.untouched();
}

#[test]
fn imports_that_nobody_offers() {
    let watched = Watched::new("");
    let error = watched.refused(&artifacts::wat("unknown-imports"));
    assert_eq!(error.code, ErrorCode::UnknownImport);
    let names: Vec<&str> = error.imports.iter().map(|import| import.import.as_str()).collect();
    let (own, draft) = ("my:own/thing@1.2.3", "wasi:http/types@0.2.0-rc-2023-11-10");
    assert_eq!(names, [own, draft]);
    assert_eq!(error.imports[0].offered, [""; 0]);
    assert_eq!(error.imports[1].offered.len(), 1);
    assert!(error.imports[1].offered[0].starts_with("0.2."));
    assert!(error.imports.iter().all(|import| !import.hint.is_empty()));
    let error = watched.refused(&artifacts::wat("undefined-symbol"));
    assert_eq!(error.code, ErrorCode::UnknownImport);
    assert_eq!(error.imports[0].import, "env.puts");
    watched.untouched();
    // The same for people: a table, and an exit code of its own.
    let file = watched.node.home().join("odd.wasm");
    std::fs::write(&file, artifacts::wat("unknown-imports")).unwrap();
    let told = watched.node.cli(["deploy", "odd.wasm"]).run().expect(8);
    assert_eq!(told.stdout, "");
    for word in [own, draft, "hint"] {
        assert!(told.stderr.contains(word), "{}", told.stderr);
    }
}

#[test]
fn an_artifact_over_the_limit() {
    let watched = Watched::new("");
    let head = |body: &str| {
        format!(
            "POST /v1/apps/bad/deploy HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\n\
             content-type: application/wasm\r\n{body}\r\n\r\n",
            watched.node.admin(),
            watched.node.token()
        )
    };
    // A length that is announced is enough to say no.
    let mut connection = Connection::open(watched.node.admin());
    let announced = head(&format!("content-length: {}", 65 << 20));
    connection.write(announced.as_bytes()).unwrap();
    let answer = connection.read_answer(false).unwrap();
    let error = answer.failure(ErrorCode::BodyTooLarge);
    assert!(error.hint.is_some());
    // Without one it is counted.
    let mut connection = Connection::open(watched.node.admin());
    connection.write(head("transfer-encoding: chunked").as_bytes()).unwrap();
    let mut chunk = b"100000\r\n".to_vec();
    chunk.resize(chunk.len() + (1 << 20), 0);
    chunk.extend(b"\r\n");
    for _ in 0..65 {
        if connection.write(&chunk).is_err() {
            break;
        }
    }
    let answer = connection.read_answer(false).unwrap();
    answer.failure(ErrorCode::BodyTooLarge);
    watched.untouched();
}

#[test]
fn a_wrong_token_is_known_before_the_body() {
    let watched = Watched::new("");
    let token = watched.node.token();
    let mut almost = token.clone();
    let last = almost.pop().unwrap();
    almost.push(if last == 'A' { 'B' } else { 'A' });
    for credentials in [
        String::new(),
        "authorization: Bearer \r\n".to_owned(),
        format!("authorization: Bearer {almost}\r\n"),
        format!("authorization: Basic {token}\r\n"),
        format!("authorization: Bearer {token} x\r\n"),
    ] {
        for path in ["/v1/apps/bad/deploy", "/v1/apps/..%2f/deploy", "/v1/nothing"] {
            let mut connection = Connection::open(watched.node.admin());
            connection.set_patience(Duration::from_secs(10));
            let head = format!(
                "POST {path} HTTP/1.1\r\nhost: {}\r\n{credentials}content-length: 1000000\r\n\r\n",
                watched.node.admin()
            );
            connection.write(head.as_bytes()).unwrap();
            let answer = connection.read_answer(false).unwrap();
            let error = answer.failure(ErrorCode::Unauthorized);
            assert!(error.hint.is_some());
            assert!(answer.header("www-authenticate").is_some(), "RFC 9110 §11.6.1: {answer:?}");
            assert!(!answer.text().contains(&token));
        }
    }
    watched.untouched();
    assert!(!watched.node.log().contains(&token), "the token is in the log");
}

#[test]
fn names_that_are_none() {
    let watched = Watched::new("");
    let long = "a".repeat(41);
    let deploy = |app: &str| watched.node.try_deploy(app, &says("bad"));
    for app in [
        "..%2Fx", "%2e%2e", "A", "a--b", &long, "a%00", "a%2Fb", "-a", "a-", "1a", "a_b", "a.b",
        "%C3%A4", "a%20b", "admin", "api", "faas", "internal", "www", "%FF",
    ] {
        let answer = deploy(app);
        let error = answer.failure(ErrorCode::InvalidName);
        assert!(error.hint.is_some() && error.detail.is_some(), "{app}: {answer:?}");
    }
    // A path with more or fewer segments is another address.
    for app in ["../x", ""] {
        let answer: Answer = deploy(app);
        assert!(matches!(answer.status, 404 | 405 | 422), "{app}: {answer:?}");
    }
    let request = Request::new("POST", "/v1/apps/bad/deploy?function=A")
        .header("content-type", "application/wasm")
        .body(says("bad"));
    watched.node.api(request).failure(ErrorCode::InvalidName);
    watched.untouched();
    let file = watched.node.home().join("x.wasm");
    std::fs::write(&file, says("bad")).unwrap();
    for name in ["../x", "A", "a--b", &long, "admin"] {
        let told = watched.node.cli(["deploy", "x.wasm", "--name", name]).run();
        assert_eq!(told.expect(2).stdout, "", "{name}");
    }
}

#[test]
fn other_requests_that_make_no_sense() {
    let watched = Watched::new("");
    let node = &watched.node;
    let post = |target: &str, kind: &str| {
        node.api(Request::new("POST", target).header("content-type", kind).body(says("bad")))
    };
    let wasm = "application/wasm";
    post("/v1/apps/bad/deploy?actvate=false", wasm).failure(ErrorCode::BadRequest);
    post("/v1/apps/bad/deploy?activate=maybe", wasm).failure(ErrorCode::BadRequest);
    post("/v1/apps/bad/deploy", "text/html").failure(ErrorCode::UnsupportedMediaType);
    let gzip = Node::deploy_request("bad", &says("bad")).header("content-encoding", "gzip");
    node.api(gzip).failure(ErrorCode::UnsupportedMediaType);
    node.api(Request::get("/v1/apps/bad/deploy")).failure(ErrorCode::MethodNotAllowed);
    node.api(Request::get("/v1/apps/bad")).failure(ErrorCode::NotFound);
    node.api(Request::get("/v1/apps/bad/versions")).failure(ErrorCode::NotFound);
    node.api(Request::new("DELETE", "/v1/apps/bad")).failure(ErrorCode::NotFound);
    node.api(Request::get("/v1/nothing")).failure(ErrorCode::NotFound);
    watched.untouched();
}

#[test]
fn an_upload_that_breaks_off() {
    let watched = Watched::new("");
    for wasm in [says("bad"), Guest::Http03.wasm()] {
        let request = Node::deploy_request("bad", &wasm)
            .header("authorization", &format!("Bearer {}", watched.node.token()));
        let bytes = request.to_bytes(watched.node.admin());
        for missing in [1, wasm.len() / 2, wasm.len()] {
            let untouched = || Watched::files(&watched.node) == watched.files;
            let patience = Duration::from_secs(20);
            let mut connection = Connection::open(watched.node.admin());
            connection.write(&bytes[..bytes.len() - missing]).unwrap();
            faas_tests::eventually("it has begun", patience, || (!untouched()).then_some(()));
            drop(connection);
            faas_tests::eventually("nothing is left", patience, || untouched().then_some(()));
        }
    }
    watched.untouched();
}

/// A module that is small and takes for ever: loops within loops, which share their variables.
fn slow_bomb() -> Vec<u8> {
    let (locals, loops) = (500_u32, 2000_u32);
    let mut code = [0x03, 0x40].repeat(loops as usize);
    for number in 0..loops {
        code.extend(step(number % locals, (number * 7 + 1) % locals, number % (loops - number)));
    }
    function(locals, &code)
}

/// A module that is small and takes gigabytes: one loop after another over many variables.
fn fat_bomb() -> Vec<u8> {
    let (locals, loops) = (1000_u32, 5000_u32);
    let mut code = Vec::new();
    for number in 0..loops {
        code.extend([0x03, 0x40]);
        code.extend(step(number % locals, (number * 7 + 1) % locals, 0));
    }
    function(locals, &code)
}

/// Adds two variables into the second, branches so many levels up if that is not 0, ends a loop.
fn step(first: u32, second: u32, up: u32) -> Vec<u8> {
    let mut code = vec![0x20];
    code.extend(leb(first));
    code.push(0x20);
    code.extend(leb(second));
    code.extend([0x6a, 0x22]);
    code.extend(leb(second));
    code.push(0x0d);
    code.extend(leb(up));
    code.push(0x0b);
    code
}

/// A module whose `_start` has so many variables and this code.
fn function(locals: u32, code: &[u8]) -> Vec<u8> {
    let mut body = vec![1];
    body.extend(leb(locals));
    body.push(0x7f);
    body.extend(code);
    body.push(0x0b);
    let mut functions = vec![1];
    functions.extend(leb(body.len() as u32));
    functions.extend(body);
    let mut wasm = b"\0asm\x01\0\0\0".to_vec();
    let exports = [&[1, 6][..], b"_start", &[0, 0]].concat();
    for (id, section) in [(1, &[1, 0x60, 0, 0][..]), (3, &[1, 0]), (7, &exports), (10, &functions)]
    {
        wasm.push(id);
        wasm.extend(leb(section.len() as u32));
        wasm.extend(section);
    }
    wasm
}

fn leb(mut number: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = (number & 0x7f) as u8;
        number >>= 7;
        if number == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

/// Deploys a bomb; meanwhile everybody else is served.
fn explode(config: &str, bomb: &[u8], limit: &str) {
    assert!(bomb.len() < 100_000, "small");
    let watched = Watched::new(config);
    let before = process::resident_bytes(watched.node.pid());
    let error = std::thread::scope(|scope| {
        let deploy = scope.spawn(|| watched.refused(bomb));
        while !deploy.is_finished() {
            assert_eq!(watched.node.get("/good/").expect(200).text().trim(), "good");
        }
        deploy.join().unwrap()
    });
    assert_eq!(error.code, ErrorCode::CompileFailed);
    assert!(error.hint.is_some());
    assert!(error.detail.as_deref().unwrap().contains(limit), "{error:?}");
    let after = process::resident_bytes(watched.node.pid());
    assert!(after < before + (64 << 20), "{before} before, {after} after");
    watched.untouched();
    // The next one does not wait for ever behind it, either.
    watched.node.deploy("next", &says("next"));
}

#[test]
fn a_bomb_that_takes_cpu_time() {
    explode("[deploy]\ncompile_cpu_s = 2\n", &slow_bomb(), "deploy.compile_cpu_s");
}

#[test]
fn a_bomb_that_takes_time() {
    explode("[deploy]\ncompile_timeout_s = 2\n", &slow_bomb(), "deploy.compile_timeout_s");
}

#[test]
fn a_bomb_that_takes_memory() {
    let config = "[deploy]\ncompile_memory_bytes = 402653184\n";
    explode(config, &fat_bomb(), "deploy.compile_memory_bytes");
}
