//! How a command fails: with which exit code, and with what advice.

mod connection;
mod role;

use std::error::Error;

pub use connection::advice;
pub use role::quoted_role;

/// The kind of a failure, which is the exit code of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Something did not work: exit code 1.
    Failed,
    /// Wrong usage or configuration: exit code 2.
    Usage,
    /// Refused, because it would lose or mix data: exit code 3.
    Refused,
    /// Interrupted by the user: exit code 130.
    Interrupted,
}

impl Class {
    /// The exit code of the program.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Refused => 3,
            Self::Interrupted => 130,
        }
    }
}

/// An error that a command can end with. `Display` is one clear sentence, `source` the cause.
pub trait Failure: Error + Send + Sync + 'static {
    /// The kind of failure.
    fn class(&self) -> Class {
        Class::Failed
    }

    /// The exit code of the program, which is the kind's unless a command has its own.
    fn exit_code(&self) -> u8 {
        self.class().exit_code()
    }

    /// What the operator can do about it. A command in it says `SERVER` where only those who print
    /// it know which one that is.
    fn hint(&self) -> Option<String> {
        None
    }

    /// The same where that is known.
    fn hint_about(&self, server: &str) -> Option<String> {
        self.hint().map(|hint| about(&hint, server))
    }
}

/// What our commands begin with.
const PROGRAM: &str = "walrecv-server ";

/// What stands for a server's name in the commands of a hint.
const SERVER: &str = "SERVER";

/// A hint whose commands can be typed as they stand. What is no command of ours stays as it is: there
/// may be words of others in it.
pub fn about(hint: &str, server: &str) -> String {
    let parts = hint.split('`').enumerate().map(|(index, part)| {
        if index % 2 == 0 || !part.starts_with(PROGRAM) {
            return part.to_owned();
        }
        let words = part.split(' ').map(|word| if word == SERVER { server } else { word });
        words.collect::<Vec<_>>().join(" ")
    });
    parts.collect::<Vec<_>>().join("`")
}

impl<F: Failure> From<F> for Box<dyn Failure> {
    fn from(failure: F) -> Self {
        Box::new(failure)
    }
}

/// An error with all its causes, for logs and status.
pub fn in_one_line(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        // Some errors end with their cause already.
        if !line.ends_with(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        cause = error.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::about;

    #[test]
    fn only_our_own_commands_are_about_the_server() {
        for (hint, named) in [
            (
                "`walrecv-server delete SERVER x --forget`",
                "`walrecv-server delete main x --forget`",
            ),
            ("run `walrecv-server keep SERVER`, or", "run `walrecv-server keep main`, or"),
            ("role `SERVER_BACKUP` on SERVER", "role `SERVER_BACKUP` on SERVER"),
            ("see `ALTER SERVER x`", "see `ALTER SERVER x`"),
            ("an ` alone and SERVER", "an ` alone and SERVER"),
        ] {
            assert_eq!(about(hint, "main"), named);
        }
    }
}
