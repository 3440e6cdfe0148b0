//! Commands as text.

use crate::ServerVersion;
use crate::proto::Command;

/// Servers with different grammars.
const VERSIONS: [ServerVersion; 4] = [
    ServerVersion::from_num(100_000),
    ServerVersion::from_num(140_000),
    ServerVersion::from_num(170_000),
    ServerVersion::from_num(190_000),
];

/// Commands, with a zero byte between them: what is read is written for every server that knows
/// it, and read again as the same.
pub fn command(data: &[u8]) {
    for text in data.split(|&byte| byte == 0).filter_map(|text| str::from_utf8(text).ok()) {
        let Ok(command) = Command::parse(text) else { continue };
        for version in VERSIONS {
            let Ok(written) = command.text(version) else { continue };
            let again = Command::parse(&written).expect("what was written is not read");
            assert_eq!(again.text(version).as_deref().ok(), Some(&*written));
            // The label is written without its control characters.
            if !matches!(command, Command::BaseBackup(_)) {
                assert_eq!(again, command, "{written}");
            }
        }
    }
}
