//! Which keys a running program cannot change.

use super::Config;

impl Config {
    /// What `new` would change of this configuration, which is in force, and only a restart can: every problem.
    pub fn needs_restart(&self, new: &Self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut check = |key: &str, old: String, new: String| {
            if old != new {
                problems.push(format!(
                    "{key} = {new}: needs a restart; until then {old} is in force"
                ));
            }
        };
        let ephemeral = |config: &Self| config.store.path.is_none().to_string();
        check("state.ephemeral", ephemeral(self), ephemeral(new));
        if let (Some(old), Some(new)) = (&self.store.path, &new.store.path) {
            check("state.path", format!("{old:?}"), format!("{new:?}"));
        }
        let addresses = |config: &Self| format!("{:?}", config.listen_addresses);
        check("web.listen_addresses", addresses(self), addresses(new));
        let format = |config: &Self| format!("{:?}", config.log.format.label());
        check("log.format", format(self), format(new));
        problems
    }
}
