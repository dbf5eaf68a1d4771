//! Logs: to stderr and to `logFile`, never to stdout, which is the result's alone.

use std::{
    fmt,
    fs::{File, OpenOptions},
    io::Write,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// What failed.
    Error,
    /// What went wrong and was got over.
    Warn,
    /// Each call and its outcome.
    Info,
    /// Each step.
    Debug,
}

impl Level {
    /// Reads `logLevel`.
    pub fn parse(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "error" => Some(Self::Error),
            "warn" | "warning" => Some(Self::Warn),
            "info" => Some(Self::Info),
            "debug" | "trace" => Some(Self::Debug),
            _ => None,
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }
}

/// Where log lines go.
#[derive(Debug)]
pub struct Log {
    level: Level,
    file: Option<File>,
    /// Says which attachment the lines are about.
    subject: String,
}

impl Log {
    /// A log to stderr alone, before the configuration is known.
    pub fn stderr(subject: String) -> Self {
        Self {
            level: Level::Info,
            file: None,
            subject,
        }
    }

    /// Applies the configuration. A file that cannot be opened is said on stderr; it fails nothing.
    pub fn configure(&mut self, level: Option<Level>, file: Option<&Path>) {
        self.level = level.unwrap_or(self.level);
        let Some(path) = file else { return };
        match OpenOptions::new().append(true).create(true).open(path) {
            Ok(file) => self.file = Some(file),
            Err(error) => self.warn(format_args!("logFile {}: {error}", path.display())),
        }
    }

    /// Logs at level error.
    pub fn error(&mut self, message: impl fmt::Display) {
        self.line(Level::Error, &message);
    }

    /// Logs at level warn.
    pub fn warn(&mut self, message: impl fmt::Display) {
        self.line(Level::Warn, &message);
    }

    /// Logs at level info.
    pub fn info(&mut self, message: impl fmt::Display) {
        self.line(Level::Info, &message);
    }

    /// Logs at level debug.
    pub fn debug(&mut self, message: impl fmt::Display) {
        self.line(Level::Debug, &message);
    }

    fn line(&mut self, level: Level, message: &dyn fmt::Display) {
        if level > self.level {
            return;
        }
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let time = timestamp(since.as_secs(), since.subsec_millis());
        let message = message.to_string().replace('\n', " ");
        let line = format!(
            "{time} {} weir-cni {}: {message}\n",
            level.as_str(),
            self.subject
        );
        // A log that cannot be written must not fail what is logged. One write a line keeps the
        // lines of concurrent calls whole.
        let _ = std::io::stderr().write_all(line.as_bytes());
        if let Some(file) = &mut self.file {
            let _ = file.write_all(line.as_bytes());
        }
    }
}

/// RFC 3339, UTC, of seconds since 1970 (days to a date as in Howard Hinnant's `civil_from_days`).
fn timestamp(seconds: u64, millis: u32) -> String {
    let (days, time) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (time / 3600, time / 60 % 60, time % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_rfc_3339() {
        assert_eq!(timestamp(0, 0), "1970-01-01T00:00:00.000Z");
        assert_eq!(timestamp(951_782_399, 7), "2000-02-28T23:59:59.007Z");
        assert_eq!(timestamp(951_782_400, 0), "2000-02-29T00:00:00.000Z");
        assert_eq!(timestamp(1_795_406_400, 999), "2026-11-23T04:00:00.999Z");
    }
}
