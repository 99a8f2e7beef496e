//! The servers that a database URL names: one, or several by commas, as in libpq: `postgres://user@h1:5432,h2:5433/db`,
//! `postgres://user@/db?host=/run/a,/run/b`. sqlx reads URLs of one host, so each gets one of its own.

use std::str::FromStr;

use sqlx::postgres::PgConnectOptions;

use super::StoreError;

/// The servers, in the order of the URL.
#[derive(Debug, Clone)]
pub(super) struct Hosts {
    pub(super) all: Vec<Host>,
    /// Whether only a server that takes writes will do. `target_session_attrs=any` says no.
    pub(super) must_write: bool,
}

/// One of them.
#[derive(Debug, Clone)]
pub(super) struct Host {
    /// For people: without user and password.
    pub(super) name: String,
    pub(super) options: PgConnectOptions,
}

impl Host {
    fn of(options: PgConnectOptions) -> Self {
        let port = options.get_port();
        let name = match options.get_socket() {
            Some(directory) => format!("{}:{port}", directory.display()),
            None => format!("{}:{port}", options.get_host()),
        };
        Self { name, options }
    }
}

impl From<PgConnectOptions> for Hosts {
    fn from(options: PgConnectOptions) -> Self {
        Self {
            all: vec![Host::of(options)],
            must_write: true,
        }
    }
}

/// Reads a URL. Errors do not repeat it, because it may hold a password.
pub(super) fn parse(url: &str) -> Result<Hosts, StoreError> {
    let url = Url::split(url)?;
    let hosts = url.hosts();
    let ports = url.ports.clone();
    if ports.len() > 1 && ports.len() != hosts.len() {
        return Err(wrong("it names as many ports as hosts, or one for all"));
    }
    let one = |(index, host): (usize, &Place)| {
        let port = ports.get(index).or(ports.first());
        let options = PgConnectOptions::from_str(&url.of_one(host, port.copied()));
        options.map(Host::of).map_err(StoreError::Url)
    };
    Ok(Hosts {
        all: hosts
            .iter()
            .enumerate()
            .map(one)
            .collect::<Result<_, _>>()?,
        must_write: url.must_write,
    })
}

fn wrong(problem: &'static str) -> StoreError {
    StoreError::Url(sqlx::Error::Configuration(problem.into()))
}

/// A URL in its parts, as they stand there.
struct Url<'a> {
    scheme: &'a str,
    /// With its `@`.
    user: &'a str,
    authority: &'a str,
    path: &'a str,
    hosts_asked: Vec<&'a str>,
    ports: Vec<&'a str>,
    must_write: bool,
    /// Everything else behind the question mark.
    rest: Vec<&'a str>,
}

/// Where a host was named.
enum Place<'a> {
    Authority(&'a str),
    Query(&'a str),
}

impl<'a> Url<'a> {
    fn split(url: &'a str) -> Result<Self, StoreError> {
        let (scheme, rest) = url
            .split_once("://")
            // sqlx does not look at the scheme.
            .filter(|(scheme, _)| ["postgres", "postgresql"].contains(scheme))
            .ok_or_else(|| wrong("it begins with neither postgres:// nor postgresql://"))?;
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = place.split_at(place.find('/').unwrap_or(place.len()));
        let (user, authority) = authority.split_at(authority.rfind('@').map_or(0, |at| at + 1));
        let mut url = Self {
            scheme,
            user,
            authority,
            path,
            hosts_asked: Vec::new(),
            ports: Vec::new(),
            must_write: true,
            rest: Vec::new(),
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            url.ask(pair)?;
        }
        Ok(url)
    }

    fn ask(&mut self, pair: &'a str) -> Result<(), StoreError> {
        match pair.split_once('=') {
            Some(("host" | "hostaddr", hosts)) => self.hosts_asked = hosts.split(',').collect(),
            Some(("port", ports)) => self.ports = ports.split(',').collect(),
            Some(("target_session_attrs", "any")) => self.must_write = false,
            Some(("target_session_attrs", "read-write" | "primary")) => self.must_write = true,
            Some(("target_session_attrs", _)) => {
                return Err(wrong("target_session_attrs is read-write or any"));
            }
            _ => self.rest.push(pair),
        }
        Ok(())
    }

    fn hosts(&self) -> Vec<Place<'a>> {
        match self.hosts_asked.is_empty() {
            true => self.authority.split(',').map(Place::Authority).collect(),
            false => self.hosts_asked.iter().copied().map(Place::Query).collect(),
        }
    }

    /// The URL as if it named this host alone.
    fn of_one(&self, host: &Place, port: Option<&str>) -> String {
        let (authority, asked) = match host {
            Place::Authority(authority) => (*authority, None),
            // sqlx wants a name there when there is a user.
            Place::Query(host) => ("localhost", Some(format!("host={host}"))),
        };
        let port = port.map(|port| format!("port={port}"));
        let rest = self.rest.iter().map(ToString::to_string);
        let query: Vec<String> = rest.chain(asked).chain(port).collect();
        let (scheme, user, path) = (self.scheme, self.user, self.path);
        let authority = match authority {
            "" => "localhost",
            named => named,
        };
        format!("{scheme}://{user}{authority}{path}?{}", query.join("&"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(url: &str) -> Vec<String> {
        let hosts = parse(url).expect("a good URL");
        hosts.all.into_iter().map(|host| host.name).collect()
    }

    #[test]
    fn hosts_are_named_by_commas_each_with_its_port() {
        assert_eq!(names("postgres://u@h1/db"), ["h1:5432"]);
        assert_eq!(
            names("postgres://u:p,w@h1:5433,h2,[::1]:5434/db"),
            ["h1:5433", "h2:5432", "[::1]:5434"]
        );
        assert_eq!(
            names("postgres://u@localhost/db?host=/run/a,/run/b&port=5433,5434"),
            ["/run/a:5433", "/run/b:5434"]
        );
        assert_eq!(
            names("postgresql://u@/db?port=6432&host=%2Frun%2Fa,h2"),
            ["/run/a:6432", "h2:6432"]
        );
    }

    #[test]
    fn each_host_keeps_user_database_and_everything_else() {
        let url = "postgres://ada:s%2Cx@h1,h2/shop?application_name=x&sslmode=require";
        for host in parse(url).expect("a good URL").all {
            assert_eq!(host.options.get_username(), "ada");
            assert_eq!(host.options.get_database(), Some("shop"));
            assert_eq!(host.options.get_application_name(), Some("x"));
        }
    }

    #[test]
    fn a_server_that_takes_no_writes_will_do_only_when_asked_for() {
        let must_write = |url| parse(url).expect("a good URL").must_write;
        assert!(must_write("postgres://h1,h2/db"));
        assert!(must_write(
            "postgres://h1,h2/db?target_session_attrs=read-write"
        ));
        assert!(!must_write("postgres://h1/db?target_session_attrs=any"));
    }

    #[test]
    fn a_wrong_url_is_refused_without_being_repeated() {
        for url in [
            "mysql://u:hunter2@h/d",
            "u:hunter2@h",
            "postgres://u:hunter2@h1:port/d",
            "postgres://u:hunter2@h1,h2,h3/d?port=1,2",
            "postgres://u:hunter2@h1/d?target_session_attrs=standby",
        ] {
            let error = anyhow::Error::new(parse(url).expect_err(url));
            assert!(!format!("{error:#}").contains("hunter2"), "{error:#}");
        }
    }
}
