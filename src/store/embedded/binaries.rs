//! Where this machine keeps PostgreSQL's server binaries. Distributions put them outside the path.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::EmbeddedError;

/// Names the directory instead of the search.
const OVERRIDE: &str = "POSTRIDER_PG_BINDIR";

/// Directories whose children are one PostgreSQL version each: Debian, PGDG on Fedora and RHEL, Alpine, Homebrew.
const VERSIONED: [(&str, &str); 5] = [
    ("/usr/lib/postgresql", ""),
    ("/usr", "pgsql-"),
    ("/usr/libexec", "postgresql"),
    ("/opt/homebrew/opt", "postgresql@"),
    ("/usr/local/opt", "postgresql@"),
];

/// A directory that has `postgres`, `initdb` and `pg_ctl`.
#[derive(Debug)]
pub(super) struct Binaries {
    dir: PathBuf,
}

impl Binaries {
    /// `$POSTRIDER_PG_BINDIR` if set; else what `pg_config` says, the path, and the usual places, newest version first.
    pub(super) fn find() -> Result<Self, EmbeddedError> {
        if let Some(dir) = env::var_os(OVERRIDE) {
            let searched = format!("in {OVERRIDE}={}", dir.display());
            return first_complete([PathBuf::from(dir)])
                .ok_or(EmbeddedError::NoBinaries { searched });
        }
        first_complete(
            from_pg_config()
                .into_iter()
                .chain(from_path())
                .chain(from_usual_places()),
        )
        .ok_or_else(|| EmbeddedError::NoBinaries {
            searched: "by pg_config, in PATH or in the usual places".to_owned(),
        })
    }

    pub(super) fn initdb(&self) -> PathBuf {
        self.dir.join("initdb")
    }

    pub(super) fn pg_ctl(&self) -> PathBuf {
        self.dir.join("pg_ctl")
    }
}

fn first_complete(dirs: impl IntoIterator<Item = PathBuf>) -> Option<Binaries> {
    dirs.into_iter()
        .find(|dir| {
            ["postgres", "initdb", "pg_ctl"]
                .iter()
                .all(|name| dir.join(name).is_file())
        })
        .map(|dir| Binaries { dir })
}

fn from_pg_config() -> Option<PathBuf> {
    let output = Command::new("pg_config").arg("--bindir").output().ok()?;
    Some(PathBuf::from(String::from_utf8(output.stdout).ok()?.trim()))
}

/// Behind each `postgres` in the path, the directory where it really is: its neighbours need not be in the path.
fn from_path() -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .filter_map(|dir| {
            Some(
                fs::canonicalize(dir.join("postgres"))
                    .ok()?
                    .parent()?
                    .to_owned(),
            )
        })
        .collect()
}

fn from_usual_places() -> Vec<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = VERSIONED
        .iter()
        .flat_map(|(parent, prefix)| versions(Path::new(parent), prefix))
        .collect();
    found.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
    found.into_iter().map(|(_, dir)| dir).collect()
}

/// Children of `parent` named `prefix` and a version, with the directory that would have the binaries.
fn versions(parent: &Path, prefix: &str) -> Vec<(u32, PathBuf)> {
    let children = fs::read_dir(parent).into_iter().flatten().flatten();
    children
        .filter_map(|child| {
            let version = child
                .file_name()
                .to_str()?
                .strip_prefix(prefix)?
                .parse()
                .ok()?;
            let nested = child.path().join("bin");
            Some((
                version,
                if nested.is_dir() {
                    nested
                } else {
                    child.path()
                },
            ))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_lacks_one_of_them_is_passed_over() {
        let root = tempfile::tempdir().unwrap();
        for (version, names) in [
            ("9", "postgres initdb pg_ctl"),
            ("15", "postgres initdb pg_ctl"),
            ("17", "initdb"),
        ] {
            let bin = root.path().join(version).join("bin");
            fs::create_dir_all(&bin).unwrap();
            for name in names.split(' ') {
                fs::write(bin.join(name), "").unwrap();
            }
        }
        let mut found = versions(root.path(), "");
        found.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
        assert_eq!(
            found
                .iter()
                .map(|(version, _)| *version)
                .collect::<Vec<_>>(),
            [17, 15, 9]
        );
        let binaries = first_complete(found.into_iter().map(|(_, dir)| dir)).unwrap();
        assert_eq!(binaries.dir, root.path().join("15/bin"));
    }

    #[test]
    fn without_binaries_the_message_has_the_remedy_of_each_system() {
        assert!(first_complete([PathBuf::from("/nowhere")]).is_none());
        let message = EmbeddedError::NoBinaries {
            searched: "anywhere".to_owned(),
        }
        .to_string();
        for remedy in [
            "apt-get install postgresql",
            "dnf install",
            "apk add",
            "brew install",
            OVERRIDE,
        ] {
            assert!(message.contains(remedy), "{message}");
        }
    }
}
