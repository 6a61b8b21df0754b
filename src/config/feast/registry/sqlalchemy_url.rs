//! SQLAlchemy's database URLs (`sqlalchemy.engine.url`). Pure.

/// A URL, taken apart as SQLAlchemy does it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct SqlalchemyUrl {
    /// `postgresql` of `postgresql+psycopg`.
    pub(super) dialect: String,
    /// `psycopg` of it.
    pub(super) driver: Option<String>,
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
    pub(super) host: Option<String>,
    pub(super) port: Option<u16>,
    pub(super) database: Option<String>,
    pub(super) query: Vec<(String, String)>,
}

impl SqlalchemyUrl {
    /// `None` if it is none. User and password may hold anything but `:`, `/` and `@`, each of
    /// which is written with a `%`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (name, rest) = text.split_once("://")?;
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '+';
        if name.is_empty() || !name.chars().all(is_name) {
            return None;
        }
        let (dialect, driver) = match name.split_once('+') {
            Some((dialect, driver)) => (dialect, Some(driver.to_owned())),
            None => (name, None),
        };
        let (credentials, rest) = credentials(rest);
        let (user, password) = match credentials.map(|it| it.split_once(':').unwrap_or((it, ""))) {
            Some((user, password)) => {
                (filled(unquote(user, false)), filled(unquote(password, false)))
            }
            None => (None, None),
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (server, database) = match rest.split_once('/') {
            Some((server, database)) => (server, Some(database.to_owned())),
            None => (rest, None),
        };
        let (host, port) = host_and_port(server)?;
        let query = query.split('&').filter(|part| !part.is_empty()).map(|part| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            (unquote(name, true), unquote(value, true))
        });
        Some(Self {
            dialect: dialect.to_owned(),
            driver,
            user,
            password,
            host,
            port,
            database: database.and_then(filled),
            query: query.collect(),
        })
    }
}

/// What is before the last `@` of the server's part, and what is behind it.
fn credentials(rest: &str) -> (Option<&str>, &str) {
    // The user has neither `:` nor `/`, the password no `@`.
    let user_ends = rest.find([':', '/', '@']).unwrap_or(rest.len());
    match rest[user_ends..].chars().next() {
        Some('@') => (Some(&rest[..user_ends]), &rest[user_ends + 1..]),
        Some(':') => match rest[user_ends..].find('@') {
            Some(at) => (Some(&rest[..user_ends + at]), &rest[user_ends + at + 1..]),
            None => (None, rest),
        },
        _ => (None, rest),
    }
}

fn host_and_port(server: &str) -> Option<(Option<String>, Option<u16>)> {
    let (host, port) = match server.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']')?;
            (host, rest.strip_prefix(':').unwrap_or(rest))
        }
        None => server.split_once(':').unwrap_or((server, "")),
    };
    let port = match port {
        "" => None,
        port => Some(port.parse().ok()?),
    };
    Some((filled(host.to_owned()), port))
}

fn filled(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

/// `%41` is `A`; in a query, `+` is a space. What is no such escape stays as it is.
fn unquote(text: &str, plus: bool) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let escaped = digits
            .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        rest = match (first, escaped) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                &after[2..]
            }
            (b'+', _) if plus => {
                bytes.push(b' ');
                after
            }
            _ => {
                bytes.push(*first);
                after
            }
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn urls_are_taken_apart_as_sqlalchemy_does_it() {
        let url = SqlalchemyUrl::parse(
            "postgresql+psycopg://u%40x:p:%2F%3a%25w@db.example:6432/feast?sslmode=require\
             &options=-c%20search_path%3Dml+x",
        );
        let expected = SqlalchemyUrl {
            dialect: "postgresql".into(),
            driver: some("psycopg"),
            user: some("u@x"),
            password: some("p:/:%w"),
            host: some("db.example"),
            port: Some(6432),
            database: some("feast"),
            query: vec![
                ("sslmode".into(), "require".into()),
                ("options".into(), "-c search_path=ml x".into()),
            ],
        };
        assert_eq!(url, Some(expected));
    }

    #[test]
    fn parts_may_be_missing() {
        let parse = |text| SqlalchemyUrl::parse(text).unwrap();
        assert_eq!(parse("sqlite:////var/r.db").database, some("/var/r.db"));
        assert_eq!(parse("sqlite:///r.db").database, some("r.db"));
        assert_eq!(parse("sqlite://").database, None);
        let v6 = parse("mysql://u@[::1]:3307/feast");
        assert_eq!(
            (v6.host, v6.port, v6.user, v6.password),
            (some("::1"), Some(3307), some("u"), None)
        );
        let bare = parse("mysql+pymysql://h/d");
        assert_eq!((bare.host, bare.port, bare.user), (some("h"), None, None));
        // A port with an @ in the database's name behind it is no password.
        assert_eq!(parse("mysql://h:1/d").port, Some(1));
    }

    #[test]
    fn what_is_no_url_is_none() {
        for text in ["", "postgresql", "://h/d", "mysql://h:port/d", "my sql://h/d", "m://[::1/d"] {
            assert_eq!(SqlalchemyUrl::parse(text), None, "{text}");
        }
    }

    #[test]
    fn percents_that_are_none_stay() {
        assert_eq!(unquote("100%+%4x%41%", false), "100%+%4xA%");
        assert_eq!(unquote("a+b", true), "a b");
    }
}
