//! The call's parameters: environment variables (SPEC section 2, "Parameters").

use std::{env, ffi::OsString};

use weir_api::endpoint::PodRef;

use crate::error::{CniError, Code, Result};

/// What the runtime asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Attach.
    Add,
    /// Detach.
    Del,
    /// Is the attachment as it should be?
    Check,
    /// Detach everything that is not listed.
    Gc,
    /// Can ADD be served?
    Status,
    /// Which versions are served?
    Version,
}

impl Command {
    /// As `CNI_COMMAND` says it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Gc => "GC",
            Self::Status => "STATUS",
            Self::Version => "VERSION",
        }
    }

    const ALL: [Self; 6] = [
        Self::Add,
        Self::Del,
        Self::Check,
        Self::Gc,
        Self::Status,
        Self::Version,
    ];

    /// Variables it cannot do without. (GC's `CNI_PATH` is not used, but demanded by the SPEC.)
    const fn needs(self) -> &'static [&'static str] {
        match self {
            Self::Add | Self::Check => &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"],
            Self::Del => &["CNI_CONTAINERID", "CNI_IFNAME"],
            Self::Gc => &["CNI_PATH"],
            Self::Status | Self::Version => &[],
        }
    }
}

/// The variables, checked. What a command does not need is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// `CNI_COMMAND`.
    pub command: Command,
    /// `CNI_CONTAINERID`.
    pub container_id: String,
    /// `CNI_NETNS`; may be empty for DEL.
    pub netns: String,
    /// `CNI_IFNAME`.
    pub ifname: String,
    /// `CNI_NETNS_OVERRIDE`: the namespace may be the plugin's own.
    pub netns_override: bool,
    /// `CNI_ARGS`.
    pub args: Args,
}

/// What Weir uses of `CNI_ARGS`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Args {
    /// The Pod, if namespace and name are both there (podman gives the name alone).
    pub pod: Option<PodRef>,
    /// `IP=`: addresses asked for, separated by commas.
    pub ips: Vec<String>,
}

impl Call {
    /// Reads the process's environment; none without `CNI_COMMAND`.
    pub fn from_env() -> Result<Option<Self>> {
        Self::read(|name| env::var_os(name))
    }

    fn read(var: impl Fn(&str) -> Option<OsString>) -> Result<Option<Self>> {
        let text = |name: &str| match var(name).map(OsString::into_string) {
            None => Ok(String::new()),
            Some(Ok(text)) => Ok(text),
            Some(Err(_)) => Err(invalid(format!("{name} is not valid UTF-8"))),
        };
        let command = text("CNI_COMMAND")?;
        if command.is_empty() {
            return Ok(None);
        }
        let command = Command::ALL
            .into_iter()
            .find(|known| known.as_str() == command)
            .ok_or_else(|| invalid(format!("unknown CNI_COMMAND: {command}")))?;
        let mut call = Self {
            command,
            container_id: String::new(),
            netns: String::new(),
            ifname: String::new(),
            netns_override: false,
            args: Args::default(),
        };
        if command == Command::Version {
            return Ok(Some(call));
        }
        let mut missing = Vec::new();
        for name in command.needs() {
            if text(name)?.is_empty() {
                missing.push(*name);
            }
        }
        if !missing.is_empty() {
            let list = missing.join(", ");
            return Err(invalid(format!(
                "{} needs environment variables: {list}",
                command.as_str()
            )));
        }
        if !matches!(command, Command::Gc | Command::Status) {
            call.container_id = text("CNI_CONTAINERID")?;
            call.netns = text("CNI_NETNS")?;
            call.ifname = text("CNI_IFNAME")?;
            call.netns_override = matches!(
                text("CNI_NETNS_OVERRIDE")?.as_str(),
                "1" | "t" | "T" | "true" | "TRUE" | "True"
            );
            check_name("CNI_CONTAINERID", &call.container_id).map_err(invalid)?;
            check_ifname(&call.ifname)?;
        }
        // A DEL must not fail for arguments that it has no use for.
        if command == Command::Add {
            call.args = Args::parse(&text("CNI_ARGS")?)?;
        }
        Ok(Some(call))
    }
}

impl Args {
    /// Reads `K=V;K2=V2`.
    fn parse(text: &str) -> Result<Self> {
        let (mut namespace, mut name, mut uid) = (None, None, None);
        let (mut ips, mut ignore, mut unknown) = (Vec::new(), false, Vec::new());
        for pair in text.split(';').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair
                .split_once('=')
                .ok_or_else(|| invalid(format!("CNI_ARGS: {pair:?} is not KEY=VALUE")))?;
            match key {
                "IgnoreUnknown" => ignore = matches!(value, "1" | "t" | "true" | "TRUE" | "True"),
                "K8S_POD_NAMESPACE" => namespace = filled(value),
                "K8S_POD_NAME" => name = filled(value),
                "K8S_POD_UID" => uid = filled(value),
                "K8S_POD_INFRA_CONTAINER_ID" => {}
                "IP" => ips.extend(value.split(',').filter_map(filled)),
                key => unknown.push(key),
            }
        }
        if !unknown.is_empty() && !ignore {
            let msg = format!(
                "CNI_ARGS: unknown {}; IgnoreUnknown=1 lets it pass",
                unknown.join(", ")
            );
            return Err(invalid(msg));
        }
        let pod = namespace.zip(name).map(|(namespace, name)| PodRef {
            namespace,
            name,
            uid,
        });
        Ok(Self { pod, ips })
    }
}

fn filled(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn invalid(msg: impl Into<String>) -> CniError {
    CniError::new(Code::InvalidEnvironment, msg)
}

/// Container ids and network names: `^[a-zA-Z0-9][a-zA-Z0-9_.\-]*$`.
pub fn check_name(what: &str, name: &str) -> Result<(), String> {
    let rest = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    match name.as_bytes() {
        [first, others @ ..]
            if first.is_ascii_alphanumeric() && others.iter().all(|b| rest(*b)) =>
        {
            Ok(())
        }
        [] => Err(format!("{what} is empty")),
        _ => Err(format!(
            "{what} {name:?} must be letters, digits, '_', '.' and '-', with a letter or digit first"
        )),
    }
}

/// Interface names, as the kernel and libcni take them.
fn check_ifname(name: &str) -> Result<()> {
    let bad = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
    let reason = match name {
        "." | ".." => "is a directory's name",
        _ if name.len() > 15 => "is longer than 15 bytes",
        _ if name.contains(bad) => "has a '/', a ':' or a space in it",
        _ => return Ok(()),
    };
    Err(invalid(format!("CNI_IFNAME {name:?} {reason}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(vars: &[(&str, &str)]) -> Result<Option<Call>> {
        Call::read(|name| {
            vars.iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| OsString::from(value))
        })
    }

    #[test]
    fn e1_every_missing_variable_is_named() {
        for (command, needed) in [
            ("ADD", "CNI_CONTAINERID, CNI_NETNS, CNI_IFNAME"),
            ("CHECK", "CNI_CONTAINERID, CNI_NETNS, CNI_IFNAME"),
            ("DEL", "CNI_CONTAINERID, CNI_IFNAME"),
            ("GC", "CNI_PATH"),
        ] {
            let error = read(&[("CNI_COMMAND", command)]).unwrap_err();
            assert_eq!(error.code, Code::InvalidEnvironment);
            assert!(error.msg.ends_with(needed), "{command}: {error}");
        }
        for command in ["STATUS", "VERSION"] {
            assert!(read(&[("CNI_COMMAND", command)]).unwrap().is_some());
        }
    }

    #[test]
    fn e6_args_are_read_and_a_broken_pair_or_an_unknown_key_is_refused() {
        let args = Args::parse(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;X=y=z;K8S_POD_UID=u;IP=10.0.0.1",
        )
        .unwrap();
        let pod = PodRef {
            namespace: "shop".into(),
            name: "web-0".into(),
            uid: Some("u".into()),
        };
        assert_eq!(
            args,
            Args {
                pod: Some(pod),
                ips: vec!["10.0.0.1".into()]
            }
        );
        for broken in [
            "X",
            "X=1",
            "IgnoreUnknown=0;X=1",
            "IgnoreUnknown=1;X",
            "=;y",
        ] {
            assert_eq!(
                Args::parse(broken).unwrap_err().code,
                Code::InvalidEnvironment,
                "{broken}"
            );
        }
        assert_eq!(Args::parse("").unwrap(), Args::default());
    }

    #[test]
    fn e6_podman_gives_the_name_alone_which_is_no_pod() {
        assert_eq!(
            Args::parse("IgnoreUnknown=1;K8S_POD_NAME=web").unwrap().pod,
            None
        );
    }

    #[test]
    fn e3_e4_names_are_checked() {
        for id in ["a/b", "-a", ".a", "ä", "a b", "a;b", "_a"] {
            assert!(check_name("x", id).is_err(), "{id}");
        }
        assert!(check_name("x", "a-b.c_d0").is_ok());
        for name in [
            ".",
            "..",
            "a/b",
            "a:b",
            "a b",
            "a\tb",
            "0123456789abcdef",
            "ééééééééé",
        ] {
            assert!(check_ifname(name).is_err(), "{name}");
        }
        assert!(check_ifname("0123456789abcde").is_ok());
    }
}
