//! What to type when a server is configured.

use std::path::Path;

use super::NextCommand;
use crate::settings::ServerName;

/// What there is on this machine that decides how commands are typed.
#[derive(Clone, Debug, Default)]
pub struct Surroundings<'a> {
    /// The configuration, if it is not where it is looked for anyway.
    pub configuration: Option<&'a Path>,
    /// The user whose store it is, if that is somebody else.
    pub user: Option<&'a str>,
    /// Whether systemd knows the daemon.
    pub unit: bool,
}

impl Surroundings<'_> {
    fn command(&self, words: &str) -> String {
        let user = self.user.map(|user| format!("sudo -u {user} ")).unwrap_or_default();
        let file = self
            .configuration
            .map(|file| format!(" --config {}", file.display()))
            .unwrap_or_default();
        format!("{user}walrecv-server{file} {words}")
    }

    /// After a trial that went well.
    pub fn first_commands(&self, server: &ServerName) -> Vec<NextCommand> {
        let daemon = if self.unit && self.configuration.is_none() {
            "systemctl enable --now walrecv-server".to_owned()
        } else {
            self.command("run")
        };
        vec![
            NextCommand { line: daemon, purpose: "receives WAL, for ever" },
            NextCommand {
                line: self.command(&format!("backup {server} --wait")),
                purpose: "a base backup",
            },
            NextCommand {
                line: self.command(&format!("check {server}")),
                purpose: "is everything as it should be?",
            },
        ]
    }

    /// After one that did not, or where there is nothing to try yet.
    pub fn try_again(&self, server: &ServerName) -> Vec<NextCommand> {
        let line = self.command(&format!("init {server}"));
        vec![NextCommand { line, purpose: "tries the connection again" }]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(surroundings: &Surroundings<'_>) -> Vec<String> {
        let commands = surroundings.first_commands(&"main".parse().unwrap());
        commands.into_iter().map(|next| next.line).collect()
    }

    #[test]
    fn commands_are_those_that_work_here() {
        assert_eq!(
            lines(&Surroundings::default()),
            [
                "walrecv-server run",
                "walrecv-server backup main --wait",
                "walrecv-server check main"
            ]
        );
        let packaged = Surroundings { configuration: None, user: Some("walrecv"), unit: true };
        assert_eq!(
            lines(&packaged),
            [
                "systemctl enable --now walrecv-server",
                "sudo -u walrecv walrecv-server backup main --wait",
                "sudo -u walrecv walrecv-server check main"
            ]
        );
        let elsewhere =
            Surroundings { configuration: Some(Path::new("/x.toml")), user: None, unit: true };
        assert_eq!(lines(&elsewhere)[0], "walrecv-server --config /x.toml run");
    }
}
