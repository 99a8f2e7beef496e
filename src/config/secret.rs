//! Secrets: the configuration says where they are, and they are fetched when they are needed.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

use secrecy::{ExposeSecret, SecretString};
use serde::{
    Deserialize, Deserializer,
    de::{self, value::MapAccessDeserializer},
};

use super::Environment;

/// Where a secret is: `{ credential = "name" }`, `{ file = "/path" }`, `{ env = "NAME" }`, or the text itself.
#[derive(Clone)]
pub enum Secret {
    /// A file of that name in `$CREDENTIALS_DIRECTORY`, as systemd's `LoadCredential=` puts it there.
    Credential(String),
    /// A file.
    File(PathBuf),
    /// An environment variable.
    Env(String),
    /// Written in the configuration itself: for the sandbox; `check` warns of it.
    Inline(SecretString),
}

/// Why a secret could not be had. Never shows the secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The unit names no credentials.
    #[error(
        "the credential `{0}` was asked for, but $CREDENTIALS_DIRECTORY is not set: start me by systemd with \
         LoadCredential={0}:/path/to/it, or use {{ file = \"…\" }}"
    )]
    NoCredentials(String),
    /// The file is not there, or not for us to read.
    #[error("cannot read the secret in {}: {source}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The variable is not set.
    #[error("the environment variable {0} is not set, or empty")]
    NotSet(String),
    /// There is nothing in it.
    #[error("the secret in {} is empty", .0.display())]
    Empty(PathBuf),
}

impl Secret {
    /// Fetches it. The line break that editors leave at the end of a file is no part of a secret.
    ///
    /// # Errors
    /// When it is not where the configuration says.
    pub fn resolve(&self, environment: &Environment) -> Result<SecretString, SecretError> {
        match self {
            Self::Inline(secret) => Ok(secret.clone()),
            Self::File(path) => read(path),
            Self::Env(name) => environment
                .get(name)
                .map(SecretString::from)
                .ok_or_else(|| SecretError::NotSet(name.clone())),
            Self::Credential(name) => match environment.get("CREDENTIALS_DIRECTORY") {
                Some(directory) => read(&Path::new(directory).join(name)),
                None => Err(SecretError::NoCredentials(name.clone())),
            },
        }
    }

    /// Whether the secret stands in the configuration file itself.
    #[must_use]
    pub fn is_inline(&self) -> bool {
        matches!(self, Self::Inline(_))
    }
}

fn read(path: &Path) -> Result<SecretString, SecretError> {
    let text = fs::read_to_string(path).map_err(|source| SecretError::Unreadable {
        path: path.to_path_buf(),
        source,
    })?;
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err(SecretError::Empty(path.to_path_buf())),
        secret => Ok(secret.into()),
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Credential(name) => write!(f, "credential {name}"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Env(name) => write!(f, "environment variable {name}"),
            Self::Inline(_) => f.write_str("inline, not shown"),
        }
    }
}

/// Compares the secrets of two configurations, to see what a reload changes; nothing that an attacker sends is compared.
impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Credential(a), Self::Credential(b)) | (Self::Env(a), Self::Env(b)) => a == b,
            (Self::File(a), Self::File(b)) => a == b,
            (Self::Inline(a), Self::Inline(b)) => a.expose_secret() == b.expose_secret(),
            _ => false,
        }
    }
}

/// The table form of a secret. An enum whose variants are the keys, so that serde names them when one is wrong.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Source {
    Credential(String),
    File(PathBuf),
    Env(String),
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SecretVisitor)
    }
}

/// Tells the two forms apart by hand: `#[serde(untagged)]` would lose the line number of every mistake.
struct SecretVisitor;

impl<'de> de::Visitor<'de> for SecretVisitor {
    type Value = Secret;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "a secret: { credential = \"name\" }, { file = \"/path\" } or { env = \"NAME\" }",
        )
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Secret, E> {
        Ok(Secret::Inline(text.into()))
    }

    fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Secret, A::Error> {
        Ok(
            match Source::deserialize(MapAccessDeserializer::new(map))? {
                Source::Credential(name) => Secret::Credential(name),
                Source::File(path) => Secret::File(path),
                Source::Env(name) => Secret::Env(name),
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Holder {
        token: Secret,
    }

    fn secret(toml: &str) -> Secret {
        toml::from_str::<Holder>(toml).unwrap().token
    }

    #[test]
    fn a_secret_comes_from_the_environment_a_file_or_a_credential() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        fs::write(&path, "from a file\n").unwrap();
        let environment: Environment = [
            ("TOKEN", "from env"),
            ("CREDENTIALS_DIRECTORY", directory.path().to_str().unwrap()),
        ]
        .into_iter()
        .collect();

        for (toml, expected) in [
            ("token = { env = \"TOKEN\" }".to_owned(), "from env"),
            (format!("token = {{ file = {path:?} }}"), "from a file"),
            (
                "token = { credential = \"token\" }".to_owned(),
                "from a file",
            ),
            ("token = \"inline\"".to_owned(), "inline"),
        ] {
            assert_eq!(
                secret(&toml).resolve(&environment).unwrap().expose_secret(),
                expected,
                "{toml}"
            );
        }
    }

    #[test]
    fn a_secret_that_is_not_there_says_what_to_do() {
        let nowhere = Environment::default();
        let credential = secret("token = { credential = \"wa-token\" }")
            .resolve(&nowhere)
            .unwrap_err()
            .to_string();
        assert!(
            credential.contains("LoadCredential=wa-token:"),
            "{credential}"
        );
        let env = secret("token = { env = \"WA_TOKEN\" }")
            .resolve(&nowhere)
            .unwrap_err()
            .to_string();
        assert!(env.contains("WA_TOKEN"), "{env}");
        let file = secret("token = { file = \"/nonexistent/token\" }")
            .resolve(&nowhere)
            .unwrap_err()
            .to_string();
        assert!(file.contains("/nonexistent/token"), "{file}");
    }

    #[test]
    fn an_inline_secret_is_never_shown() {
        assert!(!format!("{:?}", secret("token = \"EAAG-very-secret\"")).contains("EAAG"));
    }

    #[test]
    fn an_unknown_way_to_a_secret_is_refused_with_the_known_ones() {
        let error = toml::from_str::<Holder>("token = { vault = \"x\" }")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("vault") && error.contains("credential"),
            "{error}"
        );
    }
}
