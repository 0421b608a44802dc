//! Native code on disk: made by this node, for this engine, and proven to be so before it runs.
//!
//! Loading native code is running it, so a file counts only with a keyed hash that only this node
//! can make (`node.key`). Anything else – another engine's file, a swapped or damaged one, a link –
//! is removed and made anew.

use faas_api::Digest;
use std::{
    collections::hash_map::DefaultHasher,
    fs::{self, File, OpenOptions},
    hash::{Hash, Hasher},
    io::{self, Read},
    os::{
        fd::AsRawFd,
        unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
};
use wasmtime::{Engine, Module, component::Component};

/// Bytes hashed at a time: enough for the hash to be at its best, and few to be cleared first.
const CHUNK: usize = 64 << 10;

/// Native code for one engine.
pub(crate) struct CodeCache {
    dir: PathBuf,
    /// Says which engine the code is for; part of what the keyed hash covers.
    engine_hash: String,
    key: [u8; 32],
}

/// Why there is no native code.
#[derive(Debug)]
pub(crate) enum CacheMiss {
    /// There is none.
    Absent,
    /// There was some that this node did not make for this engine; it is gone now.
    Rejected(String),
    /// There is some, and it does not fit the pool: it wants more than an instance may have.
    Unfit(String),
}

impl CodeCache {
    /// The cache of one engine below `root`.
    pub(crate) fn open(root: &Path, engine: &Engine, key: [u8; 32]) -> io::Result<Self> {
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        let engine_hash = format!("{:016x}", hasher.finish());
        let dir = root.join(&engine_hash);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        // What compile processes of a node that was killed were writing.
        for entry in fs::read_dir(&dir)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "tmp") {
                fs::remove_file(path)?;
            }
        }
        Ok(Self { dir, engine_hash, key })
    }

    /// The folder of this engine's code.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether there is code for an artifact. It may still be refused when it is loaded.
    pub(crate) fn contains(&self, digest: &Digest) -> bool {
        self.code(digest).exists() && self.mac(digest).exists()
    }

    /// Where the compile process shall write.
    pub(crate) fn temporary(&self, digest: &Digest) -> PathBuf {
        self.dir.join(format!("{digest}.tmp"))
    }

    /// Takes over what the compile process wrote.
    pub(crate) fn adopt(&self, digest: &Digest) -> io::Result<()> {
        let temporary = self.temporary(digest);
        let mac = self.authenticate(digest, &mut File::open(&temporary)?)?;
        // The hash first: code without one is removed, a hash without code is only absent.
        fs::write(self.mac(digest), mac.to_hex().as_str())?;
        fs::rename(temporary, self.code(digest))
    }

    /// Removes the code of an artifact.
    pub(crate) fn remove(&self, digest: &Digest) {
        // What cannot be removed is refused when it is loaded.
        let _ = fs::remove_file(self.code(digest));
        let _ = fs::remove_file(self.mac(digest));
        let _ = fs::remove_file(self.temporary(digest));
    }

    /// The code of a component.
    pub(crate) fn component(
        &self,
        engine: &Engine,
        digest: &Digest,
    ) -> Result<Component, CacheMiss> {
        self.load(digest, |path| {
            #[expect(unsafe_code, reason = "`load` proved that this node made the file")]
            let component = unsafe { Component::deserialize_file(engine, path) };
            component
        })
    }

    /// The code of a core module.
    pub(crate) fn module(&self, engine: &Engine, digest: &Digest) -> Result<Module, CacheMiss> {
        self.load(digest, |path| {
            #[expect(unsafe_code, reason = "`load` proved that this node made the file")]
            let module = unsafe { Module::deserialize_file(engine, path) };
            module
        })
    }

    fn load<T>(
        &self,
        digest: &Digest,
        map: impl FnOnce(&Path) -> wasmtime::Result<T>,
    ) -> Result<T, CacheMiss> {
        let file = match self.verified(digest) {
            Ok(Some(file)) => file,
            Ok(None) => return Err(CacheMiss::Absent),
            Err(why) => {
                self.remove(digest);
                return Err(CacheMiss::Rejected(why));
            }
        };
        // The very file that was verified, whatever its name points to by now.
        let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        map(&path).map_err(|error| CacheMiss::Unfit(error.root_cause().to_string()))
    }

    /// The open file, if it is what this node wrote; `None` when there is none.
    fn verified(&self, digest: &Digest) -> Result<Option<File>, String> {
        let no_follow = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or_default();
        let opened = OpenOptions::new().read(true).custom_flags(no_follow).open(self.code(digest));
        let mut file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.to_string()),
        };
        let metadata = file.metadata().map_err(|error| error.to_string())?;
        if !metadata.is_file() || metadata.uid() != rustix::process::geteuid().as_raw() {
            return Err("not a file of this user".to_owned());
        }
        if metadata.mode() & 0o022 != 0 {
            return Err("others can write to it".to_owned());
        }
        let expected = fs::read_to_string(self.mac(digest)).map_err(|error| error.to_string())?;
        let expected =
            blake3::Hash::from_hex(expected.trim()).map_err(|error| error.to_string())?;
        let actual = self.authenticate(digest, &mut file).map_err(|error| error.to_string())?;
        // `blake3::Hash` compares in constant time.
        if actual != expected {
            return Err("its keyed hash does not match".to_owned());
        }
        Ok(Some(file))
    }

    fn authenticate(&self, digest: &Digest, file: &mut File) -> io::Result<blake3::Hash> {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(self.engine_hash.as_bytes());
        hasher.update(digest.as_bytes());
        let mut buffer = vec![0; CHUNK];
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(hasher.finalize()),
                n => hasher.update(buffer.get(..n).unwrap_or_default()),
            };
        }
    }

    fn code(&self, digest: &Digest) -> PathBuf {
        self.dir.join(format!("{digest}.cwasm"))
    }

    fn mac(&self, digest: &Digest) -> PathBuf {
        self.dir.join(format!("{digest}.mac"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::pool::Flavor;
    use std::os::unix::fs::{PermissionsExt, symlink};

    struct Fixture {
        cache: CodeCache,
        engine: Engine,
        digest: Digest,
        _dir: tempfile::TempDir,
    }

    fn fixture() -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let engine = Flavor::Sync.compiler(false).unwrap();
        let cache = CodeCache::open(dir.path(), &engine, [7; 32]).unwrap();
        let wasm = wat::parse_str(r#"(module (func (export "_start")))"#).unwrap();
        let digest = Digest::of(&wasm);
        fs::write(cache.temporary(&digest), engine.precompile_module(&wasm).unwrap()).unwrap();
        fs::set_permissions(cache.temporary(&digest), fs::Permissions::from_mode(0o600)).unwrap();
        cache.adopt(&digest).unwrap();
        Fixture { cache, engine, digest, _dir: dir }
    }

    impl Fixture {
        fn load(&self) -> Result<Module, CacheMiss> {
            self.cache.module(&self.engine, &self.digest)
        }

        fn is_rejected_once(&self) {
            assert!(matches!(self.load(), Err(CacheMiss::Rejected(_))));
            assert!(matches!(self.load(), Err(CacheMiss::Absent)), "it was not removed");
        }
    }

    #[test]
    fn what_was_adopted_loads() {
        assert!(fixture().load().is_ok());
    }

    #[test]
    fn a_flipped_bit_is_rejected() {
        let f = fixture();
        let path = f.cache.code(&f.digest);
        let mut code = fs::read(&path).unwrap();
        let middle = code.len() / 2;
        code[middle] ^= 1;
        fs::write(&path, code).unwrap();
        f.is_rejected_once();
    }

    #[test]
    fn a_truncated_file_is_rejected() {
        let f = fixture();
        let path = f.cache.code(&f.digest);
        let code = fs::read(&path).unwrap();
        fs::write(&path, &code[..code.len() - 1]).unwrap();
        f.is_rejected_once();
    }

    #[test]
    fn another_functions_file_is_rejected() {
        let f = fixture();
        let other = Digest::of(b"other");
        for (from, to) in [
            (f.cache.code(&f.digest), f.cache.code(&other)),
            (f.cache.mac(&f.digest), f.cache.mac(&other)),
        ] {
            fs::copy(from, to).unwrap();
        }
        assert!(matches!(f.cache.module(&f.engine, &other), Err(CacheMiss::Rejected(_))));
    }

    #[test]
    fn another_nodes_file_is_rejected() {
        let mut f = fixture();
        f.cache.key = [8; 32];
        f.is_rejected_once();
    }

    #[test]
    fn a_link_and_loose_permissions_are_rejected() {
        let f = fixture();
        let path = f.cache.code(&f.digest);
        let elsewhere = path.with_extension("real");
        fs::rename(&path, &elsewhere).unwrap();
        symlink(&elsewhere, &path).unwrap();
        f.is_rejected_once();

        let f = fixture();
        fs::set_permissions(f.cache.code(&f.digest), fs::Permissions::from_mode(0o666)).unwrap();
        f.is_rejected_once();
    }

    #[test]
    fn engines_do_not_share_code() {
        let f = fixture();
        let other = Flavor::Concurrent.compiler(false).unwrap();
        let root = f.cache.dir.parent().unwrap();
        let other = CodeCache::open(root, &other, [7; 32]).unwrap();
        assert_ne!(other.dir, f.cache.dir);
    }
}
