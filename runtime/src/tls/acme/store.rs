//! What an authority has given out, as files: `acme/<authority>/account.json`, and one file per
//! domain with its certificate and key. Another directory is another authority: certificates of one
//! that is for tests are not shown as those of the real one.

use super::super::files::Pair;
use crate::storage::files::{create_private_dir, write_private_file};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

#[derive(Debug, Clone)]
pub(super) struct Store {
    root: PathBuf,
    folder: PathBuf,
}

impl Store {
    /// Where the certificates of this authority are, in a data directory. Touches nothing.
    pub(super) fn new(data_dir: &Path, directory: &str) -> Self {
        let root = data_dir.join("acme");
        let digest = blake3::hash(directory.as_bytes()).to_hex();
        let folder = root.join(digest.get(..16).unwrap_or_default());
        Self { root, folder }
    }

    /// Makes the folder, if it is not there. Blocks.
    pub(super) fn create(&self) -> io::Result<()> {
        for folder in [&self.root, &self.folder] {
            create_private_dir(folder).map_err(|error| {
                io::Error::new(error.kind(), format!("cannot make `{}`: {error}", folder.display()))
            })?;
        }
        Ok(())
    }

    /// The certificate that is kept for a domain, if there is one. Blocks.
    ///
    /// # Errors
    /// When it cannot be used.
    pub(super) fn load(&self, domain: &str) -> Result<Option<Pair>, String> {
        match read(&self.domain_file(domain))? {
            None => Ok(None),
            Some(bytes) => match Pair::of_pem(&bytes, &bytes) {
                Ok(pair) => Ok(Some(pair)),
                Err(problem) => Err(format!("it {}", problem.text)),
            },
        }
    }

    /// Keeps a certificate and its key, both PEM. Blocks.
    pub(super) fn save(&self, domain: &str, cert: &str, key: &str) -> io::Result<()> {
        let both = format!("{}\n{}", cert.trim_end(), key);
        write_private_file(&self.domain_file(domain), both.as_bytes())
    }

    /// The account that is kept. Blocks.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn account(&self) -> Result<Option<Vec<u8>>, String> {
        read(&self.account_file())
    }

    /// Keeps an account. Blocks.
    pub(super) fn save_account(&self, account: &[u8]) -> io::Result<()> {
        write_private_file(&self.account_file(), account)
    }

    fn account_file(&self) -> PathBuf {
        self.folder.join("account.json")
    }

    /// A domain is a safe name: its labels have letters, digits and hyphens.
    fn domain_file(&self, domain: &str) -> PathBuf {
        self.folder.join(format!("{domain}.pem"))
    }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, String> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("cannot read `{}`: {error}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::tests::made_for;
    use std::os::unix::fs::MetadataExt as _;

    #[test]
    fn what_is_kept_is_private_and_found_again() {
        let temp = tempfile::tempdir().unwrap();
        let store = Store::new(temp.path(), "https://ca.test/directory");
        store.create().unwrap();
        store.create().unwrap();
        assert!(store.load("a.test").unwrap().is_none());
        let (cert, key) = made_for(&["a.test"]);
        store.save("a.test", &cert, &key).unwrap();
        let pair = store.load("a.test").unwrap().unwrap();
        assert_eq!(pair.about.names, ["a.test"]);
        store.save_account(b"{}").unwrap();
        assert_eq!(store.account().unwrap().unwrap(), b"{}");
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!(mode(&store.root), 0o700);
        assert_eq!(mode(&store.domain_file("a.test")), 0o600);
        assert_eq!(mode(&store.account_file()), 0o600);
        let other = Store::new(temp.path(), "https://staging.test/directory");
        assert!(other.load("a.test").unwrap().is_none());
        fs::write(store.domain_file("a.test"), "half").unwrap();
        store.load("a.test").unwrap_err();
    }
}
