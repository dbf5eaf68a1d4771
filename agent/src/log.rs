//! Logs go to stderr, as text or JSON; the level can be changed while the agent runs.

use std::sync::OnceLock;

use tracing_subscriber::{EnvFilter, Registry, layer::SubscriberExt as _, reload};

use crate::config::LogFormat;

static LEVEL: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// Parses a filter: a level (`info`) or directives (`weir_agent=debug,info`).
///
/// # Errors
/// What is wrong with it, for people.
pub fn parse_filter(text: &str) -> Result<EnvFilter, String> {
    EnvFilter::builder().parse(text).map_err(|e| format!("{e}: expected error, warn, info, debug, trace, or directives such as weir_agent=debug,info"))
}

/// Starts logging. Called once, before the first event; further calls change nothing.
///
/// # Errors
/// The filter does not parse.
pub fn init(format: LogFormat, level: &str) -> Result<(), String> {
    let (filter, handle) = reload::Layer::new(parse_filter(level)?);
    let registry = tracing_subscriber::registry().with(filter);
    let fmt = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let set = match format {
        LogFormat::Text => {
            let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr())
                && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
            tracing::subscriber::set_global_default(registry.with(fmt.with_ansi(ansi)))
        }
        LogFormat::Json => {
            let json = fmt.json().flatten_event(true).with_current_span(false);
            tracing::subscriber::set_global_default(registry.with(json))
        }
    };
    if set.is_ok() {
        LEVEL.get_or_init(|| handle);
    }
    Ok(())
}

/// Changes the level.
///
/// # Errors
/// The filter does not parse, or logging was not started.
pub fn set_level(level: &str) -> Result<(), String> {
    let filter = parse_filter(level)?;
    let handle = LEVEL.get().ok_or("logging has not been started")?;
    handle.reload(filter).map_err(|e| e.to_string())
}
