//! Colours, on a terminal only.

/// Whether to colour. `NO_COLOR` (no-color.org) switches colours off.
#[derive(Clone, Copy, Debug)]
pub(super) struct Colors(bool);

impl Colors {
    /// `terminal`: whether standard output is one.
    pub fn new(terminal: bool) -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self::decided(terminal, refused)
    }

    pub fn decided(terminal: bool, refused: bool) -> Self {
        Self(terminal && !refused)
    }

    pub fn good(self, text: &str) -> String {
        self.paint("32", text)
    }

    pub fn bad(self, text: &str) -> String {
        self.paint("31", text)
    }

    pub fn warn(self, text: &str) -> String {
        self.paint("33", text)
    }

    pub fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    /// Green for what is allowed or true, red for the rest.
    pub fn by(self, good: bool, text: &str) -> String {
        if good {
            self.good(text)
        } else {
            self.bad(text)
        }
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.0 {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }
}
