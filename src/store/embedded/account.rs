//! Who the server runs as: us, or somebody else when we are root.

use std::{
    fs,
    os::unix::{fs::MetadataExt, process::CommandExt},
    path::Path,
    process::Command,
};

use super::{EmbeddedError, io_error};

/// The user that the server and its tools run as.
#[derive(Debug)]
pub(super) enum Account {
    /// We are nobody special: the same.
    Ours,
    /// We are root: this one.
    Other { name: String, uid: u32, gid: u32 },
}

impl Account {
    /// `postgres` if the machine has it, else `nobody`; only root has to and may choose.
    pub(super) fn for_server() -> Result<Self, EmbeddedError> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Self::Ours);
        }
        let users =
            fs::read_to_string("/etc/passwd").map_err(io_error("cannot read /etc/passwd"))?;
        ["postgres", "nobody"]
            .into_iter()
            .find_map(|name| find(&users, name))
            .ok_or(EmbeddedError::NoUser)
    }

    /// A command that runs as this user.
    pub(super) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        if let Self::Other { uid, gid, .. } = self {
            command.uid(*uid).gid(*gid);
        }
        command
    }

    /// Gives a file or directory to this user.
    pub(super) fn own(&self, path: &Path) -> Result<(), EmbeddedError> {
        let Self::Other { uid, gid, name } = self else {
            return Ok(());
        };
        std::os::unix::fs::chown(path, Some(*uid), Some(*gid)).map_err(io_error(format!(
            "cannot give {} to user `{name}`",
            path.display()
        )))
    }

    /// Whether this user may go down to `dir`: root's home, for one, is closed to others.
    pub(super) fn check_way_to(&self, dir: &Path) -> Result<(), EmbeddedError> {
        let Self::Other { uid, gid, name } = self else {
            return Ok(());
        };
        for step in dir.ancestors() {
            let metadata = fs::metadata(step)
                .map_err(io_error(format!("cannot look at {}", step.display())))?;
            let may_enter = match metadata.mode() {
                mode if metadata.uid() == *uid => mode & 0o100,
                mode if metadata.gid() == *gid => mode & 0o010,
                mode => mode & 0o001,
            };
            if may_enter == 0 {
                return Err(EmbeddedError::NoEntry {
                    user: name.clone(),
                    dir: step.to_owned(),
                });
            }
        }
        Ok(())
    }
}

fn find(passwd: &str, name: &str) -> Option<Account> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next() != Some(name) {
            return None;
        }
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some(Account::Other {
            name: name.to_owned(),
            uid,
            gid,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\n\
                          postgresql:x:7:8::/:/bin/sh\n\
                          postgres:x:101:104:PostgreSQL administrator:/var/lib/postgresql:/bin/bash\n";

    #[test]
    fn a_user_is_found_by_its_whole_name() {
        match find(PASSWD, "postgres") {
            Some(Account::Other {
                uid: 101, gid: 104, ..
            }) => {}
            other => panic!("{other:?}"),
        }
        assert!(find(PASSWD, "nobody").is_none());
    }
}
