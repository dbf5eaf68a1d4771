//! When the CNI configuration is written: a node is Ready for pods as long as it is there.

use super::Engine;
use crate::install::conflist::Conflist;

impl Engine {
    /// Removes a configuration that a former boot has left: until ADD can succeed again the node is
    /// not to be Ready. After a plain restart it stays, as ADD and DEL go on.
    ///
    /// # Errors
    /// The file system's, naming the file.
    pub(super) fn take_over_conflist(&mut self) -> std::io::Result<()> {
        let config = &self.config;
        let Some(conf) = &config.cni else {
            return Ok(());
        };
        let conflist = Conflist::new(conf, &config.socket, &config.state_dir);
        if self.local.records.is_first_of_boot() && conflist.remove()? {
            let path = conflist.path();
            tracing::info!(path = %path.display(), "CNI configuration of a former boot removed");
        }
        self.conflist = Some(conflist);
        Ok(())
    }

    /// Writes the configuration once ADD can succeed. Afterwards it is looked at with every `check`,
    /// as somebody else may change it; it is never removed, as without it the runtime could not even
    /// run DEL. False if it is to be tried again.
    pub(super) fn apply_conflist(&mut self, check: bool) -> bool {
        const PART: &str = "CNI configuration";
        let missing = |conflist: &Conflist| !conflist.path().exists();
        let due = self.conflist.as_ref().is_some_and(|c| check || missing(c));
        if !due || !self.can_add() {
            return true;
        }
        let Some(conflist) = &self.conflist else {
            return true;
        };
        let mut problems = conflist.problems();
        let ok = match conflist.ensure() {
            Ok(false) => true,
            Ok(true) => {
                let path = conflist.path();
                tracing::info!(path = %path.display(), "CNI configuration written: pods can be added");
                true
            }
            Err(e) => {
                problems.push(e.to_string());
                false
            }
        };
        self.set_problems(PART, problems);
        ok
    }
}
