//! Who this process is. The id lives in the state directory under a file lock, so a restart on the same host is the same
//! instance and takes its shards back at once, and two processes are never taken for one.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
};

/// The file in the state directory.
const FILE: &str = "instance";

/// This process's right to its id; given up when dropped.
#[derive(Debug)]
pub struct Instance {
    id: String,
    _lock: File,
}

/// Why a process cannot be this instance.
#[derive(Debug, thiserror::Error)]
pub enum InstanceError {
    /// Another process is.
    #[error(
        "another postrider runs with the state directory {0}; stop it, or give this one a state_dir of its own"
    )]
    Taken(PathBuf),
    /// The state directory cannot be used.
    #[error(
        "the state directory {path} cannot be used; it must exist or be creatable, and be writable"
    )]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Instance {
    /// Claims the id that the state directory holds, or makes one. `fresh` is called for a new id.
    ///
    /// # Errors
    /// When another process holds it, or the directory cannot be used.
    pub fn claim(state_dir: &Path, fresh: impl FnOnce() -> String) -> Result<Self, InstanceError> {
        let unusable = |source| InstanceError::Directory {
            path: state_dir.to_owned(),
            source,
        };
        fs::create_dir_all(state_dir).map_err(unusable)?;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(state_dir.join(FILE))
            .map_err(unusable)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(InstanceError::Taken(state_dir.to_owned()));
            }
            Err(TryLockError::Error(source)) => return Err(unusable(source)),
        }
        let mut id = String::new();
        file.read_to_string(&mut id).map_err(unusable)?;
        let mut id = id.trim().to_owned();
        if id.is_empty() {
            id = fresh();
            file.rewind()
                .and_then(|()| writeln!(file, "{id}"))
                .and_then(|()| file.sync_all())
                .map_err(unusable)?;
        }
        Ok(Self { id, _lock: file })
    }

    /// The id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_in_the_same_directory_is_the_same_instance() {
        let directory = tempfile::tempdir().expect("a directory");
        let first = Instance::claim(directory.path(), || "one".into())
            .expect("claimed")
            .id()
            .to_owned();
        let second = Instance::claim(directory.path(), || "two".into()).expect("claimed again");
        assert_eq!((first.as_str(), second.id()), ("one", "one"));
    }

    #[test]
    fn two_processes_cannot_be_the_same_instance() {
        let directory = tempfile::tempdir().expect("a directory");
        let _held = Instance::claim(directory.path(), || "one".into()).expect("claimed");
        let refused = Instance::claim(directory.path(), || "two".into());
        assert!(
            matches!(refused, Err(InstanceError::Taken(_))),
            "{refused:?}"
        );
    }
}
