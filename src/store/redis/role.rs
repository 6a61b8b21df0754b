//! What a server says of itself: its version, and whether it may be believed. Pure.

use redis::{ServerErrorKind, Value};

/// What a server is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Duty {
    /// To be read, whatever it is: the only server there is, or a node that says `MOVED` itself
    /// if it is not the master.
    Any,
    /// To be read as the master that sentinels name.
    Master,
    /// To be read as a replica that is in step with its master.
    Replica {
        /// Whether it has to be told so, as nodes of a cluster do.
        readonly: bool,
    },
}

/// The part of a server in replication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Master,
    /// A replica that follows its master.
    InStep,
    /// A replica that waits for its master or is being filled: what it lacks may well exist.
    OutOfStep,
    /// The user may not ask.
    Unknown,
}

/// What larder reads was in use before this version; what it is tested with was not.
const MIN_MAJOR_VERSION: u64 = 6;

impl Duty {
    /// Whether the role has to be known.
    pub(super) fn wants_role(self) -> bool {
        self != Self::Any
    }

    /// What is wrong with a server of this role: what it is, and what it should be.
    pub(super) fn objection(self, role: Role) -> Option<(&'static str, &'static str)> {
        match (self, role) {
            (Self::Any, _)
            | (Self::Master, Role::Master | Role::Unknown)
            // A replica that was promoted has all that it had.
            | (Self::Replica { .. }, Role::InStep | Role::Master) => None,
            (Self::Master, Role::InStep | Role::OutOfStep) => Some(("a replica", "a master")),
            (Self::Replica { .. }, Role::OutOfStep) => {
                Some(("a replica that is out of step with its master", "one in step"))
            }
            (Self::Replica { .. }, Role::Unknown) => Some((
                "of a role that this user may not ask for by ROLE or INFO",
                "known to be in step with its master",
            )),
        }
    }
}

impl Role {
    /// Of the replies to `ROLE` and to `INFO replication`, either of which may be forbidden.
    pub(super) fn of(role: &Value, info: &Value) -> Self {
        if let Value::Array(parts) = role {
            match (parts.first().and_then(text), parts.get(3).and_then(text)) {
                (Some("master"), _) => return Self::Master,
                (Some("slave"), Some("connected")) => return Self::InStep,
                (Some("slave"), _) => return Self::OutOfStep,
                _ => {}
            }
        }
        let Some(info) = text(info) else { return Self::Unknown };
        match (entry(info, "role"), entry(info, "master_link_status")) {
            (Some("master"), _) => Self::Master,
            (Some("slave"), Some("up")) if entry(info, "master_sync_in_progress") != Some("1") => {
                Self::InStep
            }
            (Some("slave"), _) => Self::OutOfStep,
            _ => Self::Unknown,
        }
    }
}

/// The version in a reply to `INFO server`, if it is too old. What cannot be told passes.
pub(super) fn too_old(info: &Value) -> Option<String> {
    let version = entry(text(info)?, "redis_version")?;
    let major: u64 = version.split('.').next()?.parse().ok()?;
    // It ends up in a message.
    (major < MIN_MAJOR_VERSION).then(|| version.chars().take(32).collect())
}

/// Whether a command failed since the user may not use it.
pub(super) fn is_forbidden(reply: &Value) -> bool {
    matches!(reply, Value::ServerError(error) if error.kind() == Some(ServerErrorKind::NoPerm))
}

/// A reply's text, if it is any.
pub(super) fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        Value::VerbatimString { text, .. } => Some(text),
        _ => None,
    }
}

/// An entry of what `INFO` and `CLUSTER INFO` say, line by line.
pub(super) fn entry<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim_end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    fn replica(state: &str) -> Value {
        Value::Array(vec![bulk("slave"), bulk("h"), Value::Int(1), bulk(state), Value::Int(9)])
    }

    #[test]
    fn a_replica_is_believed_only_while_it_follows_its_master() {
        let of = |role: &Value| Role::of(role, &Value::Nil);
        assert_eq!(of(&replica("connected")), Role::InStep);
        for state in ["connect", "connecting", "sync", "handshake", "none", ""] {
            assert_eq!(of(&replica(state)), Role::OutOfStep, "{state}");
        }
        assert_eq!(of(&Value::Array(vec![bulk("master"), Value::Int(1)])), Role::Master);
        for odd in [Value::Nil, Value::Array(vec![]), Value::Array(vec![bulk("sentinel")])] {
            assert_eq!(of(&odd), Role::Unknown, "{odd:?}");
        }
        let info = |text: &str| Role::of(&Value::Nil, &bulk(text));
        let up = "# Replication\r\nrole:slave\r\nmaster_link_status:up\r\n";
        assert_eq!(info(up), Role::InStep);
        assert_eq!(info(&format!("{up}master_sync_in_progress:1\r\n")), Role::OutOfStep);
        assert_eq!(info("role:slave\r\nmaster_link_status:down\r\n"), Role::OutOfStep);
        assert_eq!(info("role:master\r\n"), Role::Master);
    }

    #[test]
    fn each_duty_has_its_role() {
        let replica = Duty::Replica { readonly: true };
        let fits = |duty: Duty, role| duty.objection(role).is_none();
        assert!(fits(Duty::Master, Role::Master) && fits(Duty::Master, Role::Unknown));
        assert!(!fits(Duty::Master, Role::InStep) && !fits(Duty::Master, Role::OutOfStep));
        assert!(fits(replica, Role::InStep) && fits(replica, Role::Master));
        assert!(!fits(replica, Role::OutOfStep) && !fits(replica, Role::Unknown));
        assert!(fits(Duty::Any, Role::OutOfStep));
    }

    #[test]
    fn old_servers_are_named_and_others_pass() {
        let of = |version: &str| {
            too_old(&bulk(&format!("# Server\r\nredis_version:{version}\r\nos:x\r\n")))
        };
        assert_eq!(of("5.0.14").as_deref(), Some("5.0.14"));
        assert_eq!(of("2.8").as_deref(), Some("2.8"));
        for version in ["6.0.0", "7.2.4", "10.1", "255.255.255", "df-1", ""] {
            assert_eq!(of(version), None, "{version}");
        }
        assert_eq!(too_old(&Value::Nil), None);
    }
}
